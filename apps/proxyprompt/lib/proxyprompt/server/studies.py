"""``/datastore/image`` and ``/datastore/label``: files under the names that they were sent with, and series as files.

MONAI Label's own handlers take all that follows on the first dot of a name for its suffix: ``patient.07.nii.gz`` and
``patient.08.nii.gz`` both become the study ``patient``, and the second one replaces the first. Of a study that is a
folder they say that it does not exist, of one that does not exist they say nothing (``{}``), and they find every check
sum wrong.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, UploadFile
from fastapi.responses import FileResponse
from monailabel.config import RBAC_ANNOTATOR, RBAC_USER, settings
from monailabel.endpoints import datastore
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.utils.others.generic import file_checksum, get_mime_type
from starlette.background import BackgroundTask

from proxyprompt.datastores.dicomweb import DicomWebStudies
from proxyprompt.datastores.shared import OVERWRITE
from proxyprompt.errors import refuse

from .forms import file_name, json_object
from .labels import submit

_FINAL = DefaultLabelTag.FINAL.value
_Text = Annotated[str, Form()]
_Reader = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]
_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
_REPLACED = {("PUT", path) for path in ("/datastore/image", "/datastore/", "/datastore/label")}
_REPLACED |= {("GET", "/datastore/image"), ("HEAD", "/datastore/image"), ("GET", "/datastore/image/info")}
CHECK_SUMS = ("SHA256", "SHA512", "MD5")


class SeriesFormat(StrEnum):
    """How a series of a DICOMweb server is downloaded."""

    nifti = "nifti"
    dicom = "dicom"


def study_router(app: MONAILabelApp) -> APIRouter:
    """Uploads of images and labels, downloads of images, what is noted; it must come before MONAI Label's own.

    Args:
        app: whose studies they are.

    Returns:
        The routes, without the prefix of MONAI_LABEL_API_STR.
    """
    router = APIRouter(prefix="/datastore", tags=["Datastore"])

    @router.put("/", include_in_schema=False, deprecated=True)
    @router.put("/image", summary=f"{RBAC_ANNOTATOR}Upload new Image")
    def add_image(
        image: str | None = None,
        overwrite: bool = False,
        params: _Text = "{}",
        *,
        file: Annotated[UploadFile, File()],
        user: _User,
    ) -> dict[str, str]:
        """Add an image.

        Without an id the image gets the one that its file would have in the folder of studies. An image with other
        pixels is replaced only when ``overwrite`` says so (409 otherwise).
        """
        noted = _noted(params, user)
        if overwrite:
            noted[OVERWRITE] = True
        with _received(file) as path:
            return {"image": app.datastore().add_image(image or "", str(path), noted)}

    @router.get("/image", summary=f"{RBAC_USER}Download Image")
    def download_image(image: str, format: SeriesFormat | None = None, *, user: _Reader) -> FileResponse:
        """The file as it is; for a study that is a folder of DICOM files, a ZIP of them.

        A series of a DICOMweb server comes as NIfTI, which is what viewers that download images can open, unless
        ``format`` says dicom.
        """
        path = _path_of(app, image)
        if format is not SeriesFormat.dicom and (exported := exported_image(app.datastore(), image)) is not None:
            path = exported
        if path.is_dir():
            zipped = _zipped(path)
            done = BackgroundTask(os.remove, zipped)
            return FileResponse(zipped, media_type="application/zip", filename=f"{image}.zip", background=done)
        return FileResponse(path, media_type=get_mime_type(str(path)), filename=path.name)

    @router.head("/image", summary=f"{RBAC_USER}Check If Image Exists")
    def check_image(image: str, check_sum: str | None = None, *, user: _Reader) -> dict[str, str]:
        """404 where there is no such image, or where its file has another check sum; a folder has none."""
        path = _path_of(app, image)
        if check_sum and not _has_check_sum(path, check_sum):
            raise ImageNotFoundException(f"the image {image!r} has another check sum than {check_sum}")
        return {}

    @router.get("/image/info", summary=f"{RBAC_USER}Get Image Info")
    def image_info(image: str, user: _Reader) -> dict[str, Any]:
        """What is noted of an image; 404 where there is none."""
        info = app.datastore().get_image_info(image)
        if not info:
            raise ImageNotFoundException(f"there is no image {image!r}")
        return info

    @router.put("/label", summary=f"{RBAC_ANNOTATOR}Save Finished Label")
    def save_label(
        image: str,
        params: _Text = "{}",
        tag: str = _FINAL,
        base: str | None = None,
        replace: bool = False,
        *,
        label: Annotated[UploadFile, File()],
        user: _User,
    ) -> dict[str, Any]:
        """The label takes the place of the one that the study has for this tag, which goes to the history.

        A client that says which version it had opened (``base``, "" for none) does not replace one that was written
        since (409), unless ``replace`` says so.
        """
        with _received(label) as path:
            noted = json_object(params)
            return submit(app, image, path, tag=tag or _FINAL, info=noted, user=user, base=base, replace=replace)

    return router


def hide_replaced() -> None:
    """Take the routes that :func:`study_router` stands for out of MONAI Label's own, and so out of the description."""
    routes = datastore.router.routes
    routes[:] = [route for route in routes if not {(method, route.path) for method in route.methods} & _REPLACED]


