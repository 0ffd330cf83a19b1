"""The paper's own figures: Dice in percent, SAM ViT-H with 16 training images, SAM 2 for the video task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class ReportedTask(NamedTuple):
    """A structure of one of the paper's data sets. own: how it is called when the set was prepared by
    ``scripts/prepare_data.py``; stand_in: the collection (lower case) and structure measured here in its place.
    """

    name: str
    own: tuple[str, str]
    stand_in: tuple[str, str]


TASKS = (
    ReportedTask("REFUGE2 disc", ("refuge2", "disc"), ("smdg_disc_cup", "disc")),
    ReportedTask("REFUGE2 cup", ("refuge2", "cup"), ("smdg_disc_cup", "cup")),
    ReportedTask("STARE vessels", ("stare", "vessels"), ("stare", "vessels")),
    ReportedTask("FPA symphysis", ("fh-ps-aop", "symphysis"), ("psfhs_fh_ps", "symphysis")),
    ReportedTask("FPA head", ("fh-ps-aop", "head"), ("psfhs_fh_ps", "head")),
    ReportedTask("PROMISE12", ("promise12", "prostate"), ("promise12", "prostate")),
    ReportedTask("JNU-IFM symphysis", ("jnu-ifm", "symphysis"), ("psfhs_sequences", "symphysis")),
    ReportedTask("JNU-IFM head", ("jnu-ifm", "head"), ("psfhs_sequences", "head")),
)

_OURS = (88.0, 85.5, 81.6, 85.3, 89.3, 87.4, 78.0, 83.7)
_NNUNET = (None, None, None, None, None, 84.1, None, None)
DICE: Mapping[str, tuple[float | None, ...]] = {
    "proxyprompt": _OURS,
    "finetuned": _OURS,
    "finetuned_paper": _OURS,
    "point": (39.1, 33.5, 16.3, 18.2, 34.4, None, 18.9, 31.2),
    "box": (54.2, 71.6, 20.5, 67.0, 88.0, None, 76.8, 80.3),
    "everything": (48.8, 40.0, 20.5, 25.6, 35.4, None, None, None),
    "samed-like": (86.9, 84.3, 15.8, 66.3, 87.0, 85.9, None, None),
    "autosam-like": (87.9, 84.6, 73.8, 78.0, 79.1, 70.1, None, None),
    "medsa-like-point": (85.6, 83.0, 45.4, 71.3, 81.4, None, None, None),
    "medsa-like-box": (86.8, 82.6, 37.1, 71.8, 83.1, 76.0, None, None),
    "memory": (None, None, None, None, None, None, 62.6, 64.0),
    "dynunet": _NNUNET,
    "dynunet_plateau": _NNUNET,
}
"""Method -> Dice by task. memory stands beside MedSAM2, which it is like; dynunet beside nnU-Net."""

QUALITY = ((0.0, 47.9), (66.6, 71.8), (81.6, 86.5), (100.0, 86.8))
"""Dice of the support masks -> Dice of the output (Table 7)."""

UNRELATED = 65.25
"""Dice with a retina as the support of an ultrasound image (section 11.2)."""


class Variant(NamedTuple):
    """dice: of the first five tasks. mean, iou: over all five, as printed."""

    dice: tuple[float, ...]
    mean: float
    iou: float | None = None


VARIANTS: Mapping[str, Variant] = {
    "full": Variant(_OURS[:5], 85.9, 76.3),
    "without-ccm": Variant((87.6, 85.3, 80.2, 83.7, 89.2), 85.2),
    "without-csm": Variant((87.1, 84.6, 79.2, 83.3, 87.6), 84.3),
    "without-csm-ccm": Variant((87.0, 83.7, 79.0, 82.7, 87.6), 84.0),
    "vit": Variant((86.8, 84.3, 79.6, 83.2, 88.4), 84.5, 74.0),
    "resnet50": Variant((85.8, 83.9, 79.3, 82.4, 88.0), 83.9, 72.6),
}
"""Label of a record -> figures of tables 4, 5, 12 and 13."""

STRATEGIES: Mapping[str, Variant] = {
    "strategy-1": Variant((88.3, 86.0, 82.5, 85.7, 89.5), 86.4),
    "strategy-2": Variant(_OURS[:5], 85.9),
    "strategy-3": Variant((87.2, 84.9, 74.2, 85.6, 89.7), 84.3),
}
"""Label of a record -> figures of Table 9: trained on each data set by itself, on those of a modality, on all."""

SHOTS = "shots-"
"""What labels of records start with that were trained on so many images of each data set: ``shots-4``."""


def is_variant(label: str) -> bool:
    """Whether a record of this name is there to be compared with ``full``, or with others of its kind."""
    return label != "full" and (label in VARIANTS or label in STRATEGIES or label.startswith((SHOTS, "without-")))
