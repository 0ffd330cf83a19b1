"""The frozen promptable segmenters, by name.

:func:`build_foundation` is the one way to get one; :mod:`.registry` says which there are, :mod:`.base` what each can
do. Every module of :mod:`.families` is imported here, so that its entries are in the registry.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from . import families
from .checkpoints import CheckpointError
from .loading import (
    FOUNDATION_PREFIX,
    GENERATOR_PREFIX,
    build_foundation,
    embedded_file,
    load_embedded,
    part_of,
    weights_identity,
    write_random_checkpoint,
)
from .registry import FoundationEntry, foundation_entry, foundation_names, register_foundation

__all__ = [
    "FOUNDATION_PREFIX",
    "GENERATOR_PREFIX",
    "CheckpointError",
    "FoundationEntry",
    "build_foundation",
    "embedded_file",
    "foundation_entry",
    "foundation_names",
    "load_embedded",
    "part_of",
    "register_foundation",
    "weights_identity",
    "write_random_checkpoint",
]

for _module in iter_modules(families.__path__):
    import_module(f"{families.__name__}.{_module.name}")
