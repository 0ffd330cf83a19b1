"""Which foundations there are: one entry each, by name.

An entry is made by a module of :mod:`proxyprompt.foundation.families`, which importing :mod:`proxyprompt.foundation`
finds by itself. What can be said of a foundation before it is built stands in its entry; what it can do once it is
built stands in attributes of its class (:class:`proxyprompt.foundation.base.Foundation`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .checkpoints import CHECKPOINTS, Checkpoint

if TYPE_CHECKING:
    from .base import Foundation

Build = Callable[[int, Mapping[str, object]], "Foundation"]
"""(side of the input in pixels, options of the architecture) -> the foundation with random weights."""


@dataclass(frozen=True)
class FoundationEntry:
    """A foundation that can be asked for.

    Attributes:
        name: what it is asked for by.
        build: makes it with random weights; imports its package only then.
        checkpoint: its published file; None where the weights are embedded with the app, generator included, as
            ``<name>-<number>.safetensors``.
        image_size: side S of its input in pixels, by default.
        any_size: whether other multiples of 64 will do.
        generator: options of ``GeneratorConfig`` that differ from the paper's.
        finetuning: options of ``FinetuneConfig`` that differ from those of a published foundation.
    """

    name: str
    build: Build
    checkpoint: Checkpoint | None = None
    image_size: int = 1024
    any_size: bool = True
    generator: Mapping[str, object] = field(default_factory=dict)
    finetuning: Mapping[str, object] = field(default_factory=dict)

    @property
    def embedded(self) -> bool:
        """Whether its weights come with the app."""
        return self.checkpoint is None

    def size(self, image_size: int | None) -> int:
        """The side that is asked for.

        Args:
            image_size: in pixels; None for its own.

        Returns:
            The side in pixels.

        Raises:
            ValueError: when it cannot have that one.
        """
        if image_size in (None, self.image_size):
            return self.image_size
        if not self.any_size:
            raise ValueError(
                f"{self.name} runs at {self.image_size} pixels only (its position embedding has that size), not at "
                f"{image_size}; leave image_size out, or choose a sam2.1 foundation or atto"
            )
        return image_size


_ENTRIES: dict[str, FoundationEntry] = {}


def register_foundation(
    name: str, *, checkpoint: Checkpoint | None = None, **fields: object
) -> Callable[[Build], Build]:
    """Decorator of what builds a foundation: puts it into the registry, and its file into the table of weights.

    Args:
        name: what it is asked for by.
        checkpoint: its published file, if there is one.
        **fields: the other attributes of :class:`FoundationEntry`.

    Returns:
        The decorator, which changes nothing.

    Raises:
        ValueError: for a name that is taken.

    Example:
        >>> @register_foundation("my_sam", checkpoint=Checkpoint("my_sam", "my_sam.pt", "https://...", "MIT"))
        ... def build_my_sam(image_size, options):
        ...     from .my_model import MySam
        ...     return MySam(image_size)
    """

    def register(build: Build) -> Build:
        if name in _ENTRIES:
            raise ValueError(f"there is a foundation {name!r} already; register this one under another name")
        _ENTRIES[name] = FoundationEntry(name, build, checkpoint, **fields)  # type: ignore[arg-type]  # it checks them
        if checkpoint is not None:
            CHECKPOINTS[name] = checkpoint
        return build

    return register


def foundation_names() -> tuple[str, ...]:
    """All names, embedded foundations first."""
    return tuple(sorted(_ENTRIES, key=lambda name: not _ENTRIES[name].embedded))


def foundation_entry(name: str) -> FoundationEntry:
    """The entry of a foundation.

    Args:
        name: of the registry; an embedded one may carry the number of its file, as in ``atto-6``.

    Returns:
        The entry.

    Raises:
        ValueError: for another name; lists those that there are.
    """
    numbered = re.fullmatch(r"(.+)-\d+", name)
    entry = _ENTRIES.get(name) or (_ENTRIES.get(numbered[1]) if numbered else None)
    if entry is None or (entry.name != name and not entry.embedded):
        given = [f"{own}-1, ..." for own, found in _ENTRIES.items() if found.embedded]
        raise ValueError(
            f"unknown foundation {name!r}; valid: {', '.join(foundation_names())} "
            f"(or {', '.join(given)} for a given file)"
        )
    return entry
