"""Choosing support slices for a target: from the whole library (``auto``), or from studies that the user named.

Decisions, where the paper says nothing (the arithmetic is in :mod:`proxyprompt.supports.ranking`):

- ``auto`` considers labelled slices of the target's plane, of the target's modality where such have the structure, on
  which the structure is more than a sliver (a twentieth of its largest area in that study; slivers only if there is
  nothing else). It never considers the target, nor a study with the same pixels under another id. A study of the same
  patient may serve and is flagged. A label that leave-one-out found bad serves all the same, and the answer says so,
  until a person decides to leave it out; then it serves only if there is nothing else.
- ``auto`` draws a structure only where a labelled study that shows it fits the target: see
  :mod:`proxyprompt.supports.fit`. One that was asked for by name is drawn from what there is. Supports that were named
  are taken as they are.
- Each structure gets ``count`` slices. A slice on which several of the structures lie serves all of them, so structures
  that are labelled together share one set. Where they are not, the set grows, up to twice ``count``, and beyond that
  only so that every structure has one slice.
- All structures of a request go through the network together; ``valid`` says which study declares which of them.
- Without names of structures, the request is for those that the ``count`` most similar slices declare: in a folder of
  mixed studies an ultrasound target is not asked for vessels.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from monailabel.interfaces.datastore import Datastore
from numpy.typing import NDArray
from torch import Tensor

from proxyprompt.datastores.notes import QUALITY, read_note
from proxyprompt.io.cache import ContentCache, Entry, content_key
from proxyprompt.io.errors import StudyError
from proxyprompt.io.groups import patient_of
from proxyprompt.io.intensity import IntensitySettings
from proxyprompt.io.labels import StructureRegistry
from proxyprompt.io.study import Study

from .candidates import Candidates, best_slices, choose_slices, misfit, same_modality, usable_slices
from .corrections import CORRECTED, Corrections
from .descriptors import DescriptorIndex
from .library import Catalogue, LabelledStudy
from .ranking import evenly
from .selection import NoSupport, Selection, SupportError, SupportSlice

__all__ = ["AUTO", "LabelledStudy", "NoSupport", "Selection", "SupportError", "SupportLibrary", "SupportSlice"]

logger = logging.getLogger(__name__)

AUTO = "auto"
TARGET_SLICES = 16
"""Slices of a volume target that are described: bounds the cost of a request."""
FOREGROUND_SLICES = 64
"""Candidates described within one request while the background index is not ready; others wait for it."""
_OPEN_STUDIES = 4


class SupportLibrary:
    """The labelled studies of a datastore as supports. Thread safe.

    Args:
        datastore: as for :class:`proxyprompt.supports.library.Catalogue`.
        registry: names of structures.
        descriptors: say which slices resemble the target.
        cache: keeps what is read.
        intensity: as for ``read_study``.
        conf_labels: as for ``declared_structures``.
    """

    def __init__(
        self,
        datastore: Datastore,
        registry: StructureRegistry,
        *,
        descriptors: DescriptorIndex,
        cache: ContentCache,
        intensity: IntensitySettings | None = None,
        conf_labels: Mapping[str, object] | str | None = None,
    ) -> None:
        self.catalogue = Catalogue(
            datastore,
            registry,
            cache=cache,
            intensity=intensity,
            conf_labels=conf_labels,
        )
        self._descriptors, self._cache = descriptors, cache
        self._opened: OrderedDict[str, tuple[object, Study]] = OrderedDict()
        self._lock = threading.Lock()

    def ids(self) -> list[str]:
        """Labelled studies that can serve as support; cheap while the files do not change."""
        return list(self.catalogue.studies())

    def structures(self) -> list[str]:
        """The structures that the labelled studies declare, in the order of their registry ids."""
        names = {name for study in self.catalogue.studies().values() for name in study.structures}
        return sorted(names, key=self.catalogue.registry.id_of)

    def names(self) -> dict[str, str]:
        """What people call labelled studies, by id, where the id says nothing."""
        return {study_id: name for study_id in self.ids() if (name := self.catalogue.name_of(study_id))}

    def studies(self) -> dict[str, LabelledStudy]:
        """The labelled studies that can serve as support, by id."""
        return self.catalogue.studies()

    def flagged(self, study_id: str) -> tuple[str, ...]:
        """Structures whose label is flagged as a bad support; a changed label is no longer flagged.

        Args:
            study_id: of the labelled study.

        Returns:
            Their names.
        """
        note = read_note(self.catalogue.datastore, study_id, QUALITY)
        study = self.catalogue.studies().get(study_id) if note.get("flagged") else None
        return tuple(note["flagged"]) if study is not None and note.get("label") == study.label_hash else ()

    def left_out(self, study_id: str) -> str:
        """Why a person has left a flagged label out of the supports.

        Args:
            study_id: of the labelled study.

        Returns:
            Words for people; "" where nobody has.
        """
        flags = self.flagged(study_id)
        decision = read_note(self.catalogue.datastore, study_id, QUALITY).get("decision") if flags else None
        if not isinstance(decision, Mapping) or not decision.get("leave_out"):
            return ""
        by = f" by {decision['by']}" if decision.get("by") else ""
        return f"its label of {', '.join(flags)} is flagged as bad, and was left out{by} at {decision.get('time')}"

    def describe(self, content_hash: str) -> NDArray[np.float32] | None:
        """The mean descriptor of a study.

        Args:
            content_hash: of the study.

        Returns:
            (d,) over the slices that are indexed; None for a study of which none is.
        """
        return self._descriptors.mean(content_hash)

    def refresh(self) -> None:
        """Look for changes, also on a remote server, and purge what came from labels that changed."""
        self.catalogue.refresh(remote=True)

    def open(self, image_id: str) -> Study:
        """Read an image of the datastore, labelled or not, with the library's settings.

        A few stay open, as long as their files do not change: clicks, and the background, ask for one several times.

        Args:
            image_id: in the datastore.

        Returns:
            The study.

        Raises:
            StudyError: when it cannot be used.
        """
        stamp = self.catalogue.stamp(image_id)
        with self._lock:
            if image_id in self._opened and self._opened[image_id][0] == stamp:
                self._opened.move_to_end(image_id)
                return self._opened[image_id][1]
        study = self.catalogue.open(image_id)
        with self._lock:
            self._opened[image_id] = stamp, study
            self._opened.move_to_end(image_id)
            while len(self._opened) > _OPEN_STUDIES:
                self._opened.popitem(last=False)
        return study

    def group_of(self, image_id: str, study: Study) -> str | None:
        """Who an image belongs to.

        Args:
            image_id: in the datastore; "" for one that is not.
            study: the image.

        Returns:
            Patient or case; None when nothing is known.
        """
        return self.catalogue.group_of(image_id, patient_of(study))

    def index_in_background(self) -> None:
        """Start to describe every labelled study that is not indexed yet; returns at once."""
        jobs = {}
        for study in self.catalogue.studies().values():
            wanted = usable_slices(study)
            if wanted and self._descriptors.known(study.content_hash, wanted) is None:
                jobs[study.id] = partial(self._index, study, wanted)
        self._descriptors.index_in_background(jobs)

    def choose(
        self,
        target: Study,
        target_id: str,
        structures: Sequence[str] | None = None,
        *,
        support: str | Sequence[str] = AUTO,
        count: int = 4,
    ) -> Selection:
        """Choose and read the support slices for a target; the module's text says how.

        Args:
            target: what is to be segmented.
            target_id: its id in the datastore.
            structures: names (or aliases), or None for those that suit the target.
            support: ``auto``, the id of a labelled study, or several.
            count: slices for each structure.

        Returns:
            The supports, read and ready.

        Raises:
            SupportError: when there is no labelled study, a named one does not exist, is not labelled, is the target,
                cannot be read, or holds nothing of the structure, and when no study holds it.
            NoSupport: for ``auto``, where there simply is none.
        """
        if count < 1:
            raise SupportError(f"the number of supports must be 1 or more, got {count}")
        library = self.catalogue.studies(remote=True)
        names = None if structures is None else list(dict.fromkeys(self._known(s) for s in structures))
        if names == []:
            raise SupportError("no structure asked for; name at least one, or none at all for those that suit")
        left_out: dict[str, str] = {}
        if support == AUTO:
            pool, left_out = self._auto(library, target, target_id, names)
        else:
            pool = self._named([support] if isinstance(support, str) else list(support), target, target_id, names)
        candidates, waiting = self._candidates(pool, target, names, hurry=support == AUTO)
        if names is None:
            names = self._suiting(candidates, count if support == AUTO else len(candidates.slices))
        unlike = {name: why for name in names if (why := candidates.unlike(name, target))}
        if support == AUTO and structures is None:
            names = self._fitting(names, unlike)
        chosen = choose_slices(candidates, names, count)
        selection = self._read(candidates, chosen, names, group=self.group_of(target_id, target), waiting=waiting)
        return replace(selection, unlike=unlike, left_out=left_out)

    def corrections(self, image_id: str, study: Study, indices: Sequence[int]) -> Corrections:
        """Slices of a study that a person painted, from its label with the tag :data:`CORRECTED`.

        Args:
            image_id: in the datastore.
            study: the image.
            indices: of the slices that are right; none for none.

        Returns:
            The masks of all structures that the label declares, on these slices.

        Raises:
            SupportError: when there is no such label, or no such slice.
        """
        if not indices:
            return {}
        found = self.catalogue.labelled(image_id, CORRECTED)
        if found is None:
            raise SupportError(
                f"slices {list(indices)} of {image_id!r} are said to be corrected, but it has no label with the tag "
                f"{CORRECTED!r}: store what was painted under that tag first"
            )
        if wrong := [index for index in indices if not 0 <= index < len(study)]:
            raise SupportError(
                f"slices {wrong} are said to be corrected; {image_id!r} has slices 0 to {len(study) - 1}"
            )
        labels = study.read_label(found.label_path)
        return {i: {name: found.mask(labels[i], name) for name in found.structures} for i in dict.fromkeys(indices)}

    # which studies

    def _known(self, structure: str) -> str:
        """The registry's name for a structure; an error that lists the structures on offer when it has none."""
        registry = self.catalogue.registry
        try:
            return registry.name_of(registry.id_of(structure))
        except StudyError:
            raise SupportError(f"unknown structure {structure!r}; on offer: {_listed(self.structures())}") from None

    def _auto(
        self, library: Mapping[str, LabelledStudy], target: Study, target_id: str, names: Sequence[str] | None
    ) -> tuple[list[LabelledStudy], dict[str, str]]:
        """Those that may serve, and those that a person has left out of them, with the reason."""
        others = [s for s in library.values() if s.id != target_id and s.content_hash != target.content_hash]
        if not others:
            problems = self.catalogue.problems()
            hint = "".join(f"; {i}: {why}" for i, why in list(problems.items())[:3])
            what = "no labelled study other than the target itself" if library else "no labelled study that can be used"
            raise NoSupport(f"{what}: label and submit (tag final) at least one study{hint}")
        same_plane = [s for s in others if s.plane == target.plane]
        if not same_plane:
            raise NoSupport(
                f"the target is {target.plane}, the labelled studies are {_listed(sorted({s.plane for s in others}))}; "
                "label one of the same plane, or name a support to use it all the same"
            )
        for name in names or ():
            if not any(name in s.present() for s in same_plane):
                offer = sorted({n for s in same_plane for n in s.present()})
                raise NoSupport(f"no other {target.plane} study has {name!r} labelled; on offer: {_listed(offer)}")
        pool = [s for s in same_plane if set(s.present()).intersection(names or s.present())]
        for asked in (_same_modality_as(target), lambda s: not misfit(target, s)):
            fitting = [s for s in pool if asked(s)]
            pool = fitting if _enough(fitting, names) else pool
        reasons = {s.id: self.left_out(s.id) for s in pool if set(self.flagged(s.id)) & set(names or s.present())}
        out = {study_id: why for study_id, why in reasons.items() if why}
        trusted = [s for s in pool if s.id not in out]
        return (trusted, out) if _enough(trusted, names) else (pool, {})

    def _named(
        self, ids: Sequence[str], target: Study, target_id: str, names: Sequence[str] | None
    ) -> list[LabelledStudy]:
        library, problems = self.catalogue.studies(), self.catalogue.problems()
        pool = []
        for study_id in dict.fromkeys(ids):
            if study_id in problems:
                raise SupportError(f"support {study_id!r} cannot be used: {problems[study_id]}")
            if study_id not in library:
                exists = study_id in self.catalogue.image_ids()
                what = "has no final label" if exists else "does not exist"
                raise SupportError(f"support {study_id!r} {what}; labelled studies: {_listed(list(library))}")
            study = library[study_id]
            if study_id == target_id or study.content_hash == target.content_hash:
                raise SupportError(f"support {study_id!r} is the target itself; name another labelled study")
            if not study.present():
                raise SupportError(f"the label of support {study_id!r} is empty; name another labelled study")
            if names is not None and not set(names) & set(study.present()):
                raise SupportError(
                    f"support {study_id!r} has an empty mask of {_listed(names)}; it has: {_listed(study.present())}"
                )
            if study.plane != target.plane:
                logger.warning("support %s is %s, the target %s is %s", study_id, study.plane, target_id, target.plane)
            pool.append(study)
        if not pool:
            raise SupportError(
                f"no support named; name a labelled study or {AUTO!r}; labelled: {_listed(list(library))}"
            )
        for name in names or ():
            if not any(name in s.present() for s in pool):
                offer = sorted({n for s in pool for n in s.present()})
                raise SupportError(f"the named supports have an empty mask of {name!r}; they have: {_listed(offer)}")
        return pool

    # which slices

    def _candidates(
        self, pool: Sequence[LabelledStudy], target: Study, names: Sequence[str] | None, *, hurry: bool
    ) -> tuple[Candidates, int]:
        """Describes the target and the studies; with ``hurry``, only until about FOREGROUND_SLICES are known.

        Every structure gets a candidate all the same. Returns the number of studies left out, too.
        """
        found: set[str] = set()
        slices: list[tuple[LabelledStudy, int]] = []
        rows: list[Tensor] = []
        waiting: list[tuple[LabelledStudy, list[int]]] = []
        for study in pool:
            wanted = usable_slices(study, names)
            known = self._descriptors.known(study.content_hash, wanted)
            if known is None:
                waiting.append((study, wanted))
            else:
                found.update(study.present())
                slices += [(study, i) for i in wanted]
                rows.append(known)
        budget = max(0, FOREGROUND_SLICES - len(slices)) if hurry else sum(len(wanted) for _, wanted in waiting)
        late = 0
        for position, (study, wanted) in enumerate(waiting):
            share = math.ceil(budget / (len(waiting) - position))
            first = best_slices(study, [n for n in names or study.present() if n not in found] if share == 0 else names)
            part = first + evenly([i for i in wanted if i not in first], max(0, share - len(first)))
            if not part:
                late += 1
                continue
            found.update(study.present())
            budget = max(0, budget - len(part))
            rows.append(self._descriptors.of(self._study(study), part, tags=study.tags))
            slices += [(study, i) for i in part]
        if hurry and waiting:
            self.index_in_background()
        described = self._descriptors.of(target, evenly(range(len(target)), TARGET_SLICES))
        return Candidates.of(slices, described.numpy(), torch.cat(rows).numpy()), late

    def _suiting(self, candidates: Candidates, count: int) -> list[str]:
        """The structures declared by the studies of the ``count`` most similar slices, in registry order."""
        nearest = np.argsort(-candidates.scores, kind="stable")[:count]
        near = {s.id: s for s, _ in (candidates.slices[i] for i in nearest)}
        names = {n for s in near.values() for n in s.present() if candidates.holds[n].any()}
        return sorted(names, key=self.catalogue.registry.id_of)

    def _fitting(self, names: Sequence[str], unlike: Mapping[str, str]) -> list[str]:
        """Those of the structures that suit which a fitting study shows; NoSupport where there is none."""
        fitting = [name for name in names if name not in unlike]
        if fitting:
            return fitting
        reasons = "; ".join(f"{name}: {why}" for name, why in unlike.items())
        raise NoSupport(
            f"nothing was drawn, since no labelled study fits this image ({reasons}); label one like it, or name a "
            "structure or a support to use what there is all the same"
        )

    # reading

    def _index(self, study: LabelledStudy, indices: Sequence[int]) -> None:
        self._descriptors.of(self._study(study), indices, tags=study.tags)

    def _study(self, study: LabelledStudy) -> Study:
        opened = self.open(study.id)
        if opened.content_hash != study.content_hash:
            raise SupportError(f"support {study.id!r} changed while it was read; ask again")
        return opened

    def _slices(self, study: LabelledStudy, indices: Sequence[int]) -> list[Entry]:
        """The image (3, h, w) and labels (h, w) uint8 of each slice; a study that was read before is not opened."""
        labels = cache(lambda: self._study(study).read_label(study.label_path))

        def read(index: int) -> Entry:
            opened = self._study(study)
            image, label = opened.image(index), np.ascontiguousarray(labels()[index])
            tensors = {"image": torch.from_numpy(image), "labels": torch.from_numpy(label)}
            return Entry(tensors, {"slice_hash": opened.slice_hash(index)})

        keys = [content_key("support slice/1", study.content_hash, study.label_hash, i) for i in indices]
        return [
            self._cache.get_or_compute(key, study.tags, partial(read, i)) for key, i in zip(keys, indices, strict=True)
        ]

    def _read(
        self, candidates: Candidates, chosen: Sequence[int], names: Sequence[str], *, group: str | None, waiting: int
    ) -> Selection:
        picked = [candidates.slices[i] for i in chosen]
        read: dict[tuple[str, int], Entry] = {}
        for study in {s.id: s for s, _ in picked}.values():
            indices = [i for s, i in picked if s.id == study.id]
            read.update({(study.id, i): e for i, e in zip(indices, self._slices(study, indices), strict=True)})
        slices, images, masks = [], [], []
        for similarity, (study, index) in zip(candidates.probability()[list(chosen)], picked, strict=True):
            entry = read[study.id, index]
            same = group is not None and study.group == group
            key = str(entry.meta["slice_hash"])
            slices.append(SupportSlice(study.id, index, float(similarity), same, key, study.tags))
            images.append(entry.tensors["image"].numpy())
            labels = entry.tensors["labels"].numpy()
            masks.append(np.stack([study.mask(labels, name) for name in names]))
        valid = np.array([[name in study.structures for name in names] for study, _ in picked])
        return Selection(
            tuple(slices),
            tuple(names),
            images,
            masks,
            valid,
            slice_presence={study.id: study.slice_presence(names) for study, _ in picked if study.kind == "volume"},
            skipped=self.catalogue.problems(),
            indexing=waiting,
        )


def _enough(pool: Sequence[LabelledStudy], names: Sequence[str] | None) -> bool:
    """Whether there is any study, and every structure that was asked for in one of them."""
    return bool(pool) and all(any(name in s.present() for s in pool) for name in names or ())


def _same_modality_as(target: Study) -> Callable[[LabelledStudy], bool]:
    """Whether a labelled study may be of the target's modality."""
    return lambda study: same_modality(study.modality, target.modality)


def _listed(names: Sequence[str], at_most: int = 20) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
