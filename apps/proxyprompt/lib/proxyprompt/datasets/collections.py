"""A folder of labelled images as cases with groups, for training and for measuring. Only read, never written.

Three layouts are understood:

- ``images/`` and ``masks/`` with the same names (suffixes may differ);
- nnU-Net v2 and Medical Segmentation Decathlon: ``imagesTr/`` and ``labelsTr/`` (of several channels the first counts);
- a MONAI Label folder: images, with the final labels in ``labels/final/``.

``groups.csv`` (columns ``case``, ``group``) beside the images or in the folder says which cases belong together: slices
of one patient, frames of one video. ``dataset.json`` in the folder names the label values.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from proxyprompt.io.errors import StudyError
from proxyprompt.io.groups import GROUPS, patient_of, read_groups
from proxyprompt.io.intensity import IntensitySettings
from proxyprompt.io.label_files import as_labels, names_itself, read_label_map
from proxyprompt.io.labels import declared_structures, parse_labels
from proxyprompt.io.raster import DICOM, ITK, NIFTI, PLAIN_IMAGES, has_dicom_magic, suffix_of
from proxyprompt.io.readers import read_raster
from proxyprompt.io.study import Study, read_study

logger = logging.getLogger(__name__)

LAYOUTS = "images/ and masks/; or imagesTr/ and labelsTr/; or a MONAI Label folder with labels/final/"
_SUFFIXES = (*NIFTI, *ITK, *PLAIN_IMAGES, *DICOM)

Values = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CollectionCase:
    """One labelled image. structures: what its label declares, name -> its values there; declared, though maybe empty.

    group: cases that must not be told apart when splitting (one patient, one video); the case itself where nothing is
    known.
    """

    id: str
    group: str
    image_path: Path
    label_path: Path
    structures: Mapping[str, Values]


@dataclass(frozen=True)
class Collection:
    """The cases of one folder, in the order of their ids.

    structures: name -> label values, of all cases (of the first one that declares it; MONAI Label numbers each label on
    its own, elsewhere all cases agree).
    """

    name: str
    folder: Path
    cases: tuple[CollectionCase, ...]
    structures: Mapping[str, Values]
    intensity: IntensitySettings | None = None

    def open(self, case: CollectionCase) -> tuple[Study, np.ndarray]:
        """The image, and (Z, h, w) uint8 labels on its slices. StudyError when they cannot be read together."""
        study = read_study(case.image_path, intensity=self.intensity)
        return study, study.read_label(case.label_path)

    @staticmethod
    def mask(case: CollectionCase, labels: np.ndarray, structure: str) -> np.ndarray:
        """bool, where ``labels`` hold the structure; False everywhere when the case does not declare it."""
        return np.isin(labels, case.structures.get(structure, ()))

    def groups(self) -> dict[str, list[CollectionCase]]:
        """Group -> its cases, in the order of the cases."""
        groups: dict[str, list[CollectionCase]] = {}
        for case in self.cases:
            groups.setdefault(case.group, []).append(case)
        return groups


def read_collection(
    folder: str | Path,
    *,
    structures: Mapping[str, Sequence[int]] | str | None = None,
    groups_from: str | Path | None = None,
    intensity: IntensitySettings | None = None,
) -> Collection:
    """Finds the cases of ``folder`` and what their labels hold; images are opened only by ``Collection.open``.

    structures: name -> label values, or the same as text (``disc=1+2,cup=2``); without it the names come from the label
    info (MONAI Label), else from ``dataset.json``, else they are ``label_<value>`` for every value found. A structure
    may be the union of several values, and structures may overlap. groups_from: another groups.csv.
    intensity: as for ``read_study``.

    StudyError for a folder in none of the layouts, a label without its image, two images of one name, a case that
    groups.csv leaves out, and names or labels that cannot be understood.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; expected one with {LAYOUTS}")
    found = _find(folder)
    if not found:
        raise StudyError(f"{folder}: no labelled image found; expected {LAYOUTS}")
    if isinstance(structures, Mapping):
        structures = {name: list(values) for name, values in structures.items()}
    declared = _declare(folder, found, structures)
    beside = (place / GROUPS for place in (folder, found[0].image.parent))
    groups_file = Path(groups_from) if groups_from else next((file for file in beside if file.is_file()), None)
    groups = read_groups(groups_file) if groups_file else {}
    if missing := [pair.id for pair in found if groups_file and pair.id not in groups]:
        raise StudyError(f"{groups_file}: names no group for {len(missing)} cases, the first is {missing[0]!r}; add it")
    cases = tuple(
        CollectionCase(p.id, groups.get(p.id) or p.patient or _patient(p) or p.id, p.image, p.label, declared[p.id])
        for p in found
    )
    everything: dict[str, Values] = {}
    for case in cases:
        for name, values in case.structures.items():
            everything.setdefault(name, values)
    if not everything:
        raise StudyError(f"{folder}: nothing names a structure and no label holds a value above 0; paint one first")
    return Collection(folder.resolve().name, folder, cases, everything, intensity)


