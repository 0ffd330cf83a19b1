"""Segment many studies in one request, also where there is no GPU, and where some of them cannot be segmented."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from proxyprompt.batch.queue import DONE, BatchAnswer, BatchItem, run_batch
from proxyprompt.batch.workers import ThreadWorkers
from proxyprompt.errors import in_task_process

logger = logging.getLogger(__name__)


class BatchInfer(BatchInferTask):
    """Segments many studies, and goes on after one that cannot be segmented, as scripts/segment.py does.

    MONAI Label's own ends at the first such study, or hides it, and deals the images out to the GPUs by default and
    divides by their number, be it zero.
    """

    def __call__(self, request: dict[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
        """Segment each study for itself.

        Args:
            request: MONAI Label's, see :func:`proxyprompt.server.background.check_request`.
            datastore: of the studies.
            infer: segments one study, as :meth:`MONAILabelApp.infer` does.

        Returns:
            id -> what ``infer`` returned, or {"error": why it could not}.

        Raises:
            SystemExit: in a process of its own, whose last words and status users see: when any study failed, after all
                have had their turn.
        """
        images = sorted(self.get_images(request, datastore))
        most = request.get("max_batch_size") or len(images)
        devices = _devices(request)
        items = [
            BatchItem(image, options={"device": devices[n % len(devices)]}) for n, image in enumerate(images[:most])
        ]

        def segment(item: BatchItem) -> dict[str, Any]:
            options = {"image": item.id, "save_label": True, **(item.options or {})}
            options["label_tag"] = request.get("label_tag") or DefaultLabelTag.ORIGINAL
            done = dict(infer({**request, **options}, datastore))
            if file := done.pop("file", None):  # stored as a label by now
                with suppress(OSError):
                    Path(file).unlink()
            return done

        count = max(1, min(request.get("max_workers") or (os.cpu_count() or 1) // 4, os.cpu_count() or 1))
        with ThreadWorkers(segment, count, refusals=(MONAILabelException,)) as workers:
            answers = run_batch(items, workers, attempts=1, note=lambda answer: _say(answer, len(items)))
        failed = {id: answer.message for id, answer in sorted(answers.items()) if answer.status != DONE}
        if failed:
            named = "; ".join(f"{image}: {why}" for image, why in failed.items())
            message = f"{len(failed)} of {len(items)} studies were not segmented, the others were: {named}"
            logger.warning(message)
            if in_task_process():
                raise SystemExit(message)
        return {image: {"error": failed[image]} if image in failed else answers[image].value for image in images[:most]}


def _devices(request: Mapping[str, Any]) -> list[str]:
    """Those that the studies are dealt out to."""
    if not torch.cuda.is_available():
        return ["cpu"]
    if not request.get("multi_gpu", True):
        given = request.get("device") or "cuda"
        return list(given) if isinstance(given, list) else [str(given)]
    gpus = request.get("gpus") or "all"
    numbers = range(torch.cuda.device_count()) if gpus == "all" else str(gpus).split(",")
    return [f"cuda:{number}" for number in numbers]


def _say(answer: BatchAnswer, total: int) -> None:
    if answer.status == DONE:
        logger.info("%s: segmented in %.1f s, one of %d", answer.item.id, answer.seconds, total)
    else:
        logger.warning("%s was not segmented: %s", answer.item.id, answer.message)
