"""What a request for training, scoring or batch inference may say.

MONAI Label passes such requests, as they are, to a process of its own: what is wrong with them shows up there, long
after the answer, and a ``bundle_path`` would be put on that process's import path. So they are checked here first.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.tasks.batch_infer import BatchInferImageType
from monailabel.utils.async_tasks.task import AsyncTask

from proxyprompt.datastores.noted import check_json
from proxyprompt.errors import refuse
from proxyprompt.requests.options import flag
from proxyprompt.requests.safety import check_id, image_path
from proxyprompt.trainers.proxyprompt import ProxyPromptTrain

WAITED_SECONDS = 60.0

_GPUS = re.compile(r"all|\d+(,\d+)*")


def check_request(app: MONAILabelApp, method: str, request: Mapping[str, Any]) -> None:
    """``method``: train, scoring or batch_infer. Raises MONAILabelException (bad input, or an image not found)."""
    tasks = {"train": app._trainers, "scoring": app._scoring_methods, "batch_infer": app._infers}[method]
    wanted = request.get("method" if method == "scoring" else "model")
    if wanted is not None and (not isinstance(wanted, str) or wanted not in tasks):
        raise refuse(f"there is no {wanted!r} for {method}; valid: {', '.join(tasks) or 'none in this app'}")
    if not isinstance(model := request.get("model", ""), str | None):  # MONAI Label looks it up for scoring, too
        raise refuse(f"model {model!r} is not a name")
    if "bundle_path" in request:
        raise refuse("unknown option 'bundle_path': this app runs no bundles")
    if not _GPUS.fullmatch(str(request.get("gpus") or "all")):
        raise refuse(f"gpus {request['gpus']!r} is neither all nor numbers with commas between them")
    check_json(request)
    _no_paths(request)
    if method == "batch_infer":
        _check_batch(request)
    if isinstance(task := tasks.get(wanted), ProxyPromptTrain):
        task.parse(request)
    if request.get("label_tag"):
        check_id(request["label_tag"], "label tag")
    images = request.get("images")
    if isinstance(images, list):
        for image in images:
            image_path(app.datastore(), image)
    elif images is not None and images not in [kind.value for kind in BatchInferImageType]:
        raise refuse(f"images {images!r} is none of all, labeled, unlabeled, nor a list of ids")


def _check_batch(request: Mapping[str, Any]) -> None:
    """The options of MONAI Label's batch inference, which it computes with as they come."""
    for name in ("max_workers", "max_batch_size"):
        value = request.get(name)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise refuse(f"{name} {value!r} is not a whole number from 0")
    devices = request.get("device")
    if not all(isinstance(each, str) for each in (devices if isinstance(devices, list) else [devices or ""])):
        raise refuse(f"device {devices!r} is not a name such as cpu or cuda:0")
    flag("multi_gpu", request.get("multi_gpu"), True)


def _no_paths(value: Any) -> None:
    """No option of such a request is a path, so nothing in it may look like one."""
    if isinstance(value, str) and (value in (".", "..") or any(sign in value for sign in "/\\\0")):
        raise refuse(f"{value!r} is a path; no option of a training, scoring or batch request takes one")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _no_paths(key)
            _no_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            _no_paths(inner)


def install_checks(app: MONAILabelApp) -> None:
    """Put the check in front of MONAI Label's own start of background tasks.

    A scoring that somebody waits for (``run_sync``) answers after ``WAITED_SECONDS`` unless the request says otherwise,
    with what is left to do, and is the only one: more of them would do the same work.
    """
    start, waited_for = AsyncTask.run, threading.Lock()

    def run(
        method: str,
        request: dict[str, Any] | None = None,
        params: dict[str, Any] | None = None,
        *rest: Any,
        **options: Any,
    ) -> Any:
        check_request(app, method, {**(request or {}), **(params or {})})
        if method != "scoring" or not options.get("force_sync"):
            return start(method, request, params, *rest, **options)
        if not waited_for.acquire(blocking=False):
            return None, "somebody waits for a scoring already; ask again when it is done, or without run_sync"
        try:
            return start(method, request, {"seconds": WAITED_SECONDS, **(params or {})}, *rest, **options)
        finally:
            waited_for.release()

    AsyncTask.run = staticmethod(run)