def structures_of(given: Sequence[str], names: Sequence[str]) -> dict[str, object]:
    """Collection -> what :func:`read_collection` takes as structures, for several folders that are called ``names``.

    given: ``disc=1+2,cup=2`` for all of them, ``eyes:disc=1+2`` for one, or a JSON file, by collection
    (``{"eyes": {"disc": [1, 2]}}``) or for all. ValueError for a folder that is not among them, and for such a file.
    """
    found: dict[str, object] = {}
    for text in given:
        if text.lower().endswith(".json"):
            try:
                content = json.loads(Path(text).read_text(encoding="utf-8"))
                by_collection = all(isinstance(value, dict) for value in content.values())
            except (OSError, ValueError, AttributeError) as error:
                raise ValueError(f"--structures {text}: {error}; expected a JSON object of names") from error
            found.update(
                {n: content[n] for n in names if n in content} if by_collection else dict.fromkeys(names, text)
            )
            continue
        collection, colon, rest = text.partition(":")
        if colon and collection not in names:
            raise ValueError(f"--structures {text}: no folder is called {collection!r}; {', '.join(names)} are")
        found.update({collection: rest} if colon else dict.fromkeys(names, text))
    return found


@dataclass(frozen=True)
class _Pair:
    """An image with its label. info: MONAI Label's, of the label. patient: as MONAI Label's index knows it."""

    id: str
    image: Path
    label: Path
    info: Mapping | None = None
    patient: str = ""


def _find(folder: Path) -> list[_Pair]:
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return _pairs(folder / "images", folder / "masks")
    if (folder / "imagesTr").is_dir() and (folder / "labelsTr").is_dir():
        return _pairs(folder / "imagesTr", folder / "labelsTr", channel="_0000")
    if (folder / "labels" / "final").is_dir():
        return _monai_label(folder)
    raise StudyError(f"{folder}: in none of the known layouts; expected {LAYOUTS}")


def _pairs(images: Path, labels: Path, channel: str = "") -> list[_Pair]:
    """By name. channel: nnU-Net's mark of the first channel, which the image may carry and the label does not."""
    known, pairs = _listed(images), []
    for id, label in _listed(labels).items():
        if id + channel not in known and id not in known:
            id = id.removesuffix(".seg")  # a.seg.nrrd, as 3D Slicer calls the segmentation of a.nrrd
        image = known.get(id + channel) or known.get(id)
        if image is None:
            raise StudyError(f"{label}: no image of this name in {images}; expected {id}{channel} with any suffix")
        pairs.append(_Pair(id, image, label))
    if channel and any(id.endswith("_0001") for id in known):
        logger.warning("%s: images have several channels; only the first one is used", images)
    return pairs


def _monai_label(folder: Path) -> list[_Pair]:
    """By MONAI Label's index where there is one (it knows label infos and patients), and by name."""
    index = folder / "datastore_v2.json"
    try:
        objects = json.loads(index.read_text(encoding="utf-8"))["objects"] if index.is_file() else {}
        entries = {id: (entry["image"].get("info") or {}, entry["labels"]) for id, entry in objects.items()}
        infos = {id: (labels.get("final") or {}).get("info") for id, (_, labels) in entries.items()}
        patients = {id: str(image.get("PatientID") or "") for id, (image, _) in entries.items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise StudyError(f"{index}: is not MONAI Label's index ({error!r}); restore it, or take it away") from error
    pairs = _pairs(folder, folder / "labels" / "final")
    return [_Pair(p.id, p.image, p.label, infos.get(p.id), patients.get(p.id, "")) for p in pairs]


def _listed(folder: Path) -> dict[str, Path]:
    """Id -> image file, or folder with one DICOM series; hidden files and those of other kinds are passed over."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = suffix_of(path)
        is_image = suffix in _SUFFIXES or (path.is_file() and has_dicom_magic(path))
        if path.is_dir():
            suffix, is_image = "", path.name != "labels" and any(map(has_dicom_magic, path.iterdir()))
        if path.name.startswith(".") or not is_image:
            continue
        id = path.name[: len(path.name) - len(suffix)] if suffix in _SUFFIXES else path.name
        if id in found:
            raise StudyError(f"{path}: {found[id].name} has the same name; expected one image for each case")
        found[id] = path
    return found


def _declare(folder: Path, pairs: Sequence[_Pair], given: Mapping | str | None) -> dict[str, dict[str, Values]]:
    """Case id -> structure -> values, from the first source that names any; see :func:`read_collection`."""
    named = folder / "dataset.json"
    named = named if named.is_file() else None
    known_each = any(p.info or names_itself(p.label) for p in pairs)
    if (given and parse_labels(given)[0]) or (named and not known_each):
        named = None if given and parse_labels(given)[0] else named  # values given by hand: nothing else counts
        names = _sorted(declared_structures(folder, dataset_json=named, conf_labels=given, values=()))
        return dict.fromkeys((p.id for p in pairs), names)
    own = {p.id: read_label_map(read_raster(p.image), p.label).names for p in pairs if names_itself(p.label)}
    values = {p.id: _label_values(p.label) if p.id not in own else set() for p in pairs}
    if not known_each:
        names = {f"label_{value}": (value,) for value in sorted(set().union(*values.values()))}
        return dict.fromkeys((p.id for p in pairs), names)
    return {
        p.id: _sorted(
            declared_structures(
                p.label,
                label_info=p.info,
                segment_names=own.get(p.id),
                dataset_json=named,
                conf_labels=given,
                values=values[p.id],
            ),
        )
        for p in pairs
    }


def _sorted(names: Mapping[str, set[int]]) -> dict[str, Values]:
    return {name: tuple(sorted(values)) for name, values in names.items()}


def _label_values(label: Path) -> set[int]:
    return {int(v) for v in np.unique(as_labels(label, read_raster(label, indices=True).voxels))} - {0}


def _patient(pair: _Pair) -> str | None:
    """From the DICOM tags; other files do not know it."""
    if pair.image.is_dir() or has_dicom_magic(pair.image):
        return patient_of(read_study(pair.image))
    return None
