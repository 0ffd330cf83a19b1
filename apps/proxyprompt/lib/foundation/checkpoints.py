"""The published weights in one table, and how their files are checked and read.

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
from typing import TYPE_CHECKING

from lib.files import write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

_SAM_URL = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_CHUNK = 1 << 22


class CheckpointError(RuntimeError):
    """Weights that are missing, damaged, not the published ones, or of another model. The message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """One published file. ``sha256`` is None where the authors publish an md5 only (then ``md5`` is set)."""

    name: str
    file: str
    url: str
    bytes: int
    sha256: str | None
    licence: str
    family: str
    md5: str | None = None


def _sam(name: str, file: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(name, file, _SAM_URL + file, size, sha256, "Apache-2.0", "sam")


def _sam2(name: str, size: int, sha256: str) -> Checkpoint:
    return Checkpoint(name, f"{name}.pt", f"{_SAM2_URL}{name}.pt", size, sha256, "Apache-2.0", "sam2")


_ENTRIES = (
    _sam(
        "sam_vit_b",
        "sam_vit_b_01ec64.pth",
        375042383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam(
        "sam_vit_l",
        "sam_vit_l_0b3195.pth",
        1249524607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "sam_vit_h",
        "sam_vit_h_4b8939.pth",
        2564550879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    Checkpoint(
        name="medsam_vit_b",
        file="medsam_vit_b.pth",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        bytes=375049145,
        sha256=None,
        licence="CC-BY-4.0",
        family="medsam",
        md5="3bb6db55bd0c9ca30b61248bca72f8d6",
    ),
    _sam2("sam2.1_hiera_tiny", 156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    _sam2("sam2.1_hiera_small", 184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    _sam2("sam2.1_hiera_base_plus", 323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    _sam2("sam2.1_hiera_large", 898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
)

CHECKPOINTS: dict[str, Checkpoint] = {entry.name: entry for entry in _ENTRIES}


def checkpoint(name: str) -> Checkpoint:
    """The table's entry; ValueError that lists the names for an unknown one."""
    try:
        return CHECKPOINTS[name]
    except KeyError:
        raise ValueError(f"unknown weights {name!r}; known: {', '.join(CHECKPOINTS)}") from None


def digest(path: Path, *algorithms: str) -> tuple[str, ...]:
    """Hex digests of a file by each of the algorithms, in one reading."""
    hashes = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            for item in hashes:
                item.update(chunk)
    return tuple(item.hexdigest() for item in hashes)


def sidecar(path: Path) -> Path:
    """Where the hash of ``path`` is remembered, so that gigabytes are hashed once and not at every start."""
    return path.with_name(path.name + ".sha256.json")


def remember_digest(path: Path, sha256: str, *, first_use: str | None = None) -> None:
    """Write the sidecar of ``path``: its sha256, bound to its length and time of change; a read-only folder is fine."""
    stat = path.stat()
    record = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
    if first_use is not None:
        record["first_use"] = first_use
    try:
        write_json(sidecar(path), record)
    except OSError as error:
        logger.info("the hash of %s could not be stored (%s); it is computed again at the next start", path, error)


def _recall(path: Path) -> dict:
    """What the sidecar says; empty when there is none or it cannot be read."""
    try:
        record = json.loads(sidecar(path).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _recalled_sha256(path: Path, record: Mapping) -> str | None:
    stat = path.stat()
    fresh = (record.get("size"), record.get("mtime_ns")) == (stat.st_size, stat.st_mtime_ns)
    return record.get("sha256") if fresh else None


def check_content(entry: Checkpoint, path: Path) -> str:
    """The sha256 of ``path``, read whole; CheckpointError unless length and published hash are those of the table."""
    size = path.stat().st_size
    if size != entry.bytes:
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
    """The sha256 of ``path``, checked against the table and against what was recorded at its first use.

    The sidecar saves the reading when length and time of change are those of the last check. It guards against damaged
    and mixed-up files, not against somebody who can write into the weights folder. With ``verify=False`` the file may
    be any, and the log says when it is not the published one.
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
    """Where the published weights lie; CheckpointError that says how to get them when they are not there."""
    entry = checkpoint(name)
    path = Path(weights_dir) / entry.file
    if not path.is_file():
        raise CheckpointError(
            f"the weights of {name} are not there: expected {path} ({entry.bytes / 1e6:.0f} MB, {entry.licence}). Run "
            f"{_fetch_command(entry, path)}, or, without internet, add `--from FILE` to it, which takes {entry.file} "
            f"carried over by hand"
        )
    return path


def load_checkpoint(name: str, weights_dir: str | Path, *, verify: bool = True) -> tuple[dict[str, Tensor], str]:
    """The state dict of published weights, and the file's sha256.

    Reads with ``weights_only=True``: a file cannot run code. Raises CheckpointError when the file is missing, cut off,
    damaged, or not the published one (the last unless ``verify`` is false), ValueError for an unknown name.
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
    if entry.family == "sam2":
        state = state.get("model") if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        layout = '{"model": {name: tensor}}' if entry.family == "sam2" else "{name: tensor}"
        raise CheckpointError(f"{path} holds something else than weights: expected {layout}, the official layout")
    return dict(state), sha256  # without the attributes that a pickled OrderedDict brings along


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """``module.load_state_dict`` that names the first missing, unexpected and differently shaped keys."""
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


def load_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict, str]:
    """(state in float32, config, sha256) of an embedded file such as ``atto-1.safetensors``.

    On disk floating tensors may be half precision. ``config`` is the JSON object under the key ``config`` of the
    header's metadata. Raises CheckpointError for a missing or damaged file, or one without a config.
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
