"""Segment many studies in one request, also where there is no GPU, and where some of them cannot be segmented."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import MONAILabelException
from monailabel.interfaces.tasks.batch_infer import BatchInferTask

from proxyprompt.errors import in_task_process

logger = logging.getLogger(__name__)


class BatchInfer(BatchInferTask):
    """Segments many studies, and goes on after one that cannot be segmented.

    MONAI Label's own ends at the first such study, and deals the images out to the GPUs by default and divides by their
    number, be it zero.
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
        if not torch.cuda.is_available():
            request = {**request, "multi_gpu": False, "device": "cpu"}
        failed: dict[str, str] = {}

        def attempt(request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
            try:
                return infer(request, datastore)
            except MONAILabelException as error:
                failed[request["image"]] = error.msg
                logger.warning("%s was not segmented: %s", request["image"], error.msg)
                return {"error": error.msg}

        done = super().__call__(request, datastore, attempt)
        if failed:
            named = "; ".join(f"{image}: {failed[image]}" for image in sorted(failed))
            message = f"{len(failed)} of {len(done)} studies were not segmented, the others were: {named}"
            logger.warning(message)
            if in_task_process():
                raise SystemExit(message)
        return done
