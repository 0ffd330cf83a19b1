"""``PUT /datastore/image`` and ``PUT /datastore/label``: files under the names that they were sent with.

MONAI Label's own handlers take all that follows on the first dot of a name for its suffix: ``patient.07.nii.gz`` and
``patient.08.nii.gz`` both become the study ``patient``, and the second one replaces the first.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, UploadFile
from monailabel.config import RBAC_ANNOTATOR, settings
from monailabel.endpoints import datastore
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag

from proxyprompt.datastores.shared import OVERWRITE

from .forms import file_name, json_object

_FINAL = DefaultLabelTag.FINAL.value
_Text = Annotated[str, Form()]
_User = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))]
_REPLACED = ("/datastore/image", "/datastore/", "/datastore/label")


def study_router(app: MONAILabelApp) -> APIRouter:
    """Uploads of images and labels; it must come before MONAI Label's own.

    Args:
        app: that takes them in.

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

    @router.put("/label", summary=f"{RBAC_ANNOTATOR}Save Finished Label")
    def save_label(
        image: str,
        params: _Text = "{}",
        tag: str = _FINAL,
        *,
        label: Annotated[UploadFile, File()],
        user: _User,
    ) -> dict[str, Any]:
        """The label takes the place of the one that the study has for this tag, which goes to the history."""
        with _received(label) as path:
            saved = app.datastore().save_label(image, str(path), tag or _FINAL, json_object(params))
        return {**(app.on_save_label(image, saved) or {}), "image": image, "label": saved}

    return router


def hide_replaced() -> None:
    """Take the routes that :func:`study_router` stands for out of MONAI Label's own, and so out of the description."""
    routes = datastore.router.routes
    routes[:] = [route for route in routes if "PUT" not in route.methods or route.path not in _REPLACED]


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
