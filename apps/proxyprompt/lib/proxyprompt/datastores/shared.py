"""A folder of studies that several annotators, threads and processes use at once.

MONAI Label's local datastore was made for one request at a time: it empties its list while it looks at the folder,
saves what one process remembers over what another has added meanwhile, copies files in place so that a reader may find
half of one, and writes its JSON file in place, so that a crash leaves none. Here every look at the list and every
change of it has its turn, a change starts from what is on the disk, and files appear whole or not at all.

Nor is anything lost: an upload replaces no other pixels unless it is told to, and what is known of a study outlives the
upload of the same file; a label that a newer one takes the place of goes to ``labels/.history``, so that a study has
one file for each tag; a list of studies that cannot be understood is kept aside before a new one is written.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException
from watchdog.events import FileSystemEvent

from proxyprompt.io.errors import StudyError, StudyExists
from proxyprompt.io.files import keep_aside, locked, write_json
from proxyprompt.io.names import split_suffix
from proxyprompt.io.same import same_bytes, same_image

from .label_versions import LabelVersions, delete
from .study_list import parse_list

logger = logging.getLogger(__name__)

OVERWRITE = "overwrite"
"""In the info of an uploaded image: whether it may replace other pixels."""


def _in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: SharedDatastore, *args: Any, **options: Any) -> Any:
        with self._turn:
            return method(self, *args, **options)

    return call


def _change(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: SharedDatastore, *args: Any, **options: Any) -> Any:
        with self._changing():
            return method(self, *args, **options)

    return call


class SharedDatastore(LabelVersions):
    """A :class:`LocalDatastore`, with the same arguments, for many at once.

    Every method here is about the folder on this machine, also in a class that has a remote datastore among its bases.
    """

    _datastore: Any  # MONAI Label's list of studies
    _config_ts: float  # when its file was last written, as far as is known here

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._turn = threading.RLock()
        self._read_only = bool(options.get("read_only"))
        super().__init__(*arguments, **options)
        if self._auto_reload:
            self._handler.on_moved = self._on_moved

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The turn, also before other processes, with what they have written taken in."""
        with self._turn, locked(f"{self._lock_file}-change", is_singleton=True):
            self._init_from_datastore_file()
            yield

    # looking

    def kept_image(self, image_id: str) -> Path | None:
        """Where the file or folder of an image lies on this machine; nobody else is asked.

        Args:
            image_id: of the image.

        Returns:
            Its path; None for an image that is not listed, or not here.
        """
        path = SharedDatastore.get_image_uri(self, image_id)
        return Path(path) if path else None

    list_images = _in_turn(LocalDatastore.list_images)
    get_labeled_images = _in_turn(LocalDatastore.get_labeled_images)
    get_unlabeled_images = _in_turn(LocalDatastore.get_unlabeled_images)
    get_image_uri = _in_turn(LocalDatastore.get_image_uri)
    get_image_info = _in_turn(LocalDatastore.get_image_info)
    get_label_uri = _in_turn(LocalDatastore.get_label_uri)
    get_labels_by_image_id = _in_turn(LocalDatastore.get_labels_by_image_id)
    datalist = _in_turn(LocalDatastore.datalist)
    json = _in_turn(LocalDatastore.json)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """A copy of what is known of a label."""
        with self._turn:
            return copy.deepcopy(LocalDatastore.get_label_info(self, label_id, label_tag))

    def status(self) -> dict[str, Any]:
        """Counts of images and labels, as MONAI Label shows them."""
        with self._turn:
            tags = Counter(tag for study in self._datastore.objects.values() for tag in study.labels)
        # not within the turn: for a remote datastore these two go over the network
        images, labelled = self.list_images(), self.get_labeled_images()
        return {"total": len(images), "completed": len(labelled), "label_tags": dict(tags)}

    # changing

    refresh = _change(LocalDatastore.refresh)
    set_name = _change(LocalDatastore.set_name)
    set_description = _change(LocalDatastore.set_description)
    update_image_info = _change(LocalDatastore.update_image_info)
    update_label_info = _change(LocalDatastore.update_label_info)

    @_change
    def update_image_infos(self, infos: Mapping[str, Mapping[str, Any]]) -> None:
        """As ``update_image_info`` of several images, in one step; those that are gone are left out."""
        for image_id, info in infos.items():
            if study := self._datastore.objects.get(image_id):
                study.image.info.update(info)
        self._update_datastore_file()

    def remove_image(self, image_id: str) -> None:
        """Takes a study away with all its labels. Of a link, the link goes and not what it leads to."""
        with self._changing():
            study = self._datastore.objects.get(image_id)
            if study is None:
                raise ImageNotFoundException(f"there is no image {image_id!r}")
            for tag in list(study.labels):
                self._delete_label(image_id, tag)
            path = Path(self._datastore.image_path()) / self._filename(image_id, study.image.ext)
            delete(path)
            self._reconcile_datastore()  # the base class waits for the folder's watcher

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Takes a label away with all that it took the place of: none of them comes back."""
        with self._changing():
            if self._datastore.label(label_id, label_tag) is None:
                raise LabelNotFoundException(f"there is no label {label_tag!r} of an image {label_id!r}")
            self._delete_label(label_id, label_tag)
            self._reconcile_datastore()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Takes in a copy of an image.

        Args:
            image_id: "" for the one that the file would have if it lay in the folder.
            image_filename: the file, whose name counts where there is no id.
            image_info: to be noted with it. Its key "overwrite" says whether other pixels may be replaced.

        Returns:
            The image's id.

        Raises:
            StudyExists: when another image has the id. The same one (bytes, or voxels on one grid) is no other: its
                labels, and what is known of it, stay.
        """
        info = dict(image_info or {})
        overwrite = _as_flag(info.pop(OVERWRITE, False))
        folder = Path(self._datastore.image_path())
        with self._turn:
            image_id, suffix = self._place(image_id, os.path.basename(image_filename))
            known = self._datastore.objects.get(image_id)
            target = there = folder / self._filename(image_id, suffix)
            if known is not None:
                there = folder / self._filename(image_id, known.image.ext)
        before = _seen(there)
        same = before is not None and same_image(there, Path(image_filename))  # takes a while: others need not wait
        if before is not None and not same:
            _check_replaceable(image_id, there, overwrite)
        if target != there and os.path.lexists(target):
            raise StudyExists(f"the file {target.name} is another study: send this one with another id")
        with _beside(image_filename, target) as put, self._changing():
            if _seen(there) != before:
                raise StudyExists(f"the study {image_id!r} was changed by somebody else meanwhile: send it again")
            study = self._datastore.objects.get(image_id)
            if study is None:
                study = self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(ext=suffix))
            if not same:
                put()
                study.image.ext = suffix
                if target != there:
                    delete(there)
            elif target == there and not same_bytes(there, Path(image_filename)):
                put()  # the same pixels, but another header
            kept = study.image.info if same else {}
            study.image.info = dated({**kept, **info}, self._filename(image_id, study.image.ext))
            self._update_datastore_file()
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Takes in a copy of a label, in the place of the one that the study has for this tag.

        Args:
            image_id: of the study.
            label_filename: the label's file.
            label_tag: "final" for what a person drew, "original" for what the model proposed, or another name.
            label_info: to be noted with it. What is known of the very same file stays.

        Returns:
            The label's id, which is the study's.

        Raises:
            ImageNotFoundException: when there is no such study.
        """
        if image_id not in self._datastore.objects:
            raise ImageNotFoundException(f"there is no image {image_id!r}")
        suffix = self._to_id(os.path.basename(label_filename))[1]
        folder = Path(self._datastore.label_path(label_tag))
        target = folder / self._filename(image_id, suffix)
        with _beside(label_filename, target) as put, self._changing():
            study = self._datastore.objects.get(image_id)
            if study is None:
                raise ImageNotFoundException(f"there is no image {image_id!r}")
            known = study.labels.get(label_tag)
            same = target.is_file() and same_bytes(target, Path(label_filename))
            info = {**(known.info if same and known else {}), **(label_info or {})}
            earlier = [path for path in self._label_files(image_id, label_tag) if not (same and path == target)]
            for path in earlier:
                self._keep(path, image_id, label_tag)
            if not same:
                put()
            for path in earlier:
                if path != target:
                    path.unlink(missing_ok=True)
            study.labels[label_tag] = DataModel(info=dated(info, target.name), ext=suffix)
            self._update_datastore_file()
        return image_id

    # files

    def _place(self, image_id: str, file: str) -> tuple[str, str]:
        """The id and suffix of an uploaded file: where there is no id, those that it would have in the folder."""
        found, suffix = self._to_id(file)
        if image_id:
            return image_id, suffix
        for known, study in self._datastore.objects.items():
            if self._filename(known, study.image.ext) == file:
                return known, study.image.ext
        return (found, suffix) if found not in self._datastore.objects else (file, "")

    def _to_id(self, file: str) -> tuple[str, str]:
        return split_suffix(file, [pattern.lower().lstrip("*") for pattern in self._extensions])

    # the list

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Takes in the list of studies as it is on the disk.

        One that cannot be understood is kept aside; the one in memory counts then, which at the start is empty and is
        filled from what lies in the folder. Of one that can be understood in parts, those parts count.
        """
        path = Path(self._datastore_config_path)
        with self._turn, locked(self._lock_file):
            try:
                changed = path.stat().st_mtime
                if changed == self._config_ts:
                    return
                text = path.read_bytes()
            except FileNotFoundError:
                return
            except OSError as error:
                raise StudyError(
                    f"{path}: the list of studies cannot be read ({error.strerror}); make it readable, or move it away "
                    "to start without it"
                ) from error
            self._config_ts = changed
            self._datastore, damaged = parse_list(text, self._datastore)
            if damaged and not self._read_only:
                kept = keep_aside(path)
                logger.warning(
                    "%s: the list of studies is damaged (%s); a copy is kept as %s, and the list is made anew from the "
                    "files: to have back what was noted in it, repair the copy and put it in its place",
                    *(path, "; ".join(damaged[:5]), kept.name),
                )
                self._update_datastore_file()

    def _update_datastore_file(self, lock: bool = True) -> None:
        path = Path(self._datastore_config_path)
        write_json(path, LocalDatastore.json(self), indent=2, default=str)
        self._config_ts = path.stat().st_mtime

    def _on_moved(self, event: FileSystemEvent) -> None:
        """A file was renamed into place, by this process or another one."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
        else:
            self.refresh()


def dated(info: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """What is known of something, with its name and the time now."""
    return {**(info or {}), "ts": int(time.time()), "name": name}


def _as_flag(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise StudyError(f"{OVERWRITE} {value!r} is neither true nor false")
    return str(value).lower() == "true"


def _check_replaceable(image_id: str, there: Path, overwrite: bool) -> None:
    if not overwrite:
        raise StudyExists(
            f"there is a study {image_id!r} already, of other pixels: give this one another id (image=ID), or replace "
            f"that one by sending {OVERWRITE}=true"
        )
    if there.is_dir():
        raise StudyExists(
            f"the study {image_id!r} is a folder of DICOM files, which a file cannot replace: delete it first, or give "
            "this one another id"
        )


def _seen(path: Path) -> tuple[int, int, int] | None:
    """What tells that nobody has changed a file; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


@contextmanager
def _beside(source: str, target: Path) -> Iterator[Callable[[], object]]:
    """Copies ``source`` to the folder of ``target``; the function that this yields renames the copy to ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, copied = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        shutil.copy(source, copied)
        yield lambda: Path(copied).replace(target)
    finally:
        Path(copied).unlink(missing_ok=True)
