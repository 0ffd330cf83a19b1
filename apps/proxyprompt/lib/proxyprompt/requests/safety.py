"""Ids and tags that come over the network never become paths outside the studies folder.

MONAI Label joins image ids, label ids and tags to its folders unseen, and takes any existing path as an image id.
:func:`guard` puts a check in front of every method of a datastore that takes one of them.
"""

from __future__ import annotations

import inspect
import os
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from functools import wraps
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.utils.sessions import SessionInfo, Sessions

from proxyprompt.datastores.noted import check_info
from proxyprompt.errors import refuse
from proxyprompt.io.limits import check_archive
from proxyprompt.io.names import why_unusable

_IDS = ("image_id", "label_id", "label_tag")
_FILES = ("image_filename", "label_filename")
_INFOS = ("image_info", "label_info", "info")
_SCRIBBLES = "*.bin"  # what OHIF sends to a DICOMweb datastore, which converts it


def check_id(value: object, what: str = "image id") -> str:
    """The rule for names (:mod:`proxyprompt.io.names`) for what a request gives as one.

    Args:
        value: what the request gives.
        what: it is, for the message.

    Returns:
        ``value``, if it is a plain name.

    Raises:
        MONAILabelException: bad input, when it is a path or could become one.
    """
    if not isinstance(value, str):
        raise refuse(f"{what} {value!r} is not text: give the name that the datastore lists")
    if reason := why_unusable(value):
        raise refuse(
            f"{what} {value!r} is not a plain name: it {reason}; give a name that the datastore lists "
            "(GET /datastore/?output=all)"
        )
    return value


def _check_file(path: str, datastore: Datastore) -> None:
    """Only what the datastore lists as studies and labels may be stored: no settings, no list of studies, no code."""
    listed = (*settings.MONAI_LABEL_DATASTORE_FILE_EXT, *getattr(datastore, "_extensions", ()))
    name, patterns = os.path.basename(path), dict.fromkeys(listed)
    if not any(fnmatch(name.lower(), pattern.lower()) for pattern in (*patterns, _SCRIBBLES)):
        valid = ", ".join(pattern.lstrip("*") for pattern in patterns)
        raise refuse(f"{name!r} is neither a study nor a label; valid files: {valid}")


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @wraps(method)
    def call(self: Datastore, *args: Any, **options: Any) -> Any:
        given = signature.bind(self, *args, **options).arguments
        # An empty one means "none given" to MONAI Label, e.g. an uploaded image that is named after its file.
        given = {name: value for name, value in given.items() if value not in (None, "")}
        for name in given.keys() & _IDS:
            check_id(given[name], name.replace("_", " "))
        for name in given.keys() & _FILES:
            _check_file(given[name], self)
        for name in given.keys() & _INFOS:
            check_info(given[name])
        return method(self, *args, **options)

    return call


def _guarded(cls: type[Datastore]) -> type[Datastore]:
    members = {}
    for name, _ in inspect.getmembers(Datastore, inspect.isfunction):
        method = getattr(cls, name)
        if {*_IDS, *_FILES, *_INFOS} & set(inspect.signature(method).parameters):
            members[name] = _checked(method)
    return type(f"Guarded{cls.__name__}", (cls,), members)


def guard(datastore: Datastore) -> Datastore:
    """Give a datastore's object the checks; it stays the object, and an instance of the class, that it was."""
    datastore.__class__ = _guarded(type(datastore))
    return datastore


def image_path(datastore: Datastore, image_id: object) -> str:
    """The file or folder of an image that the datastore lists.

    Raises MONAILabelException: bad input when the id is a path, not found when there is no such image.
    """
    name = check_id(image_id)
    try:
        path = datastore.get_image_uri(name)
        if not path or not os.path.exists(path):
            datastore.refresh()  # it may have come, or gone, just now
            path = datastore.get_image_uri(name)
    except (LookupError, OSError) as error:
        raise ImageNotFoundException(f"image {name!r} could not be fetched from the datastore: {error}") from error
    if not path:
        why = [f"{file} {reason}" for file, reason in getattr(datastore, "left_out", {}).items() if _about(file, name)]
        if why:
            raise ImageNotFoundException(f"there is no image {name!r}: {why[0]}")
        listed = sorted(datastore.list_images())
        known = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
        raise ImageNotFoundException(f"there is no image {name!r} among the {len(listed)} studies ({known})")
    return path


def _about(file: str, name: str) -> bool:
    """Whether a file that is not listed may be the one that a request means."""
    own = file.rpartition("/")[2]
    return own == name or own.startswith(f"{name}.")


class SafeSessions(Sessions):
    """MONAI Label's sessions for many at once.

    A session id is a plain name too (removing one deletes the folder of that name), and so is the name of its file.
    """

    def __init__(self, store_path: str = "", expiry: int = 3600) -> None:
        super().__init__(store_path, expiry)
        self._turn = threading.RLock()

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> SessionInfo | None:
        """As MONAI Label does; refuses what is no session id."""
        with self._turn:
            return super().get_session(check_id(session_id, "session id"), update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """As MONAI Label does; refuses what is no session id."""
        with self._turn:
            super().remove_session(check_id(session_id, "session id"))

    def add_session(self, data_file: str, *args: Any, **options: Any) -> tuple[str, SessionInfo]:
        """As MONAI Label does; refuses names that could leave the folder, and archives that cannot be unpacked."""
        check_id(os.path.basename(data_file), "file name")
        try:
            if os.path.isfile(data_file):
                check_archive(Path(data_file))
            with self._turn:
                return super().add_session(data_file, *args, **options)
        except (tarfile.TarError, zipfile.BadZipFile, shutil.ReadError) as error:
            raise refuse(f"{os.path.basename(data_file)!r} cannot be unpacked: {error}") from error

    def remove_expired(self) -> int:
        """As MONAI Label does, one caller at a time."""
        with self._turn:
            return super().remove_expired()
