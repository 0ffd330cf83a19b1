"""Scores whoever answers requests on the sample studies: against the truth, the baselines and the two controls.

- *copy* and *nearest* are :mod:`proxyprompt.evaluation.baselines` on the very supports that the answer names. Where
structures
  lie in other places in every study, a majority of several supports agrees on nothing; *copy* is therefore the better
  of the majority and of the most similar support alone, whichever suits the structure.
- *swapped*: the same supports with the mask of another structure of theirs; Dice of what comes back to the structure
  asked for at first. It must be low: the mask, not the image, decides what is segmented.
- *unrelated*: supports of another set, with a structure that the target does not have. It must be lower than with
  proper supports: the answer must come from the support.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from proxyprompt.datasets.samples.folder import SampleFolder
from proxyprompt.foundation.base import Foundation
from proxyprompt.io.study import Study
from proxyprompt.metrics.segmentation import bootstrap_mean, mask_of, overlap, paired_bootstrap

from .baselines import copy_support_mask, nearest_feature

MEASURES = ("dice", "iou", "copy", "nearest", "swapped", "unrelated")


class Answer(NamedTuple):
    """A segmentation. path: label file on the target's grid. names: structure -> value.

    supports: (id, slice) of those used, the most similar first.
    """

    path: Path
    names: dict[str, int]
    supports: list[tuple[str, int]]
    seconds: float


class Refused(RuntimeError):
    """The request was answered with an error; the message is the server's."""


Ask = Callable[[str, dict[str, object]], Answer]
"""ask(study id, options of the request) -> Answer, or raises Refused."""


@dataclass
class SampleScore:
    """One structure of one study. Measures are Dice (and IoU) in [0, 1]; None is a measure that was not taken."""

    study: str
    structure: str
    dice: float | None = None
    iou: float | None = None
    copy: float | None = None
    nearest: float | None = None
    swapped: float | None = None
    unrelated: float | None = None
    supports: list[tuple[str, int]] = field(default_factory=list)
    seconds: float | None = None
    errors: list[str] = field(default_factory=list)


def score_study(
    samples: SampleFolder, study_id: str, ask: Ask, *, foundation: Foundation | None = None, controls: bool = True
) -> list[SampleScore]:
    """The scores of one unlabelled sample, a structure each. Without a foundation *nearest* is not measured.

    A refused request scores 0 where it was the request proper, and leaves None in a control; its message is kept.
    """
    study = samples.study(study_id)
    truth = samples.labels(study_id, study)
    structures = samples.structures(study_id)
    scores = {name: SampleScore(study_id, name) for name in structures}
    try:
        answer = ask(study_id, {})
    except Refused as refusal:
        for score in scores.values():
            score.dice = score.iou = 0.0
            score.errors.append(str(refusal))
        return list(scores.values())

    predicted = study.read_label(answer.path)
    baselines = _baselines(samples, study, answer.supports, list(structures), foundation)
    for name, score in scores.items():
        wanted = truth == structures[name]
        score.dice, score.iou = overlap(_mask(predicted, answer, name), wanted)
        score.supports, score.seconds = answer.supports, round(answer.seconds, 3)
        for measure, variants in baselines.items():
            setattr(score, measure, max(overlap(masks[name], wanted).dice for masks in variants))
    if controls:
        _swap(study, truth, structures, answer, scores, ask)
        _take_unrelated(samples, study, truth, structures, answer, scores, ask)
    return list(scores.values())


def summarise(scores: Sequence[SampleScore]) -> dict[str, object]:
    """Means over all scores, by set and by structure, and the intervals of what the method gains over the others.

    ``gain``: per opponent, the mean of dice minus the opponent's Dice with its 95 % paired bootstrap interval; the unit
    that is drawn is the study (the mean of its structures).
    """
    by_set: dict[str, list[SampleScore]] = {}
    by_structure: dict[str, list[SampleScore]] = {}
    for score in scores:
        by_set.setdefault(SampleFolder.set_of(score.study), []).append(score)
        by_structure.setdefault(score.structure, []).append(score)
    gains = {}
    for opponent in ("copy", "nearest", "swapped", "unrelated"):
        pairs = _by_study(scores, opponent)
        if pairs:
            gains[opponent] = paired_bootstrap(*zip(*pairs, strict=True))._asdict()
    dice = [np.mean([s.dice for s in of_study]) for of_study in _studies(scores).values()]
    return {
        "mean": _means(scores),
        "mean_by_set": {name: _means(some) for name, some in by_set.items()},
        "mean_by_structure": {name: _means(some) for name, some in by_structure.items()},
        "dice_interval": bootstrap_mean(dice)._asdict() if dice else None,
        "gain": gains,
        "studies": [asdict(score) for score in scores],
    }


