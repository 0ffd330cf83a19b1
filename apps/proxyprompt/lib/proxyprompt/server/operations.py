"""What a server needs to be run by others: bounds, figures, a log, and what readiness depends on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from monailabel.interfaces.datastore import Datastore

from .limits import RequestBounds
from .metrics import Metrics
from .observe import Check
from .request_log import RequestLog

LEAST_FREE = 200 << 20
"""Bytes of disk below which a server is not ready: a label, a version and the list of studies must find room."""


@dataclass(frozen=True)
class Operations:
    """Of one server.

    Attributes:
        bounds: what clients may send.
        metrics: figures.
        log: of requests.
        checks: of readiness, by name.
    """

    bounds: RequestBounds
    metrics: Metrics
    log: RequestLog
    checks: Mapping[str, Check]


def readiness(*, datastore: Datastore, folder: Path, versions: Callable[[], list[str]]) -> dict[str, Check]:
    """What a server needs so that requests can be answered.

    Args:
        datastore: of the studies; one on an archive is asked what it lists.
        folder: where the server keeps its own things.
        versions: of the model; raises when the weights are gone.

    Returns:
        Name -> what says why it is not so.
    """

    def studies() -> str | None:
        datastore.list_images()
        return None

    def disk() -> str | None:
        if not os.access(folder, os.W_OK):
            return f"{folder} cannot be written to: labels and versions would be lost"
        free = shutil.disk_usage(folder).free
        return None if free >= LEAST_FREE else f"{free >> 20} MB are free at {folder}; make room"

    def model() -> str | None:
        return None if versions() else "there is no version to serve"

    return {"studies": studies, "disk": disk, "model": model}
