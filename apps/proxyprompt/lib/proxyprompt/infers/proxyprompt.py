"""The infer task ``proxyprompt``: labelled studies of the datastore segment another one."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from numpy.typing import NDArray

from proxyprompt.errors import as_monailabel, refuse
from proxyprompt.extensions import ALL, PAPER
from proxyprompt.foundation import CheckpointError
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.errors import StudyError
from proxyprompt.io.labels import merge
from proxyprompt.io.study import Study, read_study
from proxyprompt.predictor.latency import Latencies
from proxyprompt.predictor.masks import Masks
from proxyprompt.predictor.pipeline import Pipeline
from proxyprompt.predictor.segmenter import Segmenter
from proxyprompt.requests.options import Choices, Options, drop_downs, parse_options
from proxyprompt.requests.safety import check_id
from proxyprompt.session.proposals import Proposal, Proposals
from proxyprompt.settings import AUTO, SLICE_BY_SLICE
from proxyprompt.supports.corrections import Corrections
from proxyprompt.supports.selection import NoSupport, Selection
from proxyprompt.supports.support import SupportLibrary

from .models import Models

logger = logging.getLogger(__name__)

DISCLAIMER = "Research use only, not a medical device."


class ProxyPromptInfer(InferTask):
    """In-context segmentation. Holds nothing of a request: any number of threads may call it at once."""

    kind = InferType.SEGMENTATION
    purpose = "Segments a study as labelled studies show it."

    def __init__(
        self,
        *,
        models: Models,
        library: SupportLibrary,
        cache: ContentCache,
        proposals: Proposals,
        supports: int = 4,
        paper: bool = False,
    ) -> None:
        super().__init__(
            type=self.kind,
            labels=None,
            dimension=3,
            description=f"{self.purpose} {DISCLAIMER}",
        )
        self._models, self._library, self._cache, self._supports = models, library, cache, supports
        self._proposals, self._paper = proposals, paper

    def _options(self, request: Mapping[str, Any], *, agreement: bool = True) -> Options:
        if request.get("label_tag") is not None:
            check_id(request["label_tag"], "label tag")
        return parse_options(
            request,
            adapters=self._models.versions(),
            count=self._supports,
            agreement=agreement,
            everywhere=self._paper,
            mode=SLICE_BY_SLICE if self._paper else AUTO,
        )

    def is_valid(self) -> bool:
        """Always."""
        return True

    def info(self) -> dict[str, Any]:
        """As for every task.

        Returns:
            ``labels`` are the structures known at this moment, with the ids that results carry; ``names`` what people
            call the labelled studies, where an id says nothing.
        """
        return {
            **super().info(),
            "labels": {s.name: s.id for s in self._library.catalogue.registry.structures()},
            "names": self._library.names(),
        }

    def config(self) -> dict[str, Any]:
        """The options with their drop-downs, as the datastore stands at this moment.

        Never fails over the weights: a viewer that cannot connect cannot be told what is wrong with them.
        """
        try:
            adapters = self._models.versions()
        except CheckpointError as error:
            logger.error("no adapter version can be offered: %s", error)
            adapters = []
        return drop_downs(
            Choices(
                supports=self._library.ids(),
                structures=self._library.structures(),
                adapters=adapters,
                count=self._supports,
            )
        )

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment one study.

        request["image"]: the id of an image of the datastore, or a Path to a file that the server itself took in.
        Returns the path of a label file on the study's own grid, which belongs to the caller, and the answer's JSON.
        Raises MONAILabelException, always with a message for the user.
        """
        latencies = Latencies()
        with as_monailabel("segmentation", StudyError), self._library.catalogue.one_look(remote=True):
            options = self._options(request)
            segmenter = self._models.get(options.adapter)
            image = request["image"]
            with latencies.of("read"):
                study = self._read(image)
            with latencies.of("support"):
                corrections = self._corrections(study, image, options)
                selection = self._choose_or_own(study, image, options, corrections)
            pipeline = self._pipeline(segmenter, latencies)
            masks = self._segment(pipeline, study, selection, options, corrections)
            with latencies.of("write"):
                registry = self._library.catalogue.registry
                labels = merge({name: masks.gated(n) for n, name in enumerate(selection.structures)}, registry)
                path = self._write(study, labels, options)
            answer = self._answer(segmenter, study, [(selection, masks)], labels)
            answer["corrected"] = sorted(corrections)
            self._propose(image, study, labels, answer)
            answer["latencies"] = latencies.report()
            logger.info("%s: %s in %s", image, ", ".join(selection.structures), answer["latencies"])
            return str(path), answer

    def disagreement(self, request: Mapping[str, Any], index: int) -> bytes:
        """Where on a slice the supports of a request, each by itself, draw different things.

        Args:
            request: as for a segmentation.
            index: of the slice, in the order of a DICOM series.

        Returns:
            One byte a pixel of the slice, its rows and columns as the series has them, from 0 (all agree) to 255 (half
            of them draw it).

        Raises:
            MONAILabelException: as for a segmentation, for a slice that does not exist, and where there are not two
                supports of one structure.
        """
        with as_monailabel("comparing the supports", StudyError):
            options = self._options(request)
            study = self._read(request["image"])
            own, _, _ = study.locate((0, 0, index))
            selection = self._choose(study, request["image"], options, options.structures)
            pipeline = self._pipeline(self._models.get(options.adapter), Latencies())
            found = pipeline.disagreement(study, selection, own)
            if found is None:
                raise refuse("there is one support only, which cannot disagree; pick two, or let the server choose")
            values = np.zeros((len(study), *study.slice_shape), np.uint8)
            values[own] = (255 * found).round().astype(np.uint8)
            grid = study.to_grid(values)
            return grid.reshape(-1, *grid.shape[-2:])[index].tobytes()

    def _pipeline(self, segmenter: Segmenter, latencies: Latencies) -> Pipeline:
        return Pipeline(segmenter, self._cache, latencies, extensions=PAPER if self._paper else ALL)

    def _choose(self, study: Study, image: str | Path, options: Options, structures: Sequence[str] | None) -> Selection:
        return self._library.choose(
            study,
            "" if isinstance(image, Path) else image,
            structures,
            support=options.support if isinstance(options.support, str) else list(options.support),
            count=options.count,
        )

    @staticmethod
    def _segment(
        pipeline: Pipeline, study: Study, selection: Selection, options: Options, corrections: Corrections
    ) -> Masks:
        return pipeline.run(
            study,
            selection,
            agreement=options.agreement,
            everywhere=options.everywhere,
            corrections=corrections,
            mode=options.mode,
            clean=options.clean,
        )

    def _corrections(self, study: Study, image: str | Path, options: Options) -> Corrections:
        if isinstance(image, Path) and options.corrected:
            raise refuse("corrected slices belong to a study of the datastore; this request brings its own file")
        return {} if isinstance(image, Path) else self._library.corrections(image, study, options.corrected)

    def _choose_or_own(self, study: Study, image: str | Path, options: Options, corrections: Corrections) -> Selection:
        """The supports; none where no other study is labelled, but slices of this one are."""
        try:
            return self._choose(study, image, options, options.structures)
        except NoSupport:
            painted = dict.fromkeys(name for masks in corrections.values() for name in masks)
            names = [name for name in options.structures or painted if name in painted]
            if not names:
                raise
            return Selection.empty(names)

    def _propose(self, image: str | Path, study: Study, labels: NDArray[np.uint8], answer: Mapping[str, Any]) -> None:
        """Kept until a label comes in, to tell what was changed of it."""
        if isinstance(image, Path):
            return
        made_by = {
            "supports": list(dict.fromkeys(used["id"] for used in answer["supports"])),
            "adapter": answer["adapter"],
            "weights_sha256": answer["weights_sha256"],
        }
        self._proposals.keep(image, Proposal(labels, answer["label_names"], made_by, study.content_hash))

    def _read(self, image: str | Path) -> Study:
        if isinstance(image, Path):
            return read_study(image, intensity=self._library.catalogue.intensity)
        return self._library.open(image)

    @staticmethod
    def _write(study: Study, labels: NDArray[np.uint8], options: Options) -> Path:
        extension = options.extension or (
            ".png" if study.kind == "image" and _is_plain_image(study.path) else ".nii.gz"
        )
        handle, path = tempfile.mkstemp(suffix=extension, prefix="proxyprompt-")
        os.close(handle)
        try:
            return study.write_label(labels, path)
        except BaseException:
            Path(path).unlink()
            raise

    def _answer(
        self,
        segmenter: Segmenter,
        study: Study,
        parts: Sequence[tuple[Selection, Masks]],
        labels: NDArray[np.uint8],
        names: Collection[str] = (),
    ) -> dict[str, Any]:
        """The JSON beside the label map.

        Args:
            segmenter: that made it.
            study: the target.
            parts: what was segmented together, with the supports that it came from.
            labels: the label map.
            names: the structures that it holds; none for all.
        """
        registry = self._library.catalogue.registry
        structures: dict[str, dict[str, Any]] = {}
        supports: list[dict[str, Any]] = []
        skipped: dict[str, str] = {}
        not_drawn: dict[str, str] = {}
        left_out: dict[str, str] = {}
        for selection, masks in parts:
            for n, name in enumerate(selection.structures):
                if not names or name in names:
                    structures[name] = self._found(registry.id_of(name), n, masks, labels)
            report = selection.report()
            supports += [used for used in report["supports"] if used not in supports]
            skipped |= report["skipped"]
            not_drawn |= report["not_drawn"]
            left_out |= report["left_out"]
        return {
            "label_names": {name: found["id"] for name, found in structures.items()},
            "structures": structures,
            "supports": supports,
            "skipped": skipped,
            "not_drawn": not_drawn,
            "left_out": left_out,
            "supports_fit": all(selection.fits for selection, _ in parts),
            "still_indexing": max((selection.indexing for selection, _ in parts), default=0),
            **({"instances": study.instances} if study.instances else {}),
            "mode": parts[0][1].mode,
            "foundation": segmenter.foundation.name,
            "adapter": segmenter.version,
            "weights_sha256": segmenter.weights_sha256,
            "warnings": self._warnings(segmenter, study, [selection for selection, _ in parts], supports),
            "disclaimer": DISCLAIMER,
        }

    @staticmethod
    def _found(id: int, n: int, masks: Masks, labels: NDArray[np.uint8]) -> dict[str, Any]:
        """What is said of the n-th structure of ``masks``."""
        agreement = masks.agreement[n]
        return {
            "id": id,
            "presence_max": round(float(masks.presence[:, n].max()), 4),
            "presence_mean": round(float(masks.presence[:, n].mean()), 4),
            "slices": int(masks.present()[:, n].sum()),
            "slices_searched": int(masks.searched()[:, n].sum()),
            "voxels": int((labels == id).sum()),
            "agreement": None if agreement is None else round(agreement, 4),
            "pieces": masks.sides[n] ** 2 if masks.sides else 1,
        }

    def _warnings(
        self, segmenter: Segmenter, study: Study, selections: Sequence[Selection], supports: Sequence[Mapping[str, Any]]
    ) -> list[str]:
        said = list(study.warnings)
        if not segmenter.trained:
            said.append("the proxy prompt generator is untrained: these masks mean nothing; train on labelled studies")
        if any(s.same_group for selection in selections for s in selection.slices):
            said.append(
                "a support is of the same patient or case as the target: do not judge the method by this result"
            )
        labelled = self._library.catalogue.studies()
        for name in dict.fromkeys(used["id"] for used in supports):
            said += [f"support {name}: {text}" for text in (labelled[name].notes if name in labelled else ())]
            if flags := self._library.flagged(name):
                said.append(f"support {name}: its label of {', '.join(flags)} is flagged as bad: check it")
        for selection in selections:
            for structure, why in selection.unlike.items():
                drawn = structure in selection.structures
                said.append(f"{structure} {'was asked for, but' if drawn else 'is not drawn:'} {why}")
            said += [f"support {study} was not used: {why}" for study, why in selection.left_out.items()]
        if indexing := max((selection.indexing for selection in selections), default=0):
            said.append(f"{indexing} labelled studies were not indexed yet and could not be chosen")
        skipped = {name: why for selection in selections for name, why in selection.skipped.items()}
        said += [f"labelled study {name} cannot be used: {why}" for name, why in skipped.items()]
        return said


def _is_plain_image(path: Path) -> bool:
    return Path(path).suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".ppm")
