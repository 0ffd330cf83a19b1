"""The labelled studies of a MONAI Label datastore: which there are, and on which slices what is labelled.

``MONAILabelApp.info()`` asks at every request, so a study whose files did not change (path, modification time, size)
costs a few ``stat`` calls. What a label holds is read once per content and kept in the cache, also over restarts.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from numpy.typing import NDArray

from proxyprompt.datastores.shared import SharedDatastore
from proxyprompt.io.cache import ContentCache, Entry, content_key
from proxyprompt.io.errors import StudyError
from proxyprompt.io.files import file_hash
from proxyprompt.io.groups import GROUPS, patient_of, read_groups
from proxyprompt.io.intensity import IntensitySettings
from proxyprompt.io.labels import StructureRegistry, declared_structures, find_dataset_json
from proxyprompt.io.study import UNKNOWN, Study, read_study

from .fit import ABOUT
from .slice_positions import SlicePresence

logger = logging.getLogger(__name__)

_FACTS = "label facts/4"  # part of the key: change it when what is kept of a label changes
_FINAL = DefaultLabelTag.FINAL.value
_DATE = re.compile(r"^(\d{4})(\d\d)(\d\d)$")  # as DICOM writes it
NOTE = "proxyprompt"
"""Under this key the label info says how the label relates to what had been proposed
(:mod:`proxyprompt.session.proposals`)."""


@dataclass(frozen=True, eq=False)
class LabelledStudy:
    """A study with a final label.

    Attributes:
        id: in the datastore.
        image_path: of the image's file or folder.
        label_path: of the label's.
        structures: name -> label values it is the union of; declared, though maybe empty.
        group: patient or case; None when nothing is known.
        modality: see :class:`proxyprompt.io.study.Study`.
        plane: see :class:`proxyprompt.io.study.Study`.
        values: the V values that the label holds.
        areas: (Z, V) pixels of each value on each of the Z slices.
        content_hash: of the pixels (see ``Study.content_hash``).
        label_hash: sha256 of the label's file.
        image_hash: sha256 of the image's.
        accepted_unchanged: the label is what the model had proposed, voxel by voxel.
        kind: see :class:`proxyprompt.io.study.Study`.
        length: see :class:`proxyprompt.io.study.Study`.
        notes: what the user should know of the label, such as segments that overlap.
        about: DICOM tags that may say what the image shows (:data:`proxyprompt.supports.fit.ABOUT`).
    """

    id: str
    image_path: Path
    label_path: Path
    structures: Mapping[str, frozenset[int]]
    group: str | None
    modality: str
    plane: str
    values: tuple[int, ...]
    areas: NDArray[np.int64]
    content_hash: str
    label_hash: str
    image_hash: str
    accepted_unchanged: bool = False
    kind: str = "image"
    length: float | None = None
    notes: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.areas)

    @property
    def tags(self) -> frozenset[str]:
        """Everything cached that came from this study carries one of these, and goes when it changes."""
        return frozenset({self.content_hash, self.label_hash, self.image_hash})

    def area(self, structure: str) -> NDArray[np.int64]:
        """How much of a structure each slice shows.

        Args:
            structure: its name.

        Returns:
            (Z,) pixels; zeros when the study does not declare it.
        """
        columns = [i for i, value in enumerate(self.values) if value in self.structures.get(structure, ())]
        return self.areas[:, columns].sum(axis=1)

    @cached_property
    def _present(self) -> tuple[str, ...]:
        return tuple(name for name in self.structures if self.area(name).any())

    def present(self) -> list[str]:
        """The structures with at least one pixel."""
        return list(self._present)

    def slice_presence(self, structures: Sequence[str]) -> SlicePresence:
        """Where along the study structures lie.

        Args:
            structures: N names.

        Returns:
            The slices that show each of the N.
        """
        shown = np.stack([self.area(name) > 0 for name in structures], axis=1)
        return SlicePresence(shown, np.array([name in self.structures for name in structures]), self.length)

    def mask(self, labels: NDArray[np.integer[Any]], structure: str) -> NDArray[np.bool_]:
        """Where a label holds a structure.

        Args:
            labels: the label, or some slices of it.
            structure: its name.

        Returns:
            The mask, of the shape of ``labels``; False everywhere when the structure is not declared.
        """
        return np.isin(labels, sorted(self.structures.get(structure, ())))


class Catalogue:
    """Follows the final labels of a datastore. Thread safe.

    Beside the images may lie ``dataset.json`` (names of label values) and ``groups.csv`` (first column the image id,
    and a column ``group``).

    Args:
        datastore: any local one, or DICOMweb, whose labels are fetched by ``refresh(remote=True)``.
        registry: names of structures.
        cache: keeps what is read of labels.
        intensity: as for ``read_study``.
        conf_labels: as for ``declared_structures``.
    """

    def __init__(
        self,
        datastore: Datastore,
        registry: StructureRegistry,
        *,
        cache: ContentCache,
        intensity: IntensitySettings | None = None,
        conf_labels: Mapping[str, object] | str | None = None,
    ) -> None:
        self.datastore, self.registry, self.cache = datastore, registry, cache
        self.intensity, self.conf_labels = intensity, conf_labels
        self._lock, self._looked = threading.RLock(), threading.local()
        self._known: dict[str, tuple[object, LabelledStudy | str]] = {}

    def refresh(self, *, remote: bool = False) -> None:
        """Look at the files again, and purge from the cache what came from a label or image that is no more.

        Args:
            remote: also fetch the labels of a remote datastore.
        """
        with self._lock:
            if remote:
                self._fetch()
            before = self._tags()
            files = self._files()
            names = cache(find_dataset_json)  # the same few folders for all studies
            for gone in self._known.keys() - files.keys():
                del self._known[gone]
            for study_id, (image, label, info) in files.items():
                try:
                    named = names(label.parent / "label", image.parent)
                    stamp = (*map(_stamp, (image, label, named, _groups_beside(image))), str(info))
                except OSError:  # removed between listing and looking
                    self._known.pop(study_id, None)
                    continue
                if study_id in self._known and self._known[study_id][0] == stamp:
                    continue
                found: LabelledStudy | str
                try:
                    found = self._describe(study_id, image, label, info, named)
                except (ValueError, TypeError, KeyError, AttributeError) as error:  # its info may be edited by hand
                    found = str(error) if isinstance(error, StudyError) else f"{label.name} or its info: {error!r}"
                    logger.warning("labelled study %s cannot be used: %s", study_id, found)
                self._known[study_id] = (stamp, found)
            for tag in before - self._tags():
                self.cache.purge(tag)

    @contextmanager
    def one_look(self, *, remote: bool = False) -> Iterator[None]:
        """Within it, this thread gets the studies as they are now, however often it asks, for one look at the files.

        Args:
            remote: also fetch the labels of a remote datastore.

        Yields:
            While they stay so.
        """
        before = getattr(self._looked, "studies", None)
        self._looked.studies = self.studies(remote=remote)
        try:
            yield
        finally:
            self._looked.studies = before

    def studies(self, *, remote: bool = False) -> dict[str, LabelledStudy]:
        """The labelled studies that can be used.

        Args:
            remote: also fetch the labels of a remote datastore.

        Returns:
            By id, in the datastore's order.
        """
        if getattr(self._looked, "studies", None) is not None:
            return self._looked.studies
        with self._lock:
            self.refresh(remote=remote)
            return {i: found for i, (_, found) in self._known.items() if isinstance(found, LabelledStudy)}

    def problems(self) -> dict[str, str]:
        """Why labelled studies cannot be used, by id."""
        with self._lock:
            return {i: found for i, (_, found) in self._known.items() if isinstance(found, str)}

    def image_ids(self) -> list[str]:
        """All images of the datastore, labelled or not."""
        return list(self.datastore.list_images())

    def group_of(self, image_id: str, patient: str | None = None) -> str | None:
        """Who an image belongs to.

        Args:
            image_id: "" for an image that is not in the datastore.
            patient: what its file says, see :func:`patient_of`.

        Returns:
            The patient as the datastore knows it, or ``patient``, or what groups.csv says, or None.
        """
        if not image_id:  # a file that is not in the datastore
            return patient
        known = str(self.datastore.get_image_info(image_id).get("PatientID") or "")
        if known not in UNKNOWN:
            return known
        image = self.datastore.get_image_uri(image_id)
        return patient or (_read_groups(_groups_beside(Path(image))).get(image_id) if image else None)

    def name_of(self, image_id: str) -> str:
        """What people call an image.

        Args:
            image_id: in the datastore.

        Returns:
            Patient, modality, series and date as the datastore knows them; "" where it does not.
        """
        info = self.datastore.get_image_info(image_id)
        known = [str(info.get(tag) or "") for tag in ("PatientID", "Modality", "SeriesDescription")]
        known.append(_DATE.sub(r"\1-\2-\3", str(info.get("StudyDate") or "")))
        return " · ".join(text for text in known if text not in UNKNOWN)

    def open(self, image_id: str) -> Study:
        """Read any image of the datastore as the library reads its own, so that content hashes are comparable.

        Args:
            image_id: in the datastore.

        Returns:
            The study.

        Raises:
            StudyError: when it cannot be used.
        """
        return self._read(Path(self.datastore.get_image_uri(image_id)), image_id)

    def labelled(self, image_id: str, tag: str) -> LabelledStudy | None:
        """A study with its label of any tag.

        Args:
            image_id: in the datastore.
            tag: of the label.

        Returns:
            Both; None where there is no such label.

        Raises:
            StudyError: when one of them cannot be used.
        """
        label = self.datastore.get_label_uri(image_id, tag)
        if not label or not Path(label).exists():
            return None
        info = self.datastore.get_label_info(image_id, tag)
        return self._describe(image_id, Path(self.datastore.get_image_uri(image_id)), Path(label), info, None)

    def stamp(self, image_id: str) -> object:
        """What tells that an image's file, and what is known of it, are still the same.

        Args:
            image_id: in the datastore.

        Returns:
            Something that equals an earlier one as long as nothing changed.
        """
        return _stamp(Path(self.datastore.get_image_uri(image_id))), self._modality(image_id)

    # inside

    def _modality(self, image_id: str) -> str | None:
        return str(self.datastore.get_image_info(image_id).get("Modality") or "") or None

    def _read(self, path: Path, image_id: str) -> Study:
        return read_study(path, intensity=self.intensity, modality=self._modality(image_id))

    def _tags(self) -> set[str]:
        return {tag for _, found in self._known.values() if isinstance(found, LabelledStudy) for tag in found.tags}

    def _fetch(self) -> None:
        """Brings the labels of a remote datastore to this machine."""
        if isinstance(self.datastore, DICOMWebDatastore):
            self.datastore.datalist()

    def _files(self) -> dict[str, tuple[Path, Path, dict[str, Any]]]:
        """(image, label, label info) of every final label that lies on this machine, by id."""
        store, found = self.datastore, {}
        # DICOMweb overrides these with network calls; its local half answers at once.
        local = next((half for half in (SharedDatastore, LocalDatastore) if isinstance(store, half)), None)
        ids = local.get_labeled_images(store) if local else store.get_labeled_images(_FINAL)
        for image_id in list(ids):
            if local:
                kept = store.kept_image(image_id) if isinstance(store, SharedDatastore) else None
                image = kept or local.get_image_uri(store, image_id)
                label = local.get_label_uri(store, image_id, _FINAL)
            else:
                image, label = store.get_image_uri(image_id), store.get_label_uri(image_id, _FINAL)
            if image and label:
                info = store.get_label_info(image_id, _FINAL)
                found[image_id] = (Path(image), Path(label), info)
        return found

    def _describe(
        self, study_id: str, image: Path, label: Path, info: dict[str, Any], named: Path | None
    ) -> LabelledStudy:
        image_hash, label_hash = file_hash(image), file_hash(label)
        settings = asdict(self.intensity or IntensitySettings())
        modality = self.datastore.get_image_info(study_id).get("Modality")
        key = content_key(_FACTS, settings, str(modality), image_hash, label_hash)

        def read() -> Entry:
            study = self._read(image, study_id)
            found = study.read_label_map(label)
            labels = found.values
            values = [int(v) for v in np.unique(labels) if v]
            areas = np.stack([(labels == v).sum(axis=(1, 2)) for v in values], axis=1) if values else None
            areas = np.zeros((len(study), 0), np.int64) if areas is None else areas
            meta: dict[str, Any] = {
                "content": study.content_hash,
                "modality": study.modality,
                "plane": study.plane,
                "values": values,
            }
            meta |= {"patient": patient_of(study), "kind": study.kind, "length": study.length}
            meta["names"] = found.names and {name: sorted(members) for name, members in found.names.items()}
            meta["notes"] = list(found.notes)
            meta["about"] = {tag: study.tags[tag] for tag in ABOUT if tag in study.tags}
            for text in found.notes:
                logger.warning("%s: %s", label, text)
            tags = frozenset({study.content_hash})
            return Entry({"areas": torch.from_numpy(areas.astype(np.int64))}, meta, tags)

        facts = self.cache.get_or_compute(key, {image_hash, label_hash}, read)
        values: tuple[int, ...] = tuple(facts.meta["values"])
        declared = declared_structures(
            label,
            label_info=info,
            segment_names=facts.meta["names"],
            dataset_json=named,
            conf_labels=self.conf_labels,
            values=values,
        )
        structures: dict[str, frozenset[int]] = {}
        for name, members in declared.items():
            known = self.registry.name_of(self.registry.ensure(name))
            structures[known] = structures.get(known, frozenset()) | frozenset(members)
        return LabelledStudy(
            id=study_id,
            image_path=image,
            label_path=label,
            structures=structures,
            group=self.group_of(study_id, facts.meta["patient"]),
            modality=facts.meta["modality"],
            plane=facts.meta["plane"],
            values=values,
            areas=facts.tensors["areas"].numpy(),
            content_hash=facts.meta["content"],
            label_hash=label_hash,
            image_hash=image_hash,
            kind=facts.meta["kind"],
            length=facts.meta["length"],
            accepted_unchanged=_accepted(info, label_hash),
            notes=tuple(facts.meta["notes"]),
            about=facts.meta["about"],
        )


def _accepted(info: Mapping[str, Any], label_hash: str) -> bool:
    """What the note says, if it speaks of the file as it is now."""
    note = info.get(NOTE)
    return isinstance(note, Mapping) and bool(note.get("accepted_unchanged")) and note.get("label_sha256") == label_hash


def _stamp(path: Path | None) -> object:
    """What tells that a file, or a folder of files, is still the same; None where no file is given or there is none."""
    if path is None or not path.exists():
        return None
    if path.is_dir():
        return tuple(sorted((e.name, e.stat().st_mtime_ns, e.stat().st_size) for e in os.scandir(path)))
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


def _groups_beside(image: Path) -> Path:
    return image.parent / GROUPS


def _read_groups(path: Path) -> dict[str, str]:
    stamp = _stamp(path)
    return {} if stamp is None else _parse_groups(path, stamp)


@lru_cache(maxsize=4)
def _parse_groups(path: Path, stamp: object) -> dict[str, str]:
    """``stamp`` makes a changed file another call."""
    try:
        return read_groups(path)
    except StudyError as error:  # the studies can be used without; nobody is flagged as the same patient
        logger.warning("%s", error)
        return {}
