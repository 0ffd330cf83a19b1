"""What a worker does: prepare the supports once, then segment one study after the other."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from proxyprompt.io.raster import PLAIN_IMAGES, suffix_of
from proxyprompt.predictor.proxy_prompt_predictor import ProxyPromptPredictor

from .folder import BatchFolder
from .plan import BatchPlan
from .queue import BatchItem

if TYPE_CHECKING:
    from proxyprompt.datastores.archive import Archive

CACHE_BYTES = 256 << 20
"""For the supports; what is computed of a study is not asked for again."""


class StudySegmenter:
    """Segments studies by the supports of a plan. One study at a time.

    Args:
        plan: what to do.

    Raises:
        StudyError: for a support that cannot be used.
        ValueError: for a foundation that there is not.
        WeightsError: for weights that cannot be loaded.
    """

    def __init__(self, plan: BatchPlan) -> None:
        self._plan, self._folder = plan, BatchFolder(Path(plan.out))
        self._predictor = ProxyPromptPredictor.from_pretrained(
            plan.foundation,
            weights_dir=plan.weights_dir,
            adapter=plan.adapter,
            image_size=plan.image_size,
            device=plan.device,
            paper=plan.paper,
            cache_bytes=CACHE_BYTES,
        )
        images, masks = zip(*plan.supports, strict=True)
        self._predictor.set_support(list(images), list(masks), list(plan.names))

    def __call__(self, item: BatchItem) -> str:
        """Segment one study; its result appears whole, and once.

        Args:
            item: the study.

        Returns:
            The name of the result's file.

        Raises:
            StudyError: for a study that cannot be used.
        """
        with tempfile.TemporaryDirectory(prefix="batch-") as scratch:
            path = self._fetched(item, Path(scratch)) if self._plan.archive else Path(item.source)
            prediction = self._predictor.predict_volume(path)
            suffix = self._plan.suffix or _usual_suffix(path, single=prediction.label_map.ndim == 2)
            return self._folder.put(item.id, suffix, prediction.save).name

    def _fetched(self, item: BatchItem, folder: Path) -> Path:
        study, series = item.source.split("/")
        self._archive.fetch_series(study, series, folder / series)
        return folder / series

    @cached_property
    def _archive(self) -> Archive:
        from proxyprompt.datastores.dicomweb import open_archive

        return open_archive(self._plan.archive).archive


def _usual_suffix(path: Path, *, single: bool) -> str:
    return ".png" if single and suffix_of(path) in PLAIN_IMAGES else ".nii.gz"
