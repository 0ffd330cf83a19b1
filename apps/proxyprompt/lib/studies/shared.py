"""A folder of studies that several annotators, threads and processes use at once.

MONAI Label's local datastore was made for one request at a time: it empties its list while it looks at the folder,
saves what one process remembers over what another has added meanwhile, copies files in place so that a reader may find
half of one, and writes its JSON file in place, so that a crash leaves none. Here every look at the list and every
change of it has its turn, a change starts from what is on the disk, and files appear whole or not at all.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException

from lib.files import write_json


def _in_turn(method: Callable) -> Callable:
    @wraps(method)
    def call(self, *args, **options):
        with self._turn:
            return method(self, *args, **options)

    return call


def _change(method: Callable) -> Callable:
    @wraps(method)
    def call(self, *args, **options):
        with self._changing():
            return method(self, *args, **options)

    return call


class SharedDatastore(LocalDatastore):
    """A :class:`LocalDatastore`, with the same arguments, for many at once.

    Every method here is about the folder on this machine, also in a class that has a remote datastore among its bases.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._turn = threading.RLock()
        super().__init__(*arguments, **options)
        if self._auto_reload:
            self._handler.on_moved = self._on_moved

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """The turn, also before other processes, with what they have written taken in."""
        with self._turn, FileLock(f"{self._lock_file}-change", is_singleton=True):
            self._init_from_datastore_file()
            yield

    # looking

    list_images = _in_turn(LocalDatastore.list_images)
    get_labeled_images = _in_turn(LocalDatastore.get_labeled_images)
    get_unlabeled_images = _in_turn(LocalDatastore.get_unlabeled_images)
    get_image_uri = _in_turn(LocalDatastore.get_image_uri)
    get_image_info = _in_turn(LocalDatastore.get_image_info)
    get_label_uri = _in_turn(LocalDatastore.get_label_uri)
    get_labels_by_image_id = _in_turn(LocalDatastore.get_labels_by_image_id)
    datalist = _in_turn(LocalDatastore.datalist)
    json = _in_turn(LocalDatastore.json)
    _init_from_datastore_file = _in_turn(LocalDatastore._init_from_datastore_file)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        with self._turn:
            return copy.deepcopy(LocalDatastore.get_label_info(self, label_id, label_tag))

    def status(self) -> dict[str, Any]:
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

    def remove_image(self, image_id: str) -> None:
        with self._changing():
            LocalDatastore.remove_image(self, image_id)
            self._reconcile_datastore()  # the base class waits for the folder's watcher

    def remove_label(self, label_id: str, label_tag: str) -> None:
        with self._changing():
            LocalDatastore.remove_label(self, label_id, label_tag)
            self._reconcile_datastore()

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        found, suffix = self._to_id(os.path.basename(image_filename))
        image_id = image_id or found
        name = self._filename(image_id, suffix)
        with _beside(image_filename, Path(self._datastore.image_path()) / name) as put, self._changing():
            put()
            data = DataModel(info=_dated(image_info, name), ext=suffix)
            self._datastore.objects[image_id] = ImageLabelModel(image=data)
            self._update_datastore_file()
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        if image_id not in self._datastore.objects:
            raise ImageNotFoundException(f"Image {image_id} not found")
        suffix = self._to_id(os.path.basename(label_filename))[1]
        name = self._filename(image_id, suffix)
        with _beside(label_filename, Path(self._datastore.label_path(label_tag)) / name) as put, self._changing():
            study = self._datastore.objects.get(image_id)
            if study is None:
                raise ImageNotFoundException(f"Image {image_id} not found")
            put()
            study.labels[label_tag] = DataModel(info=_dated(label_info, name), ext=suffix)
            self._update_datastore_file()
        return image_id

    def _update_datastore_file(self, lock: bool = True) -> None:
        path = Path(self._datastore_config_path)
        write_json(path, LocalDatastore.json(self), indent=2, default=str)
        self._config_ts = path.stat().st_mtime

    def _on_moved(self, event) -> None:
        """A file was renamed into place, by this process or another one."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
        else:
            self.refresh()


def _dated(info: dict[str, Any] | None, name: str) -> dict[str, Any]:
    return {**(info or {}), "ts": int(time.time()), "name": name}


@contextmanager
def _beside(source: str, target: Path) -> Iterator[Callable[[], None]]:
    """Copies ``source`` to the folder of ``target``; the function that this yields renames the copy to ``target``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, copied = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        shutil.copy(source, copied)
        yield lambda: os.replace(copied, target)
    finally:
        Path(copied).unlink(missing_ok=True)