def _mask(predicted: np.ndarray, answer: Answer, name: str) -> np.ndarray:
    return mask_of(predicted, answer.names.get(name, ()))


def _baselines(
    samples: SampleFolder,
    study: Study,
    supports: Sequence[tuple[str, int]],
    names: Sequence[str],
    foundation: Foundation | None,
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Measure -> variants of it -> structure -> (Z, h, w) bool, from the supports named."""
    images, masks, declared = [], [], []
    opened: dict[str, tuple[Study, np.ndarray]] = {}
    for support_id, index in supports:
        if support_id not in opened:
            support = samples.study(support_id)
            opened[support_id] = support, samples.labels(support_id, support)
        support, labels = opened[support_id]
        values = samples.structures(support_id)
        images.append(torch.from_numpy(support.image(index)))
        masks.append(torch.from_numpy(np.stack([mask_of(labels[index], values.get(name, ())) for name in names])))
        declared.append([name in values for name in names])
    if not masks:
        return {}
    # a slice that shows nothing of the structure has no mask to copy
    shown = torch.stack([mask.flatten(1).any(1) for mask in masks])
    first = shown & (shown.cumsum(0) == 1)
    copied = [copy_support_mask(masks, study.slice_shape, valid=valid).numpy() for valid in (shown, first)]
    found = {"copy": [np.repeat(mask[:, None], len(study), axis=1) for mask in copied]}
    if foundation is not None:
        targets = torch.from_numpy(study.images(range(len(study))))
        nearest = nearest_feature(foundation, targets, images, masks, valid=torch.tensor(declared))
        found["nearest"] = [nearest.numpy().swapaxes(0, 1)]
    return {
        measure: [dict(zip(names, stacked, strict=True)) for stacked in variants] for measure, variants in found.items()
    }


def _swap(
    study: Study,
    truth: np.ndarray,
    structures: Mapping[str, int],
    answer: Answer,
    scores: Mapping[str, SampleScore],
    ask: Ask,
) -> None:
    ids = list(dict.fromkeys(name for name, _ in answer.supports))
    names = list(structures)
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        options = {"support": ids, "supports": len(answer.supports), "structure": other, "agreement": False}
        try:
            swapped = ask(scores[name].study, options)
        except Refused as refusal:
            scores[name].errors.append(f"swapped: {refusal}")
            continue
        mask = _mask(study.read_label(swapped.path), swapped, other)
        scores[name].swapped = overlap(mask, truth == structures[name]).dice


def _take_unrelated(
    samples: SampleFolder,
    study: Study,
    truth: np.ndarray,
    structures: Mapping[str, int],
    answer: Answer,
    scores: Mapping[str, SampleScore],
    ask: Ask,
) -> None:
    study_id = next(iter(scores.values())).study
    ids = samples.unrelated(study_id, len(answer.supports))
    others = list(samples.structures(ids[0]))
    options = {"support": ids, "supports": len(answer.supports), "agreement": False}
    try:
        unrelated = ask(study_id, options)
    except Refused as refusal:
        for score in scores.values():
            score.errors.append(f"unrelated: {refusal}")
        return
    predicted = study.read_label(unrelated.path)
    for position, (name, score) in enumerate(scores.items()):
        mask = _mask(predicted, unrelated, others[position % len(others)])
        score.unrelated = overlap(mask, truth == structures[name]).dice


def _studies(scores: Sequence[SampleScore]) -> dict[str, list[SampleScore]]:
    studies: dict[str, list[SampleScore]] = {}
    for score in scores:
        studies.setdefault(score.study, []).append(score)
    return studies


def _by_study(scores: Sequence[SampleScore], opponent: str) -> list[tuple[float, float]]:
    """(mean dice, mean of the opponent) of each study, over the structures for which the opponent was measured."""
    pairs = []
    for some in _studies(scores).values():
        known = [s for s in some if getattr(s, opponent) is not None]
        if known:
            pairs.append((np.mean([s.dice for s in known]), np.mean([getattr(s, opponent) for s in known])))
    return pairs


def _means(scores: Sequence[SampleScore]) -> dict[str, float | None]:
    means = {}
    for measure in MEASURES:
        known = [value for score in scores if (value := getattr(score, measure)) is not None]
        means[measure] = round(float(np.mean(known)), 4) if known else None
    return means