def exported_image(store: Datastore, image: str) -> Path | None:
    """The file that viewers download in the place of an image.

    Args:
        store: of the image.
        image: its id.

    Returns:
        The file of a series of a DICOMweb server; None for all others, which are downloaded as they are.
    """
    return store.exported_image(image) if isinstance(store, DicomWebStudies) else None


def downloaded(store: Datastore, image: str) -> dict[str, str]:
    """What the answer for the next sample says of the image's file, for viewers that download it.

    3D Slicer opens ``path`` where that is on its machine, else it downloads the image. Converting takes a while, and so
    waits for the download unless MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI is set.

    Args:
        store: of the image.
        image: its id.

    Returns:
        The path of the file of a series of a DICOMweb server; empty for all others.
    """
    if not isinstance(store, DicomWebStudies):
        return {}
    if settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI:
        store.exported_image(image)
    return {"path": str(store.exported_path(image))}


def _path_of(app: MONAILabelApp, image: str) -> Path:
    path = app.datastore().get_image_uri(image)
    if not path or not os.path.exists(path):
        raise ImageNotFoundException(f"there is no image {image!r}")
    return Path(path)


def _zipped(folder: Path) -> str:
    """A temporary ZIP file of the files that lie directly in a folder; it belongs to the caller."""
    handle, zipped = tempfile.mkstemp(suffix=".zip")
    with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for each in sorted(folder.iterdir()):
            if each.is_file() and not each.name.startswith("."):
                archive.write(each, f"{folder.name}/{each.name}")
    return zipped


def _has_check_sum(path: Path, check_sum: str) -> bool:
    algorithm, colon, digest = check_sum.partition(":")
    algorithm, digest = (algorithm, digest) if colon else (CHECK_SUMS[0], check_sum)
    if algorithm not in CHECK_SUMS:
        raise refuse(f"check_sum {check_sum!r} is of no known kind; valid: {', '.join(CHECK_SUMS)}, then a colon")
    return path.is_file() and file_checksum(str(path), algo=algorithm) == f"{algorithm}:{digest.lower()}"


def _noted(params: str, user: User) -> dict[str, Any]:
    noted = json_object(params)
    return {**noted, "user": user.username} if user.username else noted


@contextmanager
def _received(file: UploadFile) -> Iterator[Path]:
    """A copy of an uploaded file under its own name, for as long as the block lasts."""
    name = file_name(file)
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        path = Path(folder) / name
        with path.open("wb") as out:
            shutil.copyfileobj(file.file, out)
        yield path
