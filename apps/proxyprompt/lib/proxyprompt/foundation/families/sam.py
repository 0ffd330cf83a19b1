"""SAM (Kirillov et al., 2023) and MedSAM (Ma et al., 2024), by the ``segment_anything`` package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..checkpoints import Checkpoint
from ..registry import register_foundation

if TYPE_CHECKING:
    from ..sam import Sam

_URL = "https://dl.fbaipublicfiles.com/segment_anything/"

_CHECKPOINTS = (
    Checkpoint(
        name="sam_vit_b",
        file="sam_vit_b_01ec64.pth",
        url=_URL + "sam_vit_b_01ec64.pth",
        licence="Apache-2.0",
        bytes=375042383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    Checkpoint(
        name="sam_vit_l",
        file="sam_vit_l_0b3195.pth",
        url=_URL + "sam_vit_l_0b3195.pth",
        licence="Apache-2.0",
        bytes=1249524607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    Checkpoint(
        name="sam_vit_h",
        file="sam_vit_h_4b8939.pth",
        url=_URL + "sam_vit_h_4b8939.pth",
        licence="Apache-2.0",
        bytes=2564550879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    Checkpoint(
        name="medsam_vit_b",
        file="medsam_vit_b.pth",
        url="https://zenodo.org/records/10689643/files/medsam_vit_b.pth",
        licence="CC-BY-4.0",
        bytes=375049145,
        md5="3bb6db55bd0c9ca30b61248bca72f8d6",
    ),
)


def _builder(name: str) -> Callable[[int, Mapping[str, object]], Sam]:
    def build(image_size: int, options: Mapping[str, object]) -> Sam:
        from ..sam import MedSam, Sam, build_sam_model

        family = MedSam if name.startswith("medsam") else Sam
        return family(name=name, model=build_sam_model(name))

    return build


for _checkpoint in _CHECKPOINTS:
    register_foundation(_checkpoint.name, checkpoint=_checkpoint, any_size=False)(_builder(_checkpoint.name))
