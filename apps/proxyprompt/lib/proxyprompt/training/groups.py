"""Which groups (patients, cases) train and which are held out: decided once, kept for ever.

A held-out group that later trained a version would make every comparison with it worthless. So the decision is written
down when a group is first seen, beside the versions, under a salted hash: neither ids nor names of patients get into
files that are shared.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from pathlib import Path

from proxyprompt.io.files import write_json

from .errors import TrainingError

FILE = "groups.json"
HELD_OUT_EVERY, HELD_OUT_FIRST = 4, 2
"""Of the groups in the order they come, the third and then every fourth is held out."""


class GroupSplit:
    """The decisions of one folder. ``training`` and ``validation`` hold salted hashes, in the order they were made."""

    def __init__(self, folder: str | Path) -> None:
        """TrainingError when the folder's file cannot be understood."""
        self._path = Path(folder) / FILE
        self.training: list[str] = []
        self.validation: list[str] = []
        self._salt = secrets.token_hex(16)
        if self._path.exists():
            try:
                given = json.loads(self._path.read_text(encoding="utf-8"))
                self._salt, self.training, self.validation = (given[k] for k in ("salt", "training", "validation"))
                if not isinstance(self._salt, str) or not _are_names(self.training) or not _are_names(self.validation):
                    raise ValueError("not a salt and two lists of hashes")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise TrainingError(
                    f"{self._path} cannot be read ({error}): it says which patients are held out. Restore it from a "
                    "copy; without it, move the versions beside it away too, since nobody knows any more what trained "
                    "them"
                ) from error

    def hash_of(self, group: str) -> str:
        """The salted hash of a group, 16 hex digits."""
        return hashlib.sha256(f"{self._salt}:{group}".encode()).hexdigest()[:16]

    def held_out(self, groups: Iterable[str], *, hold_out: bool = True) -> set[str]:
        """Those of ``groups`` that are held out; decides about new ones, in the order of their hashes, and writes.

        hold_out: False lets every new group train; TrainingError then when one of them is held out already.
        """
        hashes = {self.hash_of(group): group for group in groups}
        seen = {*self.training, *self.validation}
        for new in sorted(hashes.keys() - seen):
            position = len(self.training) + len(self.validation)
            held = hold_out and position % HELD_OUT_EVERY == HELD_OUT_FIRST
            (self.validation if held else self.training).append(new)
        held = {hashes[h] for h in self.validation if h in hashes}
        if held and not hold_out:
            raise TrainingError(
                f"{len(held)} of these groups are held out for ever in {self._path.parent}; train with validation, or "
                "give another folder for the versions"
            )
        self._save()
        return held

    def _save(self) -> None:
        decisions = {"salt": self._salt, "training": self.training, "validation": self.validation}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._path, decisions, indent=1)
        except OSError as error:
            raise TrainingError(f"{self._path} could not be written ({error}); nothing was trained") from error


def _are_names(given: object) -> bool:
    return isinstance(given, list) and all(isinstance(name, str) for name in given)
