"""Files that are there whole or not at all: written beside, then renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import StudyError

TEMPORARY = ".tmp"
"""How the names end of files that are being written; one that is old was left by a process that was killed."""

UNWRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What systems say of a place where this program may not write."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""What they say of a disk that takes no more."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside another to write a file to. It becomes that one when the block ends, and goes when it raises.

    Readers find the old file or the new one. Nobody else writes to the path that this gives, in whatever thread or
    process; of several who replace the same file, the last one wins. Its name is hidden and has not the suffix of
    ``path``, so that no folder of studies takes it for one; libraries that go by the suffix must be told the format.

    Args:
        path: of the file; its folder exists.

    Yields:
        The path to write to.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        yield beside
        beside.replace(path)
    finally:
        with suppress(OSError):  # what went wrong before says more
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all.

    Args:
        path: of the file; its folder exists.
        text: all of it.
    """
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any, **options: Any) -> None:
    """Write JSON, whole or not at all.

    Args:
        path: of the file; its folder exists.
        content: what JSON can hold.
        **options: of ``json.dumps``.
    """
    write_text(path, json.dumps(content, **options) + "\n")


@contextmanager
def locked(path: str | Path, *, is_singleton: bool = False) -> Iterator[None]:
    """One process at a time. A folder that cannot be written to needs no lock: nobody changes anything there.

    Args:
        path: of the lock's file.
        is_singleton: let this process have it several times at once.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(path, is_singleton=is_singleton))
        except OSError as error:
            if error.errno not in UNWRITABLE:
                raise
        yield


def file_hash(path: Path) -> str:
    """Hash a file, or the files that lie directly in a folder, in the order of their names.

    Args:
        path: of either.

    Returns:
        sha256 in hex; of a folder, that of its files' hashes.

    Raises:
        StudyError: when a file cannot be read.
    """
    if path.is_dir():
        hashes = [file_hash(each) for each in sorted(path.iterdir()) if each.is_file()]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StudyError(f"cannot read {path.name}: {error.strerror}; check that it exists and is readable") from error


def check_writable(folder: Path) -> None:
    """Make a folder, and refuse one that nothing can be written to.

    Args:
        folder: where a server keeps what must not be lost.

    Raises:
        StudyError: when it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(_UNWRITABLE.format(folder=folder, why=error.strerror)) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StudyError(_UNWRITABLE.format(folder=folder, why="read only"))


_UNWRITABLE = (
    "{folder} cannot be written to ({why}): labels, versions and the journal are kept there; make it writable, or "
    "serve a folder with links to the studies"
)


def keep_aside(path: Path) -> Path:
    """Copy a file that cannot be understood, before it is written anew.

    Args:
        path: the file, which stays.

    Returns:
        The copy beside it, whose name says when it was made.
    """
    kept = path.with_name(f"{path.name}.damaged-{stamp()}")
    shutil.copy2(path, kept)
    return kept


def stamp() -> str:
    """Now, in UTC, as a part of a file's name; later ones sort behind."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
