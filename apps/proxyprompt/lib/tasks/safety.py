"""Ids and tags that come over the network never become paths outside the studies folder.

MONAI Label joins image ids, label ids and tags to its folders unseen, and takes any existing path as an image id.
:func:`guard` puts a check in front of every method of a datastore that takes one of them.
"""

from __future__ import annotations

import inspect
import re
from functools import wraps

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException
from monailabel.utils.sessions import Sessions

from lib.tasks.errors import refuse

MAX_ID = 200
_CHECKED = ("image_id", "label_id", "label_tag")
# Letters, digits and the punctuation that file names and DICOM UIDs use. No separators, no control characters.
_ALLOWED = re.compile(r"[\w .,()+=@#~^&!\-\[\]]+")


def check_id(value: object, what: str = "image id") -> str:
    """Return ``value`` if it is a plain name; MONAILabelException (bad input) if it is a path or could become one."""
    if not isinstance(value, str):
        raise refuse(f"{what} {value!r} is not text: give the name that the datastore lists")
    if "/" in value or "\\" in value or value in (".", "..") or "\0" in value:
        raise refuse(f"{what} {value!r} is a path: give the name that the datastore lists (GET /datastore/?output=all)")
    if len(value) > MAX_ID or not _ALLOWED.fullmatch(value) or value.startswith((".", "~")):
        raise refuse(
            f"{what} {value!r} is not a plain name: at most {MAX_ID} letters, digits, spaces or common punctuation, "
            "not starting with a dot"
        )
    return value


def _checked(method):
    signature = inspect.signature(method)

    @wraps(method)
    def call(self, *args, **options):
        given = signature.bind(self, *args, **options).arguments
        for name in _CHECKED:
            # An empty id means "none given" to MONAI Label, e.g. an uploaded image that is named after its file.
            if given.get(name):
                check_id(given[name], name.replace("_", " "))
        return method(self, *args, **options)

    return call


def _guarded(cls: type[Datastore]) -> type[Datastore]:
    members = {}
    for name, _ in inspect.getmembers(Datastore, inspect.isfunction):
        method = getattr(cls, name)
        if set(_CHECKED) & set(inspect.signature(method).parameters):
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
    except (LookupError, OSError) as error:
        raise ImageNotFoundException(f"image {name!r} could not be fetched from the datastore: {error}") from error
    if not path:
        listed = sorted(datastore.list_images())
        known = ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")
        raise ImageNotFoundException(f"there is no image {name!r} among the {len(listed)} studies ({known})")
    return path


class SafeSessions(Sessions):
    """MONAI Label's sessions; a session id is a plain name too (removing one deletes the folder of that name)."""

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True):
        return super().get_session(check_id(session_id, "session id"), update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        super().remove_session(check_id(session_id, "session id"))
