"""The same supports made worse: what a sloppy mask costs, and whether the support matters at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from proxyprompt.metrics.segmentation import overlap
from proxyprompt.supports.selection import Selection

from .episodes import EvalEpisodes
from .methods import Fitted, Method

_HALVINGS = 12
_SMOOTH = 0.15  # of the structure's size: how far neighbouring pixels of an outline go astray together

Change = Callable[[Selection, int], tuple[Selection, Mapping[str, object]]]
"""(supports, seed) -> the supports that the method gets instead, and notes."""


class WithOther(Method):
    """``method`` with changed supports; targets and everything else stay. label: follows the method's name."""

    def __init__(self, method: Method, label: str, change: Change) -> None:
        self._method, self._change = method, change
        self.name = f"{method.name}, {label}"
        self.settings = {**method.settings, "but": label}

    def has_seen(self, collection: str, group: str) -> bool:
        return self._method.has_seen(collection, group)

    def fit(self, supports: Selection, *, seed: int) -> Fitted:
        changed, notes = self._change(supports, seed)
        fitted = self._method.fit(changed, seed=seed)
        return replace(fitted, notes={**fitted.notes, **notes})


def with_masks_of(method: Method, quality: float) -> Method:
    """Support masks whose Dice to the true ones is about ``quality``, in (0, 1]; 0: masks with nothing in them.

    notes: ``mask_dice``, of each support.
    """
    if not 0 <= quality <= 1:
        raise ValueError(f"the quality of a mask is its Dice to the true one, 0 to 1; got {quality}")

    def change(supports: Selection, seed: int) -> tuple[Selection, dict[str, object]]:
        rng = np.random.default_rng(seed)
        masks = [np.stack([degrade(mask, quality, rng) for mask in of_slice]) for of_slice in supports.masks]
        dice = [overlap(one, other).dice for one, other in zip(masks, supports.masks, strict=True)]
        return replace(supports, masks=masks), {"mask_dice": [round(d, 3) for d in dice]}

    return WithOther(method, f"masks at Dice {quality:g}", change)


def with_inverted_masks(method: Method) -> Method:
    """The mask of each support is all that is not the structure. What is segmented must follow the mask, not the image;
    the Dice is still to the structure, so it should be low.
    """
    return WithOther(
        method, "masks inverted", lambda supports, seed: (replace(supports, masks=[~m for m in supports.masks]), {})
    )


def with_supports_of(method: Method, episodes: EvalEpisodes) -> Method:
    """Supports of another collection, of its first structure, in the place of the right ones: another organ, another
    machine. What is left of the Dice is what the method does without a support that means anything.

    notes: ``drawn_instead``. learn raises SupportError when the other collection has not so many.
    """
    name = episodes.collection.name
    structure = next(iter(episodes.collection.structures))

    def change(supports: Selection, seed: int) -> tuple[Selection, dict[str, object]]:
        others = episodes.supports(structure, len(supports), seed)
        drawn = [f"{chosen.study_id}:{chosen.index}" for chosen in others.slices]
        return replace(others, structures=supports.structures), {"drawn_instead": drawn}

    return WithOther(method, f"supports of {name}", change)


def degrade(mask: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """mask: (h, w) bool -> the same warped by a smooth random field as far as it takes for a Dice of ``quality``.

    A field may be too weak for it on a large structure; then the outcome is as far as it goes. An empty mask stays.
    """
    if quality == 0 or not mask.any():
        return np.zeros_like(mask)
    if quality == 1:
        return mask.copy()
    size = float(np.sqrt(mask.sum()))
    field = [gaussian_filter(rng.standard_normal(mask.shape), max(1.0, _SMOOTH * size)) for _ in range(2)]
    field = [f / max(1e-9, np.abs(f).max()) for f in field]
    places = np.indices(mask.shape).astype(float)

    def warped(strength: float) -> np.ndarray:
        at = [place + strength * f for place, f in zip(places, field, strict=True)]
        return map_coordinates(mask.astype(np.float32), at, order=1, mode="nearest") > 0.5

    low, high = 0.0, 2 * size
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if overlap(warped(middle), mask).dice > quality:
            low = middle
        else:
            high = middle
    return warped(high)
