"""From a name to a frozen foundation with its weights; the package behind it is imported only then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxyprompt.io.files import replacing

from .checkpoints import (
    CheckpointError,
    checkpoint_file,
    digest,
    load_checkpoint,
    load_safetensors,
    load_strictly,
    verify_checkpoint,
)
from .registry import foundation_entry

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Foundation

EMBEDDED_WEIGHTS = Path(__file__).resolve().parents[3] / "model"
"""Where the app keeps the weights that come with it."""
FOUNDATION_PREFIX, GENERATOR_PREFIX = "foundation.", "generator."
"""Embedded files hold the foundation and the generator side by side, told apart by the first part of the key."""


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a file.

    Args:
        state: all of them by name.
        prefix: that names of the part start with.

    Returns:
        These, without the prefix.
    """
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def embedded_file(name: str, weights_dir: str | Path) -> Path:
    """The file of an embedded foundation.

    Args:
        name: ``atto`` for the highest number there is, or a given one, such as ``atto-6``.
        weights_dir: the folder that holds it, or any one such file, whatever its name.

    Returns:
        Its path; of a given one also when it is not there.

    Raises:
        CheckpointError: when there is none.
    """
    folder, entry = Path(weights_dir), foundation_entry(name)
    if folder.is_file():
        return folder
    if name != entry.name:
        return folder / f"{name}.safetensors"
    found = {}
    for path in folder.glob(f"{name}-*.safetensors"):
        if match := re.fullmatch(rf"{re.escape(name)}-(\d+)", path.stem):
            found[int(match[1])] = path
    if not found:
        raise CheckpointError(
            f"no {name}-N.safetensors in {folder}: these files belong to the repository; restore them"
        )
    return found[max(found)]


def weights_identity(name: str, weights_dir: str | Path, *, verify: bool = True) -> tuple[str, str]:
    """What the weights behind a name are, without loading them.

    Args:
        name: of the registry.
        weights_dir: folder of the weights.
        verify: refuse files that are not the published ones.

    Returns:
        (name, sha256); an embedded foundation by the number of its file.

    Raises:
        ValueError: for an unknown name.
        CheckpointError: for missing or unfit weights.
    """
    entry = foundation_entry(name)
    if entry.checkpoint is not None:
        return name, verify_checkpoint(entry.checkpoint, checkpoint_file(name, weights_dir), verify=verify)
    path = embedded_file(name, weights_dir)
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: the file belongs to the repository; restore it with git")
    return path.stem, digest(path, "sha256")[0]


def load_embedded(
    name: str, *, image_size: int | None = None, weights_dir: str | Path
) -> tuple[Foundation, dict[str, Tensor], dict[str, Any]]:
    """An embedded file, read once.

    Args:
        name: as for :func:`build_foundation`.
        image_size: as for :func:`build_foundation`.
        weights_dir: as for :func:`build_foundation`.

    Returns:
        Its foundation in evaluation mode, the state of its generator, and its configuration.

    Raises:
        ValueError: for an unknown name or a size that the foundation cannot take.
        CheckpointError: for missing or unfit weights.
    """
    path = embedded_file(name, weights_dir)
    state, config, sha256 = load_safetensors(path)
    if absent := {"foundation", "image_size"} - config.keys():
        raise CheckpointError(f"{path}: `config` has no {' and no '.join(sorted(absent))}; restore the file with git")
    if "trunk" not in config["foundation"]:
        raise CheckpointError(f"{path} was made by an older version of the app; use atto-6 or later")
    foundation = foundation_entry(name).build(image_size or config["image_size"], config["foundation"])
    load_strictly(foundation, part_of(state, FOUNDATION_PREFIX), source=path.name)
    foundation.name, foundation.weights_sha256 = path.stem, sha256
    return foundation.eval(), part_of(state, GENERATOR_PREFIX), config


def build_foundation(
    name: str, *, image_size: int | None = None, weights_dir: str | Path, verify: bool = True
) -> Foundation:
    """A frozen foundation with its weights.

    Args:
        name: of the registry; ``atto`` is the newest embedded one, ``atto-N`` a given one.
        image_size: side S of the square input in pixels; None for its own (of an embedded one: what its file says).
        weights_dir: folder of the weights.
        verify: refuse files that are not the published ones.

    Returns:
        The foundation, in evaluation mode, on the CPU.

    Raises:
        ValueError: for an unknown name or a size that the foundation cannot take.
        CheckpointError: for missing or unfit weights.
    """
    entry = foundation_entry(name)
    if entry.checkpoint is None:
        return load_embedded(name, image_size=image_size, weights_dir=weights_dir)[0]
    size = entry.size(image_size)
    state, sha256 = load_checkpoint(name, weights_dir, verify=verify)
    foundation = entry.build(size, {})
    load_strictly(foundation.model, state, source=entry.checkpoint.file)
    foundation.weights_sha256 = sha256
    return foundation.eval()


def write_random_checkpoint(name: str, path: str | Path, *, seed: int = 0) -> Path:
    """Write random weights in the layout of a published file: for tests and dry runs only.

    Args:
        name: of a published foundation.
        path: the file, or a folder, where the file gets its official name. Load it with ``verify=False``.
        seed: of the weights.

    Returns:
        The path of the file.

    Raises:
        ValueError: when nothing is published under that name.
    """
    import torch

    entry = foundation_entry(name)
    if entry.checkpoint is None:
        raise ValueError(f"no published weights are called {name!r}: they come with the app")
    path = Path(path)
    if path.is_dir():
        path = path / entry.checkpoint.file
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = entry.build(entry.image_size, {}).model.state_dict()
    with replacing(path) as beside:
        torch.save(state if entry.checkpoint.key is None else {entry.checkpoint.key: state}, beside)
    return path
