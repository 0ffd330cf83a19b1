"""How the files of published weights are checked and read.

Weights are data apart from code: each entry names a file, where its authors publish it, its length, its hash and its
licence. Nothing here downloads: ``scripts/fetch_weights.py`` does, on request. A file whose hash differs from the
table is refused, unless the caller says ``verify=False`` (``--conf allow_unverified_weights true``): weights that were
fine-tuned elsewhere, or random ones in the official layout, load that way, and the log says so.

Only the standard library is imported at the top, so that the table and the checks cost no start of PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxyprompt.io.errors import WeightsError
from proxyprompt.io.files import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

_CHUNK = 1 << 22


class CheckpointError(WeightsError):
    """Weights that are missing, damaged, not the published ones, or of another model. The message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One published file.

    Attributes:
        name: of the foundation.
        file: its name as published.
        url: where its authors publish it.
        licence: of the weights.
        bytes: its length; None where that is not known here: then it cannot be downloaded, only taken from a file.
        sha256: what its authors publish of it, if anything. Without it that of its first use counts.
        md5: the same, where that is what they publish.
        key: under which the file holds the state dict; None where the file is the state dict.
    """

    name: str
    file: str
    url: str
    licence: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    key: str | None = None


CHECKPOINTS: dict[str, Checkpoint] = {}
"""Name of the foundation -> its published file; filled by :mod:`proxyprompt.foundation.registry`."""


def checkpoint(name: str) -> Checkpoint:
    """The table's entry.

    Args:
        name: of the foundation.

    Returns:
        Its published file.

    Raises:
        ValueError: for an unknown name; lists those that there are.
    """
    try:
        return CHECKPOINTS[name]
    except KeyError:
        raise ValueError(f"unknown weights {name!r}; known: {', '.join(CHECKPOINTS)}") from None


def digest(path: Path, *algorithms: str) -> tuple[str, ...]:
    """Hash a file in one reading.

    Args:
        path: the file.
        *algorithms: names of ``hashlib``.

    Returns:
        A hex digest by each of them.
    """
    hashes = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for item in hashes:
                item.update(chunk)
    return tuple(item.hexdigest() for item in hashes)


def sidecar(path: Path) -> Path:
    """Where the hash of a file is remembered, so that gigabytes are hashed once and not at every start.

    Args:
        path: the file.

    Returns:
        The path beside it.
    """
    return path.with_name(path.name + ".sha256.json")


def remember_digest(path: Path, sha256: str, *, first_use: str | None = None) -> None:
    """Write the sidecar of a file: its sha256, bound to its length and time of change; a read-only folder is fine.

    Args:
        path: the file.
        sha256: its hash.
        first_use: the hash that it had when it was first used, where nothing is published.
    """
    stat = path.stat()
    record = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
    if first_use is not None:
        record["first_use"] = first_use
    try:
        write_json(sidecar(path), record)
    except OSError as error:
        logger.info("the hash of %s could not be stored (%s); it is computed again at the next start", path, error)


def _recall(path: Path) -> dict[str, Any]:
    """What the sidecar says; empty when there is none or it cannot be read."""
    try:
        record = json.loads(sidecar(path).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _recalled_sha256(path: Path, record: Mapping[str, Any]) -> str | None:
    stat = path.stat()
    fresh = (record.get("size"), record.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
    return record.get("sha256") if fresh else None


def check_content(entry: Checkpoint, path: Path) -> str:
    """Compare a file, read whole, with the table.

    Args:
        entry: of the table.
        path: the file.

    Returns:
        Its sha256.

    Raises:
        CheckpointError: unless length and published hash are those of the table.
    """
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        kind = "incomplete" if size < entry.bytes else "too long"
        raise CheckpointError(f"{path} is {kind}: {size} bytes, {entry.name} has {entry.bytes}")
    if entry.sha256 is not None or entry.md5 is None:
        (sha256,) = digest(path, "sha256")
        found, expected, kind = sha256, entry.sha256 or sha256, "sha256"
    else:
        sha256, found = digest(path, "sha256", "md5")
        expected, kind = entry.md5, "md5"
    if found != expected:
        raise CheckpointError(f"{path} is not the published {entry.name}: its {kind} is {found}, expected {expected}")
    return sha256


def _fetch_command(entry: Checkpoint, path: Path) -> str:
    return f"`python scripts/fetch_weights.py {entry.name} --dir {path.parent}`"


def verify_checkpoint(entry: Checkpoint, path: Path, *, verify: bool = True) -> str:
    """Check a file against the table and against what was recorded at its first use.

    The sidecar saves the reading when length and time of change are those of the last check. It guards against damaged
    and mixed-up files, not against somebody who can write into the weights folder.

    Args:
        entry: of the table.
        path: the file.
        verify: False lets the file be any; the log says when it is not the published one.

    Returns:
        Its sha256.

    Raises:
        CheckpointError: when it is not the published file, or changed since its first use.
    """
    record = _recall(path)
    first_use = record.get("first_use")
    known = _recalled_sha256(path, record)
    if not verify:
        sha256 = known or digest(path, "sha256")[0]
        if sha256 != known:
            remember_digest(path, sha256, first_use=first_use)
        if sha256 not in (entry.sha256, first_use):
            logger.warning("unverified weights for %s: %s, sha256 %s", entry.name, path, sha256)
        return sha256
    if known is not None and known in (entry.sha256, first_use):
        return known
    try:
        sha256 = check_content(entry, path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Delete it and run {_fetch_command(entry, path)}; to use weights of your own in this layout, "
            f"start with --conf allow_unverified_weights true"
        ) from None
    if entry.sha256 is None:
        if first_use is None:
            logger.info("first use of %s: sha256 %s is recorded in %s", path, sha256, sidecar(path))
        elif first_use != sha256:
            raise CheckpointError(
                f"{path} changed since its first use: its sha256 is {sha256}, {sidecar(path).name} says {first_use}. "
                f"Restore the file; if the change is meant, delete {sidecar(path)}"
            )
        first_use = sha256
    remember_digest(path, sha256, first_use=first_use)
    return sha256


def checkpoint_file(name: str, weights_dir: str | Path) -> Path:
    """Where the published weights lie.

    Args:
        name: of the foundation.
        weights_dir: their folder.

    Returns:
        The path of the file.

    Raises:
        ValueError: for an unknown name.
        CheckpointError: when they are not there; says how to get them.
    """
    entry = checkpoint(name)
    path = Path(weights_dir) / entry.file
    if not path.is_file():
        size = "" if entry.bytes is None else f"{entry.bytes / 1e6:.0f} MB, "
        raise CheckpointError(
            f"the weights of {name} are not there: expected {path} ({size}{entry.licence}). Run "
            f"{_fetch_command(entry, path)}, or, without internet, add `--from FILE` to it, which takes {entry.file} "
            f"carried over by hand"
        )
    return path


def load_checkpoint(name: str, weights_dir: str | Path, *, verify: bool = True) -> tuple[dict[str, Tensor], str]:
    """Read published weights, with ``weights_only=True``: a file cannot run code.

    Args:
        name: of the foundation.
        weights_dir: folder of the weights.
        verify: refuse a file that is not the published one.

    Returns:
        The state dict, and the file's sha256.

    Raises:
        CheckpointError: when the file is missing, cut off, damaged, or not the published one (the last unless
            ``verify`` is false).
        ValueError: for an unknown name.
    """
    import torch

    entry = checkpoint(name)
    path = checkpoint_file(name, weights_dir)
    sha256 = verify_checkpoint(entry, path, verify=verify)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # the zip reader and the unpickler trip over damaged bytes in every way there is
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise CheckpointError(
            f"{path} cannot be read as weights ({reason}). Delete it and run {_fetch_command(entry, path)}"
        ) from error
    if entry.key is not None:
        state = state.get(entry.key) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        layout = "{name: tensor}" if entry.key is None else f'{{"{entry.key}": {{name: tensor}}}}'
        raise CheckpointError(f"{path} holds something else than weights: expected {layout}, the official layout")
    return dict(state), sha256  # without the attributes that a pickled OrderedDict brings along


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """``module.load_state_dict`` whose error says what does not fit.

    Args:
        module: gets the weights.
        state: all of them.
        source: where they come from, for messages.

    Raises:
        CheckpointError: names the first missing, unexpected and differently shaped keys.
    """
    own = module.state_dict()
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    found = [f"{len(keys)} {kind} (first: {', '.join(keys[:3])})" for kind, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(found)}. These are the weights of another model"
        )
    module.load_state_dict(state, strict=True)


def load_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Read an embedded file such as ``atto-6.safetensors``. On disk floating tensors may be half precision.

    Args:
        path: the file.

    Returns:
        The state in float32; the configuration, which is the JSON object under the key ``config`` of the header's
        metadata; the file's sha256.

    Raises:
        CheckpointError: for a missing or damaged file, or one without a configuration.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"no weights at {path}: the file belongs to the repository; restore it with git")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is cut off or damaged ({error}); restore it with git") from error
    try:
        config = json.loads(metadata["config"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} has no readable `config` in its header: expected a JSON object") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: `config` is {type(config).__name__}, expected a JSON object")
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    return state, config, digest(path, "sha256")[0]
