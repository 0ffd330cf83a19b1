"""The studies of a DICOMweb server, and their labels, as MONAI Label's datastore.

MONAI Label's own one keeps what it saw for two hours, never looks at a label again, pairs label values with names by
rank, and stores labels of nothing but volumes. Here:

- an image is a series, its label is the newest SEG drawn on it; a newer one replaces the copy on this machine, and the
  older ones in the archive are its history;
- what was listed holds for seconds, and is forgotten at once when something was stored through this server;
- labels are stored with the names of their structures, on every image that can be read;
- an archive that is away stops nobody: what is here is used, and labels wait here until it is back.

Copies lie in the cache folder: ``<series UID>/*.dcm`` for images, ``labels/final/<series UID>.dcm`` for labels. The
method always reads DICOM. Viewers that download an image get a NIfTI copy of it, on the same grid.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from dicomweb_client import DICOMwebClient
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX, DICOMWebDatastore
from monailabel.datastore.local import DataModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from proxyprompt.errors import as_monailabel, in_task_process
from proxyprompt.io.dicom import read_dicom
from proxyprompt.io.dicom_seg_writer import MAKER, copy_of, write_seg
from proxyprompt.io.errors import StudyError
from proxyprompt.io.image_export import write_nifti
from proxyprompt.io.label_files import read_label_map, read_slices_on
from proxyprompt.io.label_map import LabelMap
from proxyprompt.io.labels import declared_structures

from .archive import Archive, Listing, Seg, seg_of
from .connection import open_session
from .folder import StudyFolder
from .outbox import Outbox
from .turns import Turns
from .versions import LabelVersion, writer_of

logger = logging.getLogger(__name__)

FINAL = DefaultLabelTag.FINAL.value
SLICES = ".bin"
"""Suffix of a label that is bare bytes, slice after slice, as our viewer sends it."""
STORE_PATIENCE = 15.0
"""Seconds after which a label that the archive has not taken waits here for it."""
_NIFTI, _OUTBOX, _EXPORTED = ".nifti", ".outbox", ".nii.gz"


class DicomWebStudies(StudyFolder, DICOMWebDatastore):
    """Image ids are SeriesInstanceUIDs, label ids those of their images. Thread safe.

    ``super()`` is the copies on this machine, for many at once; MONAI Label's own class is only what others know it by.

    Args:
        client: speaks with the archive.
        search_filter: see :class:`Archive`.
        cache_path: of the copies, as MONAI Label has it.
        conf_labels: names of label values that a label does not carry itself, see ``declared_structures``.
        expiry: seconds for which a listing holds.
        on_new_label: called with the image's id when a label that was stored elsewhere, or through the proxy, has been
            fetched.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search_filter: Mapping[str, Any],
        *,
        cache_path: str | None = None,
        conf_labels: str | None = None,
        expiry: float = 5,
        on_new_label: Callable[[str], object] = lambda image_id: None,
    ) -> None:
        self.archive = Archive(client, search_filter, expiry=expiry)
        self._conf_labels, self._on_new_label = conf_labels, on_new_label
        self._fetching, self._syncing = Turns(), threading.Lock()
        self._own: set[str] = set()  # SEGs that were stored by save_label(), whose callers know
        super().__init__(client, search_filter, cache_path, convert_to_nifti=False)
        self._outbox = Outbox(self._folder / _OUTBOX, self.archive.store, self._handed_over)
        if not in_task_process():  # the server itself does it
            self._outbox.begin()

    # what there is

    def list_images(self) -> list[str]:
        """Ids of all images in the archive."""
        return list(self._archived().images)

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of images with a label in the archive."""
        listing = self._archived()
        waiting = [image_id for image_id in self._outbox.waiting() if image_id not in listing.drawn]
        return [*listing.drawn, *(image_id for image_id in waiting if image_id in listing.images)]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of images without one."""
        labelled = set(self.get_labeled_images())
        return [image_id for image_id in self._archived().images if image_id not in labelled]

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What the archive and this machine know of an image; its name is that of the file that viewers download."""
        known = {**self.archive.listing().images.get(image_id, {}), **super().get_image_info(image_id)}
        return {**known, "name": f"{image_id}{_EXPORTED}"} if known else {}

    def status(self) -> dict[str, Any]:
        """As MONAI Label has it, and ``archive``: what is wrong with it, and the labels that wait for it."""
        status = super().status()
        waiting, refused = list(self._outbox.waiting()), self._outbox.refused()
        if self.archive.problem or waiting or refused:
            status["archive"] = {"problem": self.archive.problem, "waiting": waiting, "refused": refused}
        return status

    @property
    def left_out(self) -> Mapping[str, str]:
        """Nothing: what is listed is what the archive holds, whatever lies beside the copies."""
        return {}

    # copies

    def get_image_uri(self, image_id: str) -> str:
        """The folder with the series' files, fetched if it is not here; "" for a series that is not in the archive."""
        folder = self._series(image_id)
        return "" if folder is None else str(folder)

    def kept_image(self, image_id: str) -> Path | None:
        """Where the copy of a series lies; None where there is none. The archive is not asked."""
        folder = self._folder / image_id
        return folder if folder.is_dir() else None

    def exported_path(self, image_id: str) -> Path:
        """Where the file of :meth:`exported_image` lies, or will."""
        return self._folder / _NIFTI / f"{image_id}{_EXPORTED}"

    def exported_image(self, image_id: str) -> Path | None:
        """A NIfTI copy of a series on its own grid, for viewers that open nothing else; made when first asked for.

        Args:
            image_id: of the series.

        Returns:
            The file; None where there is no such series.

        Raises:
            MONAILabelException: when the series cannot be read.
        """
        folder = self._series(image_id)
        if folder is None:
            return None
        path = self.exported_path(image_id)
        with self._fetching.of(f"nifti {image_id}"), as_monailabel("converting the image", StudyError):
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                write_nifti(read_dicom(folder), path)
        return path

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The file of an image's label; for the tag final, its newest SEG, fetched if it is not here."""
        if label_tag == FINAL and (seg := self.archive.listing().labels.get(label_id)) is not None:
            self._fetch_label(seg)
        return super().get_label_uri(label_id, label_tag)

    def sync(self) -> None:
        """Fetches every label that is not here in its newest version, with its image; drops those that were deleted."""
        self._take_in(self.archive.newest_listing())

    def _take_in(self, listing: Listing) -> None:
        """What takes long may be overtaken by a Submit: of each image the label counts that it has by then."""
        for image_id in set(super().get_labeled_images()) - set(listing.drawn) - set(self._outbox.waiting()):
            if image_id in self.archive.listing().drawn:
                continue
            logger.info("the label of %s is no longer in the archive", image_id)
            Path(super().get_label_uri(image_id, FINAL)).unlink(missing_ok=True)
            self.refresh()
        for image_id in listing.drawn:
            *_, seg = self.archive.listing().drawn.get(image_id, (None,))
            if seg is not None and self._fetch_label(seg) and seg.seen > 1 and seg.instance not in self._own:
                self._on_new_label(image_id)

    def stored_elsewhere(self) -> None:
        """Something was stored in the archive, not by this datastore: takes it in now."""
        self.sync()

    def _download_labeled_data(self) -> None:
        """What ``datalist()`` of the base class calls."""
        self.sync()

    # labels in

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Tag final: stored in the archive as DICOM SEG. Other tags stay on this machine.

        An archive that does not answer gets the label later; here it counts at once.

        Args:
            image_id: of the series.
            label_filename: the label's file.
            label_tag: "final", or another one.
            label_info: to be noted; may name the values, see ``declared_structures``, and the user.
            label_id: not used.

        Returns:
            The label's id, which is the image's.

        Raises:
            MONAILabelException: for a label that does not fit its image, for one that is empty and names no structure,
                and for one that the archive refuses.
        """
        folder = self._series(image_id)
        if folder is None:
            raise ImageNotFoundException(f"there is no image {image_id!r} in the archive {self.name()}")
        if label_tag != FINAL and Path(label_filename).suffix != SLICES:
            return super().save_label(image_id, label_filename, label_tag, label_info)
        with as_monailabel("storing the label", StudyError), tempfile.TemporaryDirectory() as temporary:
            masks = self._masks(folder, Path(label_filename), label_info)
            path = Path(temporary) / "label.dcm"
            write_seg(folder, masks, path, creator=writer_of(label_info) or MAKER)
            if label_tag != FINAL:
                return super().save_label(image_id, str(path), label_tag, label_info)
            self._store(image_id, dcmread(path), label_info or {})
        return image_id

    def _store(self, image_id: str, seg: Dataset, info: Mapping[str, Any]) -> None:
        """Into the archive, or into the outbox; here it is the label either way."""
        self._own.add(str(seg.SOPInstanceUID))
        sent = _in_thread(self.archive.store, seg)
        try:
            sent.result(STORE_PATIENCE)
        except (MONAILabelException, TimeoutError) as error:
            if isinstance(error, MONAILabelException) and error.error is MONAILabelError.INVALID_INPUT:
                raise
            logger.warning(
                "the label of %s is kept for later: %s", image_id, getattr(error, "msg", "no answer in time")
            )
            self._outbox.keep(image_id, seg)  # sent twice, it is stored once
        self._put(seg_of(seg), lambda path: seg.save_as(path, write_like_original=False), info)

    def write_seg(self, image_id: str, label: Path, info: Mapping[str, Any] | None, path: Path) -> Path:
        """A label of a series as DICOM SEG, which is stored nowhere.

        Args:
            image_id: of the series.
            label: its file.
            info: may name the values, as for :meth:`save_label`.
            path: of the SEG.

        Returns:
            That path.

        Raises:
            MONAILabelException: where there is no such series, and for a label that does not fit it.
        """
        folder = self._series(image_id)
        if folder is None:
            raise ImageNotFoundException(f"there is no image {image_id!r} in the archive {self.name()}")
        with as_monailabel("writing the label", StudyError):
            return write_seg(folder, self._masks(folder, label, info), path)

    def _handed_over(self, image_id: str) -> None:
        logger.info("the archive has the label of %s now", image_id)

    # versions

    def label_versions(self, image_id: str) -> list[LabelVersion]:
        """All labels of a series, the newest first, as the archive has them now; of one that is away, as it had them.

        Args:
            image_id: of the series.

        Returns:
            The labels.
        """
        drawn = {seg.instance: seg for seg in self._newest().drawn.get(image_id, ())}
        path = self._outbox.waiting().get(image_id)
        waiting = None if path is None else seg_of(dcmread(path, stop_before_pixels=True))
        if waiting is not None:
            drawn[waiting.instance] = waiting
        segs = [*drawn.values()]
        return [
            _version(seg, current=seg is segs[-1], handed_over=waiting is None or seg.instance != waiting.instance)
            for seg in reversed(segs)
        ]

    def current_label(self, image_id: str) -> LabelVersion | None:
        """The label that counts, as this machine knows it; the archive is not asked."""
        label = self._datastore.label(image_id, FINAL)
        if label is None or "SOPInstanceUID" not in label.info:
            return None
        path = Path(super().get_label_uri(image_id, FINAL))
        return _version(
            seg_of(dcmread(path, stop_before_pixels=True)),
            current=True,
            handed_over=image_id not in self._outbox.waiting(),
        )

    def last_labels(self) -> dict[str, LabelVersion]:
        """The label that counts of each series that has one, as far as the archive told lately."""
        waiting = self._outbox.waiting()
        found = {image: _version(seg, current=True) for image, seg in self._archived().labels.items()}
        for image_id, path in waiting.items():
            found[image_id] = _version(seg_of(dcmread(path, stop_before_pixels=True)), current=True, handed_over=False)
        return found

    def version_file(self, image_id: str, version: str) -> str:
        """The SEG of a label, which may be an earlier one; fetched if it is not here.

        Args:
            image_id: of the series.
            version: SOPInstanceUID of the SEG.

        Returns:
            A path.

        Raises:
            ImageNotFoundException: where there is no such label.
        """
        seg = next((s for s in self.archive.listing().drawn.get(image_id, ()) if s.instance == version), None)
        label = self._datastore.label(image_id, FINAL)
        if label is not None and label.info.get("SOPInstanceUID") == version:
            return super().get_label_uri(image_id, FINAL)
        if seg is None:
            raise ImageNotFoundException(f"{image_id} has no label of version {version!r}")
        path = Path(self._datastore.label_path(None)) / ".history" / FINAL / f"{version}.dcm"
        with self._fetching.of(version):
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                self.archive.fetch_seg(seg, path)
        return str(path)

    def restore_label(self, image_id: str, version: str, by: str) -> str:
        """Make an earlier label the one that counts: a copy of it becomes the newest SEG.

        Args:
            image_id: of the series.
            version: of the label.
            by: who asks for it.

        Returns:
            The label's id.
        """
        seg = copy_of(dcmread(self.version_file(image_id, version)), creator=by or MAKER)
        names = [{"name": str(s.SegmentLabel), "idx": int(s.SegmentNumber)} for s in seg.SegmentSequence]
        info = {"label_info": names, "restored": version, **({"user": by} if by else {})}
        self._store(image_id, seg, info)
        return image_id

    def _masks(self, folder: Path, label: Path, info: Mapping[str, Any] | None) -> dict[str, NDArray[np.bool_]]:
        image = read_dicom(folder)
        if label.suffix == SLICES:
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

    @property
    def _folder(self) -> Path:
        return Path(self._datastore.image_path()).resolve()

    def _on_the_way(self, path: str) -> bool:
        """Never: series and labels from the archive appear whole, by being renamed."""
        return False

    def _archived(self) -> Listing:
        """What the archive holds; labels that are not here yet are fetched in the background."""
        listing = self.archive.listing()
        waiting = self._outbox.waiting() if self._outbox_made else {}
        missing = (seg for image, seg in listing.labels.items() if image not in waiting and not self._is_here(seg))
        if not self.archive.problem and not self._syncing.locked() and next(missing, None) is not None:
            threading.Thread(target=self._take_in_quietly, args=(listing,), name="labels", daemon=True).start()
        return listing

    @property
    def _outbox_made(self) -> bool:
        return hasattr(self, "_outbox")

    def _newest(self) -> Listing:
        try:
            return self.archive.newest_listing()
        except (MONAILabelException, TimeoutError):  # away: what is known of it counts
            return self.archive.listing()

    def _take_in_quietly(self, listing: Listing) -> None:
        if not self._syncing.acquire(blocking=False):
            return
        try:
            self._take_in(listing)
        except Exception as error:  # the next listing tries again
            logger.warning("labels could not be fetched from %s: %s", self.name(), getattr(error, "msg", error))
        finally:
            self._syncing.release()

    def _series(self, image_id: str) -> Path | None:
        """The folder of a series; None when there is no such series."""
        tags = self.archive.listing().images.get(image_id)
        if tags is None:
            return None
        folder = self._folder / image_id
        with self._fetching.of(image_id):
            if not folder.is_dir():
                self.archive.fetch_series(tags["StudyInstanceUID"], image_id, folder)
                self.refresh()
        return folder

    def _fetch_label(self, seg: Seg) -> bool:
        """Brings a SEG here as the label of its image, if another one or none is; True if it did.

        Not while a newer one waits here for the archive.
        """
        if self._is_here(seg) or seg.image in self._outbox.waiting():
            return False
        self._series(seg.image)
        with self._fetching.of(f"label {seg.image}"):
            if self._is_here(seg):
                return False
            self._put(seg, lambda path: self.archive.fetch_seg(seg, path), {})
        return True

    def _put(self, seg: Seg, write: Callable[[Path], object], info: Mapping[str, Any]) -> None:
        """Make a SEG the label of its image on this machine."""
        path = Path(self._datastore.label_path(FINAL)) / f"{seg.image}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".label-") as beside:
            written = Path(beside) / path.name
            write(written)
            shutil.move(written, path)
        known = {"SeriesInstanceUID": seg.series, "SOPInstanceUID": seg.instance, "name": path.name}
        who = {"user": seg.by} if seg.by else {}
        with self._changing():
            label = DataModel(info={**who, **info, **known, "time": seg.time}, ext=".dcm")
            self._datastore.objects[seg.image].labels[FINAL] = label
            self._update_datastore_file()

    def _is_here(self, seg: Seg) -> bool:
        label = self._datastore.label(seg.image, FINAL)
        return label is not None and label.info.get("SOPInstanceUID") == seg.instance


def _in_thread(function: Callable[..., object], *arguments: Any) -> Future[object]:
    """Calls a function in a thread of its own, which nobody waits for at the end of the process."""
    future: Future[object] = Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="store", daemon=True).start()
    return future


def _version(seg: Seg, *, current: bool, handed_over: bool = True) -> LabelVersion:
    return LabelVersion(
        version=seg.instance,
        by=seg.by,
        time=seg.time,
        structures=seg.structures,
        current=current,
        series=seg.series,
        handed_over=handed_over,
    )


def open_archive(address: str, **options: Any) -> DicomWebStudies:
    """The studies at a DICOMweb address, with the credentials, prefixes and folders of MONAI Label's settings."""
    client = DICOMwebClientX(
        url=address,
        session=open_session(address),
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
        permissive_uid=True,
    )
    return DicomWebStudies(
        client,
        settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
        cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
        expiry=settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY,
        **options,
    )
