"""The older viewer: MONAI Label's installed OHIF, with patched copies of a few of its files in a folder of ours."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from .patches import MADE_FOR, PATCHES, SHA256, Patch


class ViewerError(Exception):
    """The installed OHIF is not the one that the patches were made for."""


def prepare_viewer(
    stock: Path, folder: Path, *, patches: Sequence[Patch] = PATCHES, sha256: Mapping[str, str] = SHA256
) -> Path:
    """A folder below ``folder`` with the patched copies of files of ``stock``, which stays as it is.

    It is named by what it was made of, so it is made once; it appears when it is whole. Raises ViewerError when a file
    is missing or another one than was patched when ``sha256`` was written.
    """
    texts = {name: _read(stock / name, wanted) for name, wanted in sha256.items()}
    for patch in patches:
        found = texts[patch.file].count(patch.old)
        if found != 1:
            raise ViewerError(f"{patch.file}: what to patch ({patch.why}) occurs {found} times, expected once")
        texts[patch.file] = texts[patch.file].replace(patch.old, patch.new)
    digest = hashlib.sha256("".join(f"{name}\0{text}\0" for name, text in sorted(texts.items())).encode()).hexdigest()
    made = folder / digest[:16]
    if made.is_dir():
        return made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".viewer-") as temporary:
        beside = Path(temporary) / "viewer"
        beside.mkdir()
        for name, text in texts.items():
            (beside / name).write_text(text, encoding="utf-8")
        try:
            beside.rename(made)
        except OSError:
            if not made.is_dir():  # another process was faster
                raise
    return made


def _read(path: Path, wanted: str) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ViewerError(f"{path}: cannot be read ({error.strerror}); install {MADE_FOR} with pip") from error
    if hashlib.sha256(content).hexdigest() != wanted:
        raise ViewerError(f"{path}: is another version than the patches were made for; install {MADE_FOR}")
    return content.decode()
