"""MedSAM2 (Ma et al., 2025): SAM 2.1 tiny, fine-tuned on medical images, volumes and videos at 512 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..checkpoints import Checkpoint
from ..registry import register_foundation

if TYPE_CHECKING:
    from ..sam2 import Sam2


@register_foundation(
    "medsam2",
    image_size=512,
    checkpoint=Checkpoint(
        name="medsam2",
        file="MedSAM2_latest.pt",
        url="https://huggingface.co/wanglab/MedSAM2/resolve/main/MedSAM2_latest.pt",
        licence="research",  # the code is Apache-2.0; its authors give the weights for research and education
        key="model",
    ),
)
def build_medsam2(image_size: int, options: Mapping[str, object]) -> Sam2:
    """The architecture of SAM 2.1 tiny at another size.

    Args:
        image_size: side S of the square input in pixels.
        options: none.

    Returns:
        The foundation with random weights.
    """
    from ..sam2 import Sam2, build_sam2_model

    return Sam2(name="medsam2", model=build_sam2_model("sam2.1_hiera_t.yaml", image_size), image_size=image_size)
