"""The served models: one immutable segmenter per adapter version, built when first asked for."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable

from lib.segmenter import Segmenter

logger = logging.getLogger(__name__)

MAX_KEPT = 2


class Models:
    """Segmenters by adapter version.

    ``build`` makes the segmenter of a version. Requests keep the one they got for as long as they run; nothing about it
    ever changes, so any number of them may share it. At most two stay here: another version takes the place of the one
    that was asked for least recently. A build that fails is tried again at the next request, so that weights put in
    place meanwhile are found.
    """

    def __init__(
        self, build: Callable[[str], Segmenter], versions: Callable[[], list[str]], default: str | None = None
    ):
        self._build = build
        self._versions = versions
        self._default = default
        self._kept: OrderedDict[str, Segmenter] = OrderedDict()
        self._lock = threading.Lock()
        self._building: dict[str, threading.Lock] = {}

    def versions(self) -> list[str]:
        """The versions on offer, the one that serves by default first."""
        versions = list(self._versions())
        if self._default in versions:
            versions.remove(self._default)
            versions.insert(0, self._default)
        return versions

    def get(self, version: str | None = None) -> Segmenter:
        """The segmenter of a version; of the default one for None. Two requests at once build it once."""
        version = version or self._default or self.versions()[0]
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
