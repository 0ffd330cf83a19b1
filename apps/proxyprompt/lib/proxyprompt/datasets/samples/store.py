"""Writes the sample sets as a folder that MONAI Label's local datastore opens as it is.

::

    DIR/rgb_01.png us_01.png mr_01.nii.gz ...     images
    DIR/labels/final/<id>.<the same suffix>       labels of the labelled ones
    DIR/datastore_v2.json                         MONAI Label's own index, with the names of the structures
    DIR.truth/<id>.<suffix>, truth.json           labels of the unlabelled ones, out of the datastore's sight
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from . import abdomen, retina, sonogram

TIMESTAMP = 1735689600
"""2025-01-01 UTC, in place of the clock: the same seed gives the same bytes."""


@dataclass(frozen=True)
class Family:
    """One kind of study: how it is drawn, how many, what its label values are called."""

    prefix: str
    suffix: str
    draw: Callable[[np.random.Generator], tuple[np.ndarray, ...]]
    structures: dict[str, int]
    labelled: int
    unlabelled: int

    def ids(self) -> list[str]:
        """rgb_01, rgb_02 ...: the labelled ones first."""
        return [f"{self.prefix}_{i:02d}" for i in range(1, self.labelled + self.unlabelled + 1)]

    def drawn(self, study_id: str, seed: int) -> tuple[np.ndarray, ...]:
        """Image, label and, for a volume, affine of one study: the same for the same id and seed."""
        return self.draw(np.random.default_rng([seed, zlib.crc32(study_id.encode())]))


FAMILIES = (
    Family("rgb", ".png", retina.draw, retina.STRUCTURES, labelled=6, unlabelled=4),
    Family("us", ".png", sonogram.draw, sonogram.STRUCTURES, labelled=6, unlabelled=4),
    Family("mr", ".nii.gz", abdomen.draw, abdomen.STRUCTURES, labelled=4, unlabelled=2),
)


def truth_folder(out: Path | str) -> Path:
    """Where the truth of the unlabelled samples of ``out`` lies: beside it, its name plus ``.truth``."""
    out = Path(out)
    return out.parent / f"{out.name}.truth"


def make_samples(out: Path | str, *, seed: int = 0) -> list[str]:
    """Draws all sets into ``out`` and their hidden truth into :func:`truth_folder`; returns the ids.

    The same ``seed`` gives the same files. A study depends on the seed and its own id only. The folder appears when it
    is complete. Raises FileExistsError when ``out`` is a file or a folder with something in it: nobody's studies are
    ever overwritten.
    """
    out, truth = Path(out), truth_folder(out)
    for folder in (out, truth):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} exists and is not an empty folder; give a new folder or remove this one")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".samples-") as staging:
        drawn, hidden = Path(staging) / "studies", Path(staging) / "truth"
        ids = _draw_all(drawn, hidden, seed)
        hidden.replace(truth)
        drawn.replace(out)
    return ids


def _draw_all(out: Path, truth: Path, seed: int) -> list[str]:
    final = out / "labels" / "final"
    final.mkdir(parents=True)
    truth.mkdir()
    objects, hidden = {}, {}
    for family in FAMILIES:
        for number, name in enumerate(family.ids()):
            image, label, *affine = family.drawn(name, seed)
            is_labelled = number < family.labelled
            filename = name + family.suffix
            _write_array(out / filename, image, *affine)
            _write_array((final if is_labelled else truth) / filename, label, *affine)
            objects[name] = _entry(family, filename, is_labelled)
            if not is_labelled:
                hidden[name] = {"file": filename, "structures": family.structures}
    _write_json(truth / "truth.json", hidden)
    _write_json(out / "datastore_v2.json", _index(objects))
    return list(objects)


def _entry(family: Family, filename: str, labelled: bool) -> dict:
    """One study in MONAI Label's index; ``label_info`` is what a viewer sends along when it submits a label."""
    info = {"ts": TIMESTAMP, "name": filename}
    names = [{"name": name, "idx": value} for name, value in family.structures.items()]
    labels = {"final": {"ext": family.suffix, "info": {"label_info": names, **info}}} if labelled else {}
    return {"image": {"ext": family.suffix, "info": dict(info)}, "labels": labels}


def _index(objects: dict[str, dict]) -> dict:
    return {
        "name": "samples",
        "description": "Drawn sample studies: rgb, us and mr; no patient data",
        "images_dir": ".",
        "labels_dir": "labels",
        "objects": objects,
    }


def _write_array(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    if affine is None:
        Image.fromarray(array).save(path)
        return
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
