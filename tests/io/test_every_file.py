"""Every real image and label beside the project is read: nothing that is right is refused."""

from pathlib import Path

import numpy as np
import pytest

from proxyprompt.datasets.collections import read_collection
from proxyprompt.io.study import read_study

SHARED = Path(__file__).resolve().parents[3] / "shared"
COLLECTIONS = sorted(folder for part in ("data", "train") for folder in (SHARED / part).glob("*/images"))
SERIES = sorted(folder for folder in (SHARED / "data").glob("dicom_*/*") if any(folder.glob("*.dcm")))


@pytest.mark.slow
@pytest.mark.skipif(not COLLECTIONS, reason=f"{SHARED} is not here")
@pytest.mark.parametrize("images", COLLECTIONS, ids=lambda folder: folder.parent.name)
def test_images_with_their_masks(images):
    collection = read_collection(images.parent)
    assert len(collection.cases) == len(list(images.iterdir()))
    for case in collection.cases:
        study, labels = collection.open(case)
        assert study.bounds.low < study.bounds.high and not study.warnings, case.id
        assert labels.shape == (len(study), *study.slice_shape)


@pytest.mark.skipif(not SERIES, reason=f"{SHARED} is not here")
def test_dicom_series_and_segmentations():
    read = {folder.name: read_study(folder) for folder in SERIES if folder.name != "seg"}
    assert len(read) == 3 and all(len(study) > 2 and not study.warnings for study in read.values())
    found = read["ct"].read_label_map(SHARED / "data" / "dicom_ct_liver_seg" / "seg" / "liver.dcm")
    assert list(found.names) == ["Liver"] and not found.notes and set(np.unique(found.values)) == {0, 1}
