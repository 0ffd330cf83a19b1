"""Clicks and boxes beside the proxy prompt: what they draw is shown to the decoder, which draws once more.

P says what is looked for, a box says where, clicks say what was wrong; asked for all of it at once, the decoder heeds
one and forgets the other. So it sees a first mask beside the prompts, as SAM does while somebody clicks: with a box
what the box draws by itself, with clicks the mean of what P draws without and with them.

What it brings, with prompts from the truth, is in docs/atto.md; it was chosen on tasks that were held back from
pretraining. Of P alone a second look brings nothing. Not part of the paper; ``--conf paper true`` leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from proxyprompt.foundation.base import Decoded, Prompts

GAIN = 2.0
"""By which the logits of a first mask are multiplied."""
SURE = 10.0
"""Logits that mask prompts do not exceed, as in pretraining."""


def refined(decode: Callable[[Prompts], Decoded], prompts: Prompts) -> Decoded:
    """Decode clicks or a box with a first mask of theirs.

    Args:
        decode: the foundation on some images.
        prompts: clicks or boxes, with or without P, without a mask.

    Returns:
        What the last look makes of them; of clicks without P the only one.
    """
    first = first_mask(decode, prompts)
    return decode(prompts if first is None else replace(prompts, masks=mask_prompt(first)))


def first_mask(decode: Callable[[Prompts], Decoded], prompts: Prompts) -> Tensor | None:
    """What is shown to the decoder beside clicks or a box.

    Args:
        decode: the foundation on some images.
        prompts: as for :func:`refined`.

    Returns:
        (B, N, s, s) logits; None for clicks without P, and without clicks and boxes.
    """
    if prompts.boxes is not None:
        return decode(replace(prompts, proxy=None)).mask_logits
    if prompts.proxy is not None and prompts.points is not None:
        return (decode(Prompts(proxy=prompts.proxy)).mask_logits + decode(prompts).mask_logits) / 2
    return None


def mask_prompt(logits: Tensor) -> Tensor:
    """What the decoder is shown of a mask.

    Args:
        logits: of any shape.

    Returns:
        As logits.
    """
    return (GAIN * logits).clamp(-SURE, SURE)
