"""The studies of a DICOMweb server, and their labels, as MONAI Label's datastore.

MONAI Label's own one keeps what it saw for two hours, never looks at a label again, pairs label values with names by
rank, and stores labels of nothing but volumes. Here:

- an image is a series, its label is the newest SEG drawn on it; a newer one replaces the copy on this machine;
- what was listed holds for seconds, and is forgotten at once when something was stored through this server;
- labels are stored with the names of their structures, on every image that can be read.

Copies lie in the cache folder: ``<series UID>/*.dcm`` for images, ``labels/final/<series UID>.dcm`` for labels.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.ext.gcp.session_utils import create_session_from_gcp_credentials
from dicomweb_client.session_utils import create_session_from_user_pass
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import DataModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException
from numpy.typing import NDArray
from pydicom import dcmread

from proxyprompt.errors import as_monailabel
from proxyprompt.io.dicom import read_dicom
from proxyprompt.io.dicom_seg_writer import write_seg
from proxyprompt.io.errors import StudyError
from proxyprompt.io.label_files import read_label_map, read_slices_on
from proxyprompt.io.label_map import LabelMap
from proxyprompt.io.labels import declared_structures

from .archive import Archive, Listing, Seg
from .folder import StudyFolder

logger = logging.getLogger(__name__)

FINAL = DefaultLabelTag.FINAL.value
TIMEOUT = (10, 120)  # seconds to be reached, and of silence: an archive that hangs must not take the server with it


class DicomWebStudies(StudyFolder, DICOMWebDatastore):
    """Image ids are SeriesInstanceUIDs, label ids those of their images. Thread safe.

    ``super()`` is the copies on this machine, for many at once; MONAI Label's own class is asked for NIfTI only.

    cache_path, convert_to_nifti: as MONAI Label has them. conf_labels: names of label values that a label does not
    carry itself (see ``declared_structures``). expiry: seconds for which a listing holds. on_new_label: called with
    the image's id when a label that was stored elsewhere, or through the proxy, has been fetched.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search_filter: Mapping[str, Any],
        *,
        cache_path: str | None = None,
        convert_to_nifti: bool = False,
        conf_labels: str | None = None,
        expiry: float = 5,
        on_new_label: Callable[[str], object] = lambda image_id: None,
    ) -> None:
        self.archive = Archive(client, search_filter, expiry=expiry)
        self._conf_labels, self._on_new_label = conf_labels, on_new_label
        self._fetching = threading.Lock()
        self._own: set[str] = set()  # SEGs that were stored by save_label(), whose callers know
        super().__init__(client, search_filter, cache_path, convert_to_nifti=convert_to_nifti)

    # what there is

    def list_images(self) -> list[str]:
        """Ids of all images in the archive."""
        return list(self._archived().images)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of images with a label in the archive."""
        return list(self._archived().labels)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of images without one."""
        listing = self._archived()
        return [image_id for image_id in listing.images if image_id not in listing.labels]

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What the archive and this machine know of an image."""
        return {**self._archived().images.get(image_id, {}), **super().get_image_info(image_id)}

    @property
    def left_out(self) -> Mapping[str, str]:
        """Nothing: what is listed is what the archive holds, whatever lies beside the copies."""
        return {}

    # copies

    def get_image_uri(self, image_id: str) -> str:
        """The folder with the series' files, fetched if it is not here; "" for a series that is not in the archive.

        With MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI a NIfTI file made of it, for viewers that download images.
        """
        folder = self._series(image_id)
        if folder is None:
            return ""
        if not self._convert_to_nifti:
            return str(folder)
        # The first time it is a temporary file, of which a copy is kept.
        converted = DICOMWebDatastore.get_image_uri(self, image_id)
        kept = super().get_image_uri(image_id)
        if converted != kept:
            Path(converted).unlink()
        return kept

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of an image's label; for the tag final, its newest SEG, fetched if it is not here."""
        if label_tag == FINAL:
            self._fetch_label(label_id)
        return super().get_label_uri(label_id, label_tag)

    def sync(self) -> None:
        """Fetches every label that is not here in its newest version, with its image; drops those that were deleted."""
        current = self._archived().labels
        for image_id in set(super().get_labeled_images()) - set(current):
            logger.info("the label of %s is no longer in the archive", image_id)
            Path(super().get_label_uri(image_id, FINAL)).unlink()
            self.refresh()
        for image_id, seg in current.items():
            if self._fetch_label(image_id) and seg.seen > 1 and seg.instance not in self._own:
                self._on_new_label(image_id)

    def stored_elsewhere(self) -> None:
        """Something was stored in the archive, not by this datastore: takes it in now."""
        self.archive.forget()
        self.sync()

    def _download_labeled_data(self) -> None:
        """What ``datalist()`` of the base class calls."""
        self.sync()

    # labels in

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Tag final: stored in the archive as DICOM SEG. Other tags stay on this machine.

        label_info: may name the values, see ``declared_structures``. MONAILabelException for a label that does not fit
        its image, and for one that is empty and names no structure.
        """
        folder = self._series(image_id)
        if folder is None:
            raise ImageNotFoundException(f"there is no image {image_id!r} in the archive {self.name()}")
        if label_tag != FINAL:
            return super().save_label(image_id, label_filename, label_tag, label_info)
        with as_monailabel("storing the label", StudyError), tempfile.TemporaryDirectory() as temporary:
            masks = self._masks(folder, Path(label_filename), label_info)
            seg = dcmread(write_seg(folder, masks, Path(temporary) / "label.dcm"))
            self._own.add(str(seg.SOPInstanceUID))
            self.archive.store(seg)
        self._fetch_label(image_id)
        self.update_label_info(image_id, FINAL, label_info or {})
        return image_id

    def _masks(self, folder: Path, label: Path, info: Mapping[str, Any] | None) -> dict[str, NDArray[np.bool_]]:
        image = read_dicom(folder)
        if label.suffix == ".bin":
            found = LabelMap(read_slices_on(image, label, (info or {}).get("instances")))
        else:
            found = read_label_map(image, label)
        values = found.values
        names = declared_structures(
            label,
            label_info=info,
            segment_names=found.names,
            conf_labels=self._conf_labels,
            values=np.unique(values),
        )
        if not names:
            raise StudyError("the label is empty and names no structure; name those that were looked for in label_info")
        return {name: np.isin(values, list(members)) for name, members in names.items()}

    # inside

    def _on_the_way(self, path: str) -> bool:
        """Never: series and labels from the archive appear whole, by being renamed."""
        return False

    def _archived(self) -> Listing:
        """What the archive holds; labels that are not here yet are fetched in the background."""
        listing = self.archive.listing()
        if not all(map(self._is_here, listing.labels.values())) and not self._fetching.locked():
            threading.Thread(target=self._sync_quietly, name="labels", daemon=True).start()
        return listing

    def _sync_quietly(self) -> None:
        try:
            self.sync()
        except Exception as error:  # the next listing tries again
            logger.warning("labels could not be fetched from %s: %s", self.name(), error)

    def _series(self, image_id: str) -> Path | None:
        """The folder of a series; None when there is no such series."""
        tags = self.archive.listing().images.get(image_id)
        if tags is None:
            return None
        folder = Path(self._datastore.image_path()).resolve() / image_id
        with self._fetching:
            if not folder.is_dir():
                self.archive.fetch_series(tags["StudyInstanceUID"], image_id, folder)
                self.refresh()
        return folder

    def _fetch_label(self, image_id: str) -> bool:
        """Brings the newest SEG of an image here, if another one or none is; True if it did."""
        seg = self.archive.listing().labels.get(image_id)
        if seg is None or self._is_here(seg):
            return False
        self._series(image_id)
        with self._fetching:
            if self._is_here(seg):
                return False
            path = Path(self._datastore.label_path(FINAL)) / f"{image_id}.dcm"
            self.archive.fetch_seg(seg, path)
            info = {"SeriesInstanceUID": seg.series, "SOPInstanceUID": seg.instance, "name": path.name}
            with self._changing():
                self._datastore.objects[image_id].labels[FINAL] = DataModel(info=info, ext=".dcm")
                self._update_datastore_file()
        return True

    def _is_here(self, seg: Seg) -> bool:
        label = self._datastore.label(seg.image, FINAL)
        return label is not None and label.info.get("SOPInstanceUID") == seg.instance


def open_archive(address: str, **options: Any) -> DicomWebStudies:
    """The studies at a DICOMweb address, with the credentials, prefixes and folders of MONAI Label's settings."""
    session = requests.Session()
    if "googleapis.com" in address:
        session = create_session_from_gcp_credentials()
    elif settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
        session = create_session_from_user_pass(
            settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
    session.request = partial(session.request, timeout=TIMEOUT)
    client = DICOMwebClientX(
        url=address,
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        permissive_uid=True,
    )
    return DicomWebStudies(
        client,
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
        cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
        convert_to_nifti=settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
        expiry=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY,
        **options,
    )
