"""The registry of structures: which number a structure has in every result, for ever.

A viewer keeps the label map that it saw when it connected, so a number is never given twice and never changes. The
registry is one small JSON file that only grows; several processes (the server, its training children) may add to it
at once.
"""

from __future__ import annotations

import json
import os
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import StudyError
from .files import replacing

LARGEST_ID = 255  # a label map holds one byte a voxel
LOCK_SECONDS = 30
FORMAT = 1


@dataclass(frozen=True)
class Structure:
    """One entry.

    Attributes:
        id: 1 to 255.
        name: as first given, what users see.
        aliases: other names for the same thing.
    """

    id: int
    name: str
    aliases: tuple[str, ...] = ()

    def name_keys(self) -> tuple[str, ...]:
        """What its name and its aliases are compared by."""
        return tuple(name_key(n) for n in (self.name, *self.aliases))


def name_key(name: str) -> str:
    """What two names are compared by: case, white space and underscores make no difference.

    Args:
        name: of a structure.

    Returns:
        Its key.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if not c.isspace() and c != "_")


class StructureRegistry:
    """The ids of structures, kept in a file.

    Every method raises StudyError for a file that is not a registry; such a file is never overwritten.

    Args:
        path: the JSON file; it need not exist yet, its folder is made.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._structures: dict[int, Structure] = {}
        self._ids: dict[str, int] = {}
        self._stamp: tuple | None = None
        self._reading = threading.Lock()
        self._refresh()

    def structures(self) -> list[Structure]:
        """All entries in the order of their ids."""
        self._refresh()
        return [self._structures[i] for i in sorted(self._structures)]

    def names(self) -> list[str]:
        """The names in the order of their ids."""
        return [s.name for s in self.structures()]

    def id_of(self, name: str) -> int:
        """The id of a structure.

        Args:
            name: its name or an alias.

        Returns:
            1 to 255.

        Raises:
            StudyError: when it is not registered; lists the names that there are.
        """
        found = self._find(name)
        if found is None:
            known = ", ".join(self.names()) or "none yet"
            raise StudyError(f"unknown structure {name!r}; expected one of: {known}")
        return found

    def name_of(self, id: int) -> str:
        """The name of a structure.

        Args:
            id: 1 to 255.

        Returns:
            The name that was registered under it.

        Raises:
            StudyError: when none was.
        """
        if id not in self._structures:
            self._refresh()
        if id not in self._structures:
            known = ", ".join(f"{s.id} {s.name}" for s in self.structures()) or "none yet"
            raise StudyError(f"no structure has id {id}; registered: {known}")
        return self._structures[id].name

    def ensure(self, name: str, aliases: Iterable[str] = ()) -> int:
        """The id of a structure, which is registered under the next free one if it is new.

        Args:
            name: its name or an alias.
            aliases: are added to it.

        Returns:
            1 to 255.

        Raises:
            StudyError: for an empty name or "background", for an alias that another structure has, and for a 256th one.
        """
        name, aliases = name.strip(), [a.strip() for a in aliases]
        for given in (name, *aliases):
            if not name_key(given) or name_key(given) == "background":
                raise StudyError(f"{given!r} cannot name a structure; give it a name of its own")
        if not aliases and (known := self._find(name)) is not None:
            return known
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(str(self.path) + ".lock", timeout=LOCK_SECONDS):
                self._refresh(force=True)
                return self._add(name, aliases)
        except Timeout:
            raise StudyError(
                f"{self.path}: another process has held the registry for {LOCK_SECONDS} s; try again, and if none is "
                f"running delete {self.path}.lock"
            ) from None

    def _find(self, name: str) -> int | None:
        key = name_key(name)
        if key not in self._ids:
            self._refresh()
        return self._ids.get(key)

    def _add(self, name: str, aliases: list[str]) -> int:
        """Under the lock, with the file just read."""
        id = self._ids.get(name_key(name))
        if id is None:
            id = max(self._structures, default=0) + 1
            if id > LARGEST_ID:
                raise StudyError(
                    f"{self.path}: cannot register {name!r}: all {LARGEST_ID} structures are taken; "
                    "name it as one of them, or start a new registry for another project"
                )
            entry = Structure(id, name)
        else:
            entry = self._structures[id]
        for alias in aliases:
            owner = self._ids.get(name_key(alias), id)
            if owner != id:
                raise StudyError(f"alias {alias!r} of {name!r} already means {self._structures[owner].name!r}")
            if name_key(alias) not in entry.name_keys():
                entry = replace(entry, aliases=(*entry.aliases, alias))
        if self._structures.get(id) != entry:
            self._write({**self._structures, id: entry})
        return id

    def _write(self, structures: dict[int, Structure]) -> None:
        content = {
            "format": FORMAT,
            "structures": [
                {"id": s.id, "name": s.name, "aliases": list(s.aliases)} for _, s in sorted(structures.items())
            ],
        }
        with replacing(self.path) as beside, beside.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        self._refresh(force=True)

    def _refresh(self, *, force: bool = False) -> None:
        """Takes in what other processes have written. Entries once seen stay, even if the file is lost."""
        with self._reading:
            self._take_in(force)

    def _take_in(self, force: bool) -> None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if stamp == self._stamp and not force:
            return
        merged = {**self._structures}
        for entry in self._read():
            known = merged.get(entry.id)
            if known is not None and known.name != entry.name:
                raise StudyError(
                    f"{self.path}: id {entry.id} was {known.name!r} and is now {entry.name!r}; the registry only "
                    "grows: restore the file"
                )
            merged[entry.id] = entry
        self._structures, self._ids = merged, _index(self.path, merged.values())
        self._stamp = stamp

    def _read(self) -> list[Structure]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, expected {FORMAT}")
            entries = [Structure(e["id"], e["name"], tuple(e.get("aliases", ()))) for e in content["structures"]]
            for e in entries:
                if type(e.id) is not int or not 1 <= e.id <= LARGEST_ID or not all(map(name_key, (e.name, *e.aliases))):
                    raise ValueError(f"entry {e}")
            if len({e.id for e in entries}) < len(entries):
                raise ValueError("an id occurs twice")
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise StudyError(f"{self.path}: is not a registry of structures ({e}); restore it from a backup") from e
        return entries


def _index(path: Path, structures: Iterable[Structure]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for s in structures:
        for key in s.name_keys():
            if ids.setdefault(key, s.id) != s.id:
                raise StudyError(f"{path}: {s.name!r} (id {s.id}) shares a name with id {ids[key]}; restore the file")
    return ids
