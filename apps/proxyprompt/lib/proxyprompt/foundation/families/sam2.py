"""SAM 2.1 (Ravi et al., 2024), by the ``sam2`` package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..checkpoints import Checkpoint
from ..registry import register_foundation

if TYPE_CHECKING:
    from ..sam2 import Sam2

_URL = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"

_PUBLISHED = (  # name, the package's configuration, bytes, sha256
    ("tiny", "t", 156008466, "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69"),
    ("small", "s", 184416285, "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38"),
    ("base_plus", "b+", 323606802, "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5"),
    ("large", "l", 898083611, "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318"),
)


def _builder(name: str, config: str) -> Callable[[int, Mapping[str, object]], Sam2]:
    def build(image_size: int, options: Mapping[str, object]) -> Sam2:
        from ..sam2 import Sam2, build_sam2_model

        return Sam2(name=name, model=build_sam2_model(config, image_size), image_size=image_size)

    return build


for _size, _letter, _bytes, _sha256 in _PUBLISHED:
    _name = f"sam2.1_hiera_{_size}"
    _checkpoint = Checkpoint(
        name=_name,
        file=f"{_name}.pt",
        url=f"{_URL}{_name}.pt",
        licence="Apache-2.0",
        bytes=_bytes,
        sha256=_sha256,
        key="model",
    )
    register_foundation(_name, checkpoint=_checkpoint)(_builder(_name, f"sam2.1_hiera_{_letter}.yaml"))
