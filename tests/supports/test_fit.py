"""Which labelled studies fit an image: by what is known of both, and by what they look like."""

from pathlib import Path

import numpy as np
import pytest

from proxyprompt.foundation import build_foundation
from proxyprompt.io.study import read_study
from proxyprompt.supports.descriptors import describe
from proxyprompt.supports.fit import (
    ALONE,
    CEILING,
    FLOOR,
    SLACK,
    calibrated,
    contradiction,
    cosines,
    least_likeness,
    likeness,
    regions_of,
)

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize(
    ("about", "regions"),
    [
        ({"BodyPartExamined": "BRAIN"}, {"head"}),
        ({"BodyPartExamined": "PROSTATE", "StudyDescription": "brain and neck"}, {"pelvis"}),
        ({"StudyDescription": "MRT Abdomen_Becken", "SeriesDescription": "t2_tse"}, {"abdomen"}),
        ({"SeriesDescription": "T1 3D BRAIN-stem"}, {"head"}),
        ({"ProtocolName": "C-SPINE"}, {"neck"}),
        ({"SeriesDescription": "Chippendale", "StudyDescription": "handmade"}, set()),  # no HIP, no HAND
        ({}, set()),
    ],
)
def test_parts_of_the_body_are_read_from_the_tags(about, regions):
    assert regions_of(about) == regions


def test_other_parts_of_the_body_speak_against_a_support_and_neighbours_do_not():
    brain, prostate = {"BodyPartExamined": "HEAD"}, {"SeriesDescription": "t2_tra prostate"}
    assert contradiction(brain, prostate) == "shows pelvis, this image head"
    assert not contradiction(prostate, {"BodyPartExamined": "ABDOMEN"})
    assert not contradiction(brain, {}) and not contradiction({}, prostate)
    assert not contradiction(brain, {"StudyDescription": "brain, orbits"})


def test_how_like_studies_of_a_kind_are_to_each_other_is_what_is_asked_of_another_one():
    rng = np.random.default_rng(0)
    kind, other = rng.normal(size=(2, 50))

    def rows(centre, spread, count):
        return centre + spread * rng.normal(size=(count, 50))

    tight, loose = rows(kind, 0.2, 12), rows(kind, 0.6, 12)
    owners = [f"s{n // 2}" for n in range(12)]
    assert least_likeness(tight, owners) > least_likeness(loose, owners) + 0.05
    assert least_likeness(tight[:4], owners[:4]) == ALONE
    assert least_likeness(np.eye(12, 50), owners) == FLOOR
    assert least_likeness(np.ones((12, 50)), owners) == CEILING  # copies of each other
    for labelled, spread in ((tight, 0.2), (loose, 0.6)):
        least = least_likeness(labelled, owners)
        assert likeness(cosines(rows(kind, spread, 3), labelled)) > least
        assert likeness(cosines(rows(other, spread, 3), labelled)) < least
    odd = np.concatenate([np.repeat(tight, 2, axis=0)[:20], rows(other, 0.2, 2)])
    many = [f"s{n}" for n in range(22)]
    assert least_likeness(odd, many) > 0.8 - SLACK  # one label of something else lets nothing else in


def test_similarity_is_a_probability():
    values = [calibrated(cosine) for cosine in (-1.0, 0.4, 0.6, 0.72, 0.8, 0.95, 1.0)]
    assert values == sorted(values) and values[0] < 0.001 and values[-1] > 0.98
    assert calibrated(0.7176) == pytest.approx(0.5, abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="real images are not here (shared/data)")
def test_similarity_separates_real_collections():
    """The embedded encoder: images of one collection are alike, a brain and prostates are not."""
    encoder = build_foundation("atto", image_size=256, weights_dir=ROOT / "apps" / "proxyprompt" / "model").eval()

    def described(path):
        study = read_study(path)
        depth = len(study)
        middle = sorted({depth // 2, int(depth * 0.35), int(depth * 0.65)})
        return describe(encoder, study.images(middle)).numpy()

    def some(name, count):
        return [described(path) for path in sorted((REAL / name / "images").iterdir())[:count]]

    kinds = {name: some(name, 6) for name in ("promise12", "busi", "psfhs_fh_ps", "drive")}
    brain = described(REAL / "dicom_brain_mr" / "FLAIR_reg")
    kept = refused = 0
    for name, studies in kinds.items():
        labelled, new = studies[:4], studies[4:]
        owners = [f"s{n}" for n, rows in enumerate(labelled) for _ in rows]
        least = least_likeness(np.concatenate(labelled), owners)
        kept += sum(likeness(cosines(rows, np.concatenate(labelled))) >= least for rows in new)
        others = [rows for other, several in kinds.items() if other != name for rows in several[:2]]
        refused += sum(likeness(cosines(rows, np.concatenate(labelled))) < least for rows in others)
        assert likeness(cosines(brain, np.concatenate(labelled))) < least, name
    assert kept >= 7 and refused >= 23, (kept, refused)  # of 8 and of 24
