"""``atto``: embedded, small enough for a CPU (:mod:`proxyprompt.foundation.atto`).

Its generator departs from the paper's in size (a context encoder of 3 layers of 64 channels), in two halvings for four
(at 256 pixels 64 tokens are left instead of 16), and in where the blocks of the colorization normalise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..registry import register_foundation

if TYPE_CHECKING:
    from ..atto import Atto


@register_foundation(
    "atto",
    image_size=384,
    generator={"grid": 24, "width": 64, "depth": 3, "d_state": 8, "halvings": 2, "norm_first": True},
    finetuning={"adapt_encoder": False, "views": 8},
)
def build_atto(image_size: int, options: Mapping[str, object]) -> Atto:
    """``atto`` behind its pretrained trunk.

    Args:
        image_size: side S of the square input in pixels.
        options: of :class:`proxyprompt.foundation.atto.AttoConfig`.

    Returns:
        The foundation with random weights.
    """
    from ..atto import build_atto

    return build_atto(options, image_size=image_size)
