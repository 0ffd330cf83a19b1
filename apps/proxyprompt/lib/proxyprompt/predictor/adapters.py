"""Adapter files: the versions that fine-tuning makes, with where they come from and what they were measured to do.

A version is one safetensors file, ``adapter-<UTC time>.safetensors``: the tensors, and in its header everything that is
known about it (:class:`AdapterHeader`). It is bound by hash to the foundation's weights it was trained on. Files are
written beside and renamed; a version is never changed afterwards, except that an unproven one may be published.

Versions get shared, so they name no study and no patient: groups are salted hashes
(:mod:`proxyprompt.training.groups`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from proxyprompt.io.errors import WeightsError
from proxyprompt.io.files import replacing

logger = logging.getLogger(__name__)

PUBLISHED, REFUSED, UNPROVEN = "published", "refused", "unproven"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SUFFIX = ".safetensors"


class AdapterError(WeightsError):
    """A version that is missing, damaged, made for other weights, or cannot be written. The message says what to do."""


@dataclass(frozen=True)
class AdapterHeader:
    """What is known about a version.

    Attributes:
        name: of the version; that of its file.
        foundation: what it was trained on, and its only one.
        foundation_sha256: hash of the weights of that.
        parent: the version it started from.
        config: ``{"foundation": {"kind": "lora" | "whole" | "frozen", ...}, "generator": GeneratorConfig, "image_size":
            pixels, "training": FinetuneConfig, "untrained": bool}``, the last of the generator that it began with.
        structures: names it was trained on.
        training_groups: salted hashes.
        validation: structure -> salted hash of the group -> Dice.
        status: "published", "refused" or "unproven".
        reason: why, in a sentence for the user.
        created: UTC, ISO 8601.
        app_version: of the app that made it.
        sha256: of the tensors, filled in by the store.
    """

    name: str
    foundation: str
    foundation_sha256: str
    parent: str
    config: Mapping[str, Any]
    structures: tuple[str, ...]
    training_groups: tuple[str, ...]
    validation: Mapping[str, Mapping[str, float]]
    status: str
    reason: str
    created: str
    app_version: str
    sha256: str = field(default="")

    @classmethod
    def from_json(cls, text: str) -> AdapterHeader:
        """The reverse of :meth:`to_json`.

        Args:
            text: JSON.

        Returns:
            The header.

        Raises:
            ValueError: when it is not what :meth:`to_json` wrote.
        """
        given = json.loads(text)
        names = {f.name for f in fields(cls)}
        if not isinstance(given, dict) or given.keys() != names:
            raise ValueError(f"expected a JSON object with {', '.join(sorted(names))}")
        sequences = {key: tuple(given[key]) for key in ("structures", "training_groups")}
        return cls(**{**given, **sequences})

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))


class AdapterStore:
    """A folder of versions for one foundation with one set of weights. Files of other foundations may lie there too.

    Any number of processes may read while one writes.

    Args:
        folder: where the files lie; made when the first one is written.
        foundation: name of the foundation.
        foundation_sha256: hash of its weights.
    """

    def __init__(self, folder: str | Path, *, foundation: str, foundation_sha256: str) -> None:
        self.folder = Path(folder)
        self.foundation, self.foundation_sha256 = foundation, foundation_sha256

    def all(self) -> list[AdapterHeader]:
        """Every version that fits this foundation, whatever its status, newest first; unreadable files are logged."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                header = _read_header(path)
            except AdapterError as error:
                logger.warning("%s", error)
                continue
            if header.foundation_sha256 == self.foundation_sha256:
                found.append(header)
        return sorted(found, key=lambda header: (header.created, header.name), reverse=True)

    def versions(self) -> list[str]:
        """The published versions, newest first."""
        return [header.name for header in self.all() if header.status == PUBLISHED]

    def header(self, name: str) -> AdapterHeader:
        """What is known about a version.

        Args:
            name: of the version.

        Returns:
            Its header.

        Raises:
            AdapterError: when there is no such version, when it is damaged, or when it was made for other weights.
        """
        path = self.path(name)
        if not path.is_file():
            there = ", ".join(h.name for h in self.all()) or "none"
            raise AdapterError(f"there is no version {name!r} in {self.folder}; there are: {there}")
        header = _read_header(path)
        if header.foundation_sha256 != self.foundation_sha256:
            raise AdapterError(
                f"version {name!r} was trained on {header.foundation} with weights {header.foundation_sha256[:12]}; "
                f"here is {self.foundation} with weights {self.foundation_sha256[:12]}: it means nothing on other "
                "weights. Choose the foundation it was trained on, or train again"
            )
        return header

    def load(self, name: str) -> tuple[AdapterHeader, dict[str, Tensor]]:
        """Read a version; its tensors are checked against the header's hash.

        Args:
            name: of the version.

        Returns:
            Header and tensors.

        Raises:
            AdapterError: as for :meth:`header`.
        """
        header = self.header(name)
        path = self.path(name)
        try:
            with safe_open(path, framework="pt") as file:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except (SafetensorError, OSError) as error:
            raise _damaged(path, str(error)) from error
        if tensors_sha256(state) != header.sha256:
            raise _damaged(path, "its tensors do not match the hash in its header")
        return header, state

    def save(self, header: AdapterHeader, state: Mapping[str, Tensor]) -> Path:
        """Write a new version: beside, then renamed, so that it is there whole or not at all.

        Args:
            header: of the version; its ``sha256`` is filled in.
            state: the tensors.

        Returns:
            The path of the file.

        Raises:
            AdapterError: for a name that is taken, weights of another foundation, tensors that are not finite, and for
                a disk that does not take the file.
        """
        path = self.path(header.name)
        if path.exists():
            raise AdapterError(f"{path} exists; a version is never overwritten: choose another name")
        if header.foundation_sha256 != self.foundation_sha256:
            raise AdapterError(f"{header.name} belongs to other weights than this store of {self.foundation}")
        if spoilt := [key for key, value in state.items() if not torch.isfinite(value).all()]:
            raise AdapterError(f"{header.name} holds values that are not finite, first in {spoilt[0]}; not saved")
        state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        created = _after((each.created for each in self.all()), header.created)
        self._write(path, replace(header, sha256=tensors_sha256(state), created=created), state)
        return path

    def publish(self, name: str) -> AdapterHeader:
        """Serve an unproven version from now on, because somebody decided so.

        Args:
            name: of the version.

        Returns:
            Its new header.

        Raises:
            AdapterError: for a refused one, and as for :meth:`header`.
        """
        header, state = self.load(name)
        if header.status == REFUSED:
            raise AdapterError(f"version {name!r} was refused ({header.reason}); train again instead of publishing it")
        if header.status == UNPROVEN:
            header = replace(header, status=PUBLISHED, reason=f"published on request; {header.reason}")
            self._write(self.path(name), header, state)
        return header

    def new_name(self) -> str:
        """``adapter-<UTC time>``, one that is not taken."""
        name = f"adapter-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        names = [name, *(f"{name}-{n}" for n in range(2, 100))]
        return next(n for n in names if not self.path(n).exists())

    def path(self, name: str) -> Path:
        """The file of a version.

        Args:
            name: of the version.

        Returns:
            Its path, also when it is not there.

        Raises:
            AdapterError: for a name that could leave the folder.
        """
        if not _NAME.fullmatch(name):
            raise AdapterError(f"{name!r} is no name of a version; expected letters, digits, dots, dashes and bars")
        return self.folder / f"{name}{_SUFFIX}"

    def _write(self, path: Path, header: AdapterHeader, state: Mapping[str, Tensor]) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as beside:
                save_file(dict(state), beside, metadata={"header": header.to_json()})
                beside.chmod(0o644)  # safetensors writes for the owner only
        except (OSError, SafetensorError) as error:
            size = sum(value.nbytes for value in state.values())
            raise AdapterError(
                f"{path} could not be written ({error}); nothing was changed. It takes {size / 1e6:.0f} MB: make room, "
                "or check the folder's permissions, and train again (it goes on from its checkpoint)"
            ) from error


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash tensors.

    Args:
        state: by name.

    Returns:
        sha256 over names, types, shapes and bytes, in the order of the names.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}:".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _after(others: Iterable[str], created: str) -> str:
    """When a version was made; behind all others also after a clock was set back: the newest one serves."""
    latest = max(others, default="")
    if created > latest:
        return created
    return (datetime.fromisoformat(latest) + timedelta(seconds=1)).isoformat()


def _read_header(path: Path) -> AdapterHeader:
    status = path.stat()
    return _parse_header(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _parse_header(path: Path, mtime_ns: int, size: int) -> AdapterHeader:
    """Asked for at every request; time and size make a changed file another call. The file's name is the version's."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["header"]
        return replace(AdapterHeader.from_json(text), name=path.stem)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> AdapterError:
    return AdapterError(f"{path} is no readable version ({why}); restore it from a copy, or delete it")
