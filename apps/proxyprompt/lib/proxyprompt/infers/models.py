"""The served models: one immutable segmenter per adapter version, built when first asked for."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from proxyprompt.predictor.adapters import AdapterError
from proxyprompt.predictor.segmenter import Segmenter

logger = logging.getLogger(__name__)

MAX_KEPT = 2


class Models:
    """Segmenters by adapter version.

    ``build`` makes the segmenter of a version, ``versions`` lists what there is at this moment, the one to serve first:
    a version that is published while the server runs serves the next request. Requests keep the one they got for as
    long as they run; nothing about it ever changes, so any number of them may share it. At most two stay here: another
    version takes the place of the one that was asked for least recently. A build that fails is tried again at the next
    request, so that weights put in place meanwhile are found.

    ``default``: a version that the operator chose to serve whatever is published.
    """

    def __init__(
        self, build: Callable[[str], Segmenter], versions: Callable[[], list[str]], default: str | None = None
    ) -> None:
        self._build = build
        self._versions = versions
        self._default = default
        self._kept: OrderedDict[str, Segmenter] = OrderedDict()
        self._lock = threading.Lock()
        self._building: dict[str, threading.Lock] = {}

    def versions(self) -> list[str]:
        """The versions on offer, the one that serves by default first."""
        versions = list(self._versions())
        if self._default is None:
            return versions
        return [self._default, *(v for v in versions if v != self._default)]

    def get(self, version: str | None = None) -> Segmenter:
        """The segmenter of a version; for None, of the one that serves. Two requests at once build it once.

        A damaged file must not end the service: where nobody chose the version, the next one serves.
        """
        chosen = version or self._default
        if chosen is not None:
            return self._get(chosen)
        *published, shipped = self.versions()
        for newest in published:
            try:
                return self._get(newest)
            except AdapterError as error:
                logger.error("%s cannot be served, an older version is: %s", newest, error)
        return self._get(shipped)

    def _get(self, version: str) -> Segmenter:
        with self._lock:
            turn = self._building.setdefault(version, threading.Lock())
        with turn:
            with self._lock:
                if version in self._kept:
                    self._kept.move_to_end(version)
                    return self._kept[version]
            segmenter = self._build(version).eval().requires_grad_(False)
            logger.info("serving %s, weights %s", segmenter.version, segmenter.weights_sha256[:12])
            with self._lock:
                self._kept[version] = segmenter
                while len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
            return segmenter
