"""How well a segmenter does on the held-out groups: what early stopping and the gate look at.

The held-out studies support each other, never their own group: none of them trained any version, so the supports favour
no version, and a wrong label among the training studies cannot spoil the measure. Where too few of them show a
structure, slices of training studies support as well. Masks are compared on the studies' own pixels, gated by presence
as served ones are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, zip_longest

import numpy as np
import torch
from torch import Tensor

from proxyprompt.foundation.base import Features
from proxyprompt.metrics.segmentation import overlap

from .cases import LabelledSlice
from .episode_model import EpisodeModel
from .episodes import prepare

UNVARIED = -1  # in the place of the variation in an image's key: as large as it is, not varied


class Validation:
    """Scores weights on held-out cases.

    Args:
        held: slices of the held-out cases, as large as they are.
        spare: slices that support where fewer than ``enough`` other held-out groups show a structure.
        names: of all structures.
        structures: those that are scored, indices into ``names``.
        supports: K.
        hash_of: group -> salted hash.
        enough: None for K.
    """

    def __init__(
        self,
        held: Sequence[LabelledSlice],
        spare: Sequence[LabelledSlice],
        names: Sequence[str],
        structures: Sequence[int],
        *,
        supports: int,
        hash_of: Callable[[str], str],
        enough: int | None = None,
    ) -> None:
        self._held, self._names, self._structures = list(held), list(names), list(structures)
        self._supports, self._hash_of = supports, hash_of
        self._pool = list(self._held)
        enough = supports if enough is None else enough
        showing = {n: len({s.case.group for s in self._held if s.shown[n]}) for n in self._structures}
        if lacking := [n for n, groups in showing.items() if self._held and groups <= enough]:
            self._pool += [spare[i] for i in choose_supports(spare, lacking, supports)]

    @torch.inference_mode()
    def scores(self, model: EpisodeModel) -> dict[str, dict[str, float]]:
        """Structure -> salted hash of the group -> mean Dice of its studies.

        Left out is what a study does not declare, and what no other group shows. Empty without held-out groups.
        """
        samples = [
            prepare(
                s.image.float(),
                s.masks[self._structures].float() / 255,
                model.segmenter.foundation,
                key=(s.case.content, s.index, UNVARIED),
            )
            for s in self._pool
        ]
        features = [model.features([sample]) for sample in samples]
        context = cache(lambda i: model.context(samples[i]))
        found: dict[str, dict[str, list[float]]] = {}
        for case in dict.fromkeys(s.case for s in self._held):
            targets = [i for i, s in enumerate(self._pool) if s.case is case]
            others = [i for i, s in enumerate(self._pool) if s.case.group != case.group]
            picked = choose_supports([self._pool[i] for i in others], self._structures, self._supports)
            supports = [others[i] for i in picked]
            declared = torch.stack([self._pool[i].declared[self._structures] for i in supports]) if supports else None
            shown = torch.stack([self._pool[i].shown[self._structures] for i in supports]) if supports else None
            asked = [
                n
                for n, structure in enumerate(self._structures)
                if supports and shown[:, n].any() and self._pool[targets[0]].declared[structure]
            ]
            if not asked:
                continue
            device = features[0].embedding.device
            memory = model.serve(
                [replace(samples[i], masks=samples[i].masks[asked]) for i in supports],
                Features.join([features[i] for i in supports]),
                [None if (whole := context(i)) is None else whole[asked] for i in supports],
                declared[:, asked].to(device),
            )
            masks, truth = [], []
            for i in targets:
                sample = replace(samples[i], masks=samples[i].masks[asked])
                decoded = model.segment(features[i], memory, [sample], [self._structures[n] for n in asked])
                logits = model.segmenter.foundation.postprocess(decoded.mask_logits, samples[i].geometry)[0]
                masks.append(((logits > 0) & (decoded.presence_logit[0] > 0)[:, None, None]).cpu().numpy())
                truth.append((self._pool[i].masks[self._structures][asked] > 127).numpy())
            group = self._hash_of(case.group)
            for place, n in enumerate(asked):
                dice = overlap(np.stack([m[place] for m in masks]), np.stack([t[place] for t in truth])).dice
                found.setdefault(self._names[self._structures[n]], {}).setdefault(group, []).append(dice)
        return {name: {g: float(np.mean(d)) for g, d in by_group.items()} for name, by_group in found.items()}


def mean_scores(scores: dict[str, dict[str, float]]) -> dict[str, float]:
    """Structure -> mean over the groups."""
    return {name: float(np.mean(list(by_group.values()))) for name, by_group in scores.items()}


def choose_supports(slices: Sequence[LabelledSlice], structures: Sequence[int], count: int) -> list[int]:
    """Choose slices that support.

    Args:
        slices: to choose from.
        structures: that are to be shown.
        count: K.

    Returns:
        Indices of slices such that each structure is shown by ``count`` of them where possible; groups take turns, each
        with the slices first that show most.
    """
    by_group: dict[str, list[int]] = {}
    for i, s in enumerate(slices):
        by_group.setdefault(s.case.group, []).append(i)
    for some in by_group.values():
        some.sort(key=lambda i: -_area(slices[i].masks[structures]))
    chosen, have = [], dict.fromkeys(structures, 0)
    for i in chain.from_iterable(zip_longest(*by_group.values())):
        lacking = [] if i is None else [n for n in structures if slices[i].shown[n] and have[n] < count]
        if lacking:
            chosen.append(i)
            for n in structures:
                have[n] += int(slices[i].shown[n])
    return chosen


def _area(masks: Tensor) -> int:
    return int((masks > 127).sum())
