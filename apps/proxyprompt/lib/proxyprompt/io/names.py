"""Which names a study may have: one rule for what a folder lists and for what a request may ask for.

A name travels in addresses, JSON and log lines, and becomes a file name on several systems; so it holds no separators,
nothing that cannot be shown, and is not longer than a file name with a suffix may be. Everything else is a name.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import PurePath

MAX_BYTES = 200
"""Of a name in UTF-8; file systems take 255 for a file, and there is a suffix and the name of a temporary copy."""
# Control characters, halves of characters (a file name that is not UTF-8), separators of lines and of paragraphs.
_CANNOT_BE_SHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})


def why_unusable(name: str) -> str | None:
    """Why ``name`` cannot name a study, a label's tag or a session.

    Args:
        name: an id as a request gives it, or the name of a file without its suffix.

    Returns:
        What is wrong, to follow on the name in a sentence; None for a name that can be used.
    """
    if not name:
        return "is empty"
    if "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        return "is a path, or has a character of paths in it"
    if name.startswith("."):
        return "begins with a dot, as hidden files do"
    if name.startswith("~"):
        return "begins with ~, as temporary copies of editors do"
    if any(unicodedata.category(character) in _CANNOT_BE_SHOWN for character in name):
        return "has characters that cannot be shown, or that are not UTF-8"
    if len(name.encode()) > MAX_BYTES:
        return f"is longer than {MAX_BYTES} bytes"
    return None


def split_suffix(name: str, suffixes: Iterable[str]) -> tuple[str, str]:
    """A file's name without its suffix, and the suffix as it is written there.

    Args:
        name: of a file, without folders.
        suffixes: those that are known, lower case with their dot. The longest that fits counts, in whatever case.

    Returns:
        (the rest, the suffix); where none is known, what follows on the last dot.
    """
    fitting = [suffix for suffix in suffixes if suffix and name.lower().endswith(suffix)]
    length = len(max(fitting, key=len) if fitting else PurePath(name).suffix)
    return (name[:-length], name[-length:]) if length else (name, "")
