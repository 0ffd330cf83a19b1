"""Does a labelled study fit an image at all? By what is known of both, and by what they look like.

Looks are cosines of descriptors (:mod:`proxyprompt.supports.descriptors`, of the shipped ``atto-6``), measured on 17
collections of real images, 278 slices. One number cannot separate all kinds: two blood smears are less like each other
than a brain and a prostate are, both MR. So an image fits labelled studies that it is about as like as they are like
each other. With four labelled studies of a collection 98 % of its other studies fit, and 6 % of those of other kinds;
with eight 99.6 and 3 %; no brain fitted prostates. Of fewer than three studies nobody knows how like they are to each
other: a cosine that 97 % of a collection reach has to do, and 30 % of the others reach it too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .ranking import Vectors, evenly, relevance

SLOPE, OFFSET = 14.2, -10.19
"""Logistic regression of "of the same kind" on the cosine, pairs of collections counting alike. Area under the curve:
0.98 over all pairs of studies, 0.93 as the mean of the kinds."""
FEWEST = 3
"""Studies that tell how like their kind is to itself."""
SLACK, FLOOR, CEILING, ALONE = 0.06, 0.60, 0.85, 0.66
"""In units of cosine: how much less like than they are to each other still fits; what never fits; what always fits (the
labelled ones may be nearly copies of each other); and what has to do where fewer than FEWEST studies are there."""
_LOWEST = 0.1  # of the studies are let down: one of them may be odd itself
_STUDIES = 24  # that are compared with each other

ABOUT = ("BodyPartExamined", "StudyDescription", "SeriesDescription", "ProtocolName")
"""DICOM tags that may say what an image shows."""
_REGIONS = {
    "head": "HEAD|BRAIN|SKULL|CEREBR\\w*|CRANI\\w*|NEURO|HIPPOCAMP\\w*|PITUITARY|ORBIT\\w*|FACE|SINUS\\w*",
    "neck": "NECK|THYROID|CAROTID|LARYNX|PHARYNX|CERVICAL SPINE|C ?SPINE|CSPINE",
    "chest": "CHEST|THORAX|THORACIC|LUNG\\w*|HEART|CARDIAC|CORONARY|AORTA|MEDIASTINUM",
    "breast": "BREAST|MAMM\\w*",
    "abdomen": "ABD\\w*|LIVER|HEPAT\\w*|KIDNEY\\w*|RENAL|SPLEEN|PANCREAS|STOMACH|BOWEL|COLON",
    "pelvis": "PELVI\\w*|PROSTATE|BLADDER|UTERUS|OVAR\\w*|RECTUM|HIP|FETAL|FETUS|OBSTET\\w*",
    "arm": "ARM|SHOULDER|ELBOW|WRIST|HAND|HUMERUS|FOREARM|FINGER",
    "leg": "LEG|KNEE|ANKLE|FOOT|FEMUR|TIBIA|THIGH|CALF|TOE",
    "eye": "EYE|RETINA\\w*|FUNDUS|MACULA",
}
_WORDS = {region: re.compile(rf"(?<![A-Z])(?:{words})(?![A-Z])") for region, words in _REGIONS.items()}
_NEIGHBOURS = (
    *({"abdomen", "pelvis"}, {"chest", "abdomen"}, {"chest", "breast"}),
    *({"head", "neck"}, {"neck", "chest"}, {"head", "eye"}),
)
"""Parts of the body that one image often shows both of, whatever it is called by."""


def regions_of(about: Mapping[str, str]) -> frozenset[str]:
    """Parts of the body that an image's tags name.

    Args:
        about: tags, of which those of ABOUT count; a body part that is named as such says more than descriptions.

    Returns:
        Names of regions; none where nothing tells.
    """
    for tags in (ABOUT[:1], ABOUT[1:]):
        text = " ".join(str(about.get(tag) or "") for tag in tags).upper().replace("_", " ").replace("-", " ")
        found = frozenset(region for region, words in _WORDS.items() if words.search(text))
        if found:
            return found
    return frozenset()


def contradiction(target: Mapping[str, str], support: Mapping[str, str]) -> str:
    """Why, by their tags, a labelled study shows another part of the body than an image.

    Args:
        target: tags of the image.
        support: tags of the labelled study.

    Returns:
        Words; "" where nothing speaks against it.
    """
    one, other = regions_of(target), regions_of(support)
    if not one or not other or one & other or any({a, b} in _NEIGHBOURS for a in one for b in other):
        return ""
    return f"shows {_listed(other)}, this image {_listed(one)}"


def calibrated(cosine: float) -> float:
    """How probably two images whose descriptors have this cosine are of one kind, 0 to 1.

    Args:
        cosine: of two descriptors.

    Returns:
        A probability, as measured where one kind and another are as frequent.
    """
    return float(1 / (1 + np.exp(-(SLOPE * cosine + OFFSET))))


def cosines(one: Vectors, other: Vectors) -> NDArray[np.float64]:
    """Cosines of descriptors as they are; nothing is taken off.

    Args:
        one: (T, d).
        other: (n, d).

    Returns:
        (T, n).
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    lengths = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    return (first @ second.T) / np.maximum(lengths, 1e-12)


def likeness(looks: NDArray[np.float64]) -> float:
    """How like an image is to others: the best of each of its slices, averaged by relevance.

    Args:
        looks: (T, n) cosines to n slices of others.

    Returns:
        A cosine.
    """
    return float(relevance(looks) @ looks.max(axis=1))


def least_likeness(rows: Vectors, owners: Sequence[str]) -> float:
    """How like an image must be to labelled studies to fit them.

    Args:
        rows: (n, d), descriptors of their slices.
        owners: whose each is; studies of one patient are more alike than others, and are one owner.

    Returns:
        A cosine.
    """
    studies = evenly(list(dict.fromkeys(owners)), _STUDIES)
    if len(studies) < FEWEST:
        return ALONE
    vectors, names = np.asarray(rows, np.float64), np.asarray(owners)
    own = [likeness(cosines(vectors[names == s], vectors[np.isin(names, studies) & (names != s)])) for s in studies]
    return min(CEILING, max(FLOOR, float(np.quantile(own, _LOWEST, method="lower")) - SLACK))


def _listed(names: frozenset[str]) -> str:
    return " and ".join(sorted(names))
