"""Reads a folder of samples with its hidden truth: what somebody needs who scores a server on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import Study, read_study

from .store import truth_folder


class SampleFolder:
    """The samples in ``folder``, as :func:`proxyprompt.datasets.samples.make_samples` wrote them.

    ``targets``: ids of the unlabelled studies, of which the truth is known. ``labelled``: ids of the others.
    StudyError when the folder, or the truth beside it, is not there.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder, self._truth_folder = Path(folder), truth_folder(folder)
        index, truth = self.folder / "datastore_v2.json", self._truth_folder / "truth.json"
        for path in (index, truth):
            if not path.is_file():
                raise StudyError(f"{path} is missing; make the samples with scripts/make_samples.py --out {folder}")
        self._objects = json.loads(index.read_text(encoding="utf-8"))["objects"]
        self._truth = json.loads(truth.read_text(encoding="utf-8"))
        self.targets = sorted(self._truth)
        self.labelled = sorted(
            name for name, entry in self._objects.items() if "final" in entry["labels"] and name not in self._truth
        )

    @staticmethod
    def set_of(study_id: str) -> str:
        """The set a study belongs to: "rgb" for rgb_01."""
        return study_id.rsplit("_", 1)[0]

    def unrelated(self, study_id: str, count: int) -> list[str]:
        """Up to ``count`` labelled studies of another set, always the same ones for the same study."""
        sets = sorted({self.set_of(name) for name in self.labelled})
        other = sets[(sets.index(self.set_of(study_id)) + 1) % len(sets)]
        return [name for name in self.labelled if self.set_of(name) == other][:count]

    def structures(self, study_id: str) -> dict[str, int]:
        """Name -> label value, in the label of a labelled study or the truth of another."""
        if study_id in self._truth:
            return self._truth[study_id]["structures"]
        return {entry["name"]: entry["idx"] for entry in self._final(study_id)["info"]["label_info"]}

    def study(self, study_id: str) -> Study:
        """Read the image of one study."""
        return read_study(self.folder / (study_id + self._objects[study_id]["image"]["ext"]))

    def labels(self, study_id: str, study: Study) -> np.ndarray:
        """(Z, h, w) uint8 on the slices of ``study``: the label of a labelled study, the truth of another."""
        if study_id in self._truth:
            return study.read_label(self._truth_folder / self._truth[study_id]["file"])
        return study.read_label(self.folder / "labels" / "final" / (study_id + self._final(study_id)["ext"]))

    def _final(self, study_id: str) -> dict:
        if study_id not in self.labelled:
            raise StudyError(f"{study_id!r} is not a labelled sample; those are: {', '.join(self.labelled)}")
        return self._objects[study_id]["labels"]["final"]
