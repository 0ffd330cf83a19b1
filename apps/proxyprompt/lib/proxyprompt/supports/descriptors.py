"""Descriptors for retrieval: which labelled slice looks like the target?

They come from a frozen ``atto`` encoder at 256 pixels, whatever foundation serves: it is cheap, and fine-tuning does
not invalidate the index. A descriptor holds, of the embedding grid, the mean and the spread over all positions (what
kind of image is this?) and the means of its four quarters (how is it laid out?).
"""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from proxyprompt.foundation.base import Foundation
from proxyprompt.io.cache import ContentCache, content_key

if TYPE_CHECKING:
    from proxyprompt.io.study import Study

logger = logging.getLogger(__name__)

_LAYOUT = "mean+std+2x2/1"  # part of every key: change it when describe() changes
_BATCH = 8  # slices encoded at once: bounds memory
_ROWS = "rows"
_KNOWN = "known"


@torch.no_grad()
def describe(foundation: Foundation, images: NDArray[np.float32] | Tensor) -> Tensor:
    """Descriptors of images of one size. Positions that hold only padding count nowhere.

    Args:
        foundation: the encoder.
        images: (n, 3, h, w) in [0, 1].

    Returns:
        (n, 6 C) float32, of length 1: mean (C), standard deviation (C) and the means of the four quarters (4 C) of the
        embedding grid, each of the three parts of equal length beforehand.

    Raises:
        ValueError: for another shape.
    """
    images = torch.as_tensor(np.asarray(images), dtype=torch.float32)
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"describe takes images (n, 3, h, w), got shape {tuple(images.shape)}")
    device = next((p.device for p in foundation.parameters()), torch.device("cpu"))
    prepared, geometry = foundation.preprocess(images.to(device))
    embedding = foundation.encode(prepared).embedding.float()
    padding = foundation.padding(geometry, len(images), embedding.device)
    weight = torch.ones_like(embedding[:, :1]) if padding is None else (~padding).float().unsqueeze(1)
    mean, spread = _moments(embedding, weight)
    rows, columns = embedding.shape[-2] // 2, embedding.shape[-1] // 2
    quarters = [
        _moments(embedding[..., y, x], weight[..., y, x])[0]
        for y in (slice(None, rows), slice(rows, None))
        for x in (slice(None, columns), slice(columns, None))
    ]
    parts = (mean, spread, torch.cat(quarters, dim=1))
    return F.normalize(torch.cat([F.normalize(p, dim=1) for p in parts], dim=1), dim=1).cpu()


def _moments(embedding: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation over the grid, (B, C) each."""
    total = weight.sum((-2, -1)).clamp_min(1e-6)
    mean = (embedding * weight).sum((-2, -1)) / total
    variance = ((embedding - mean[..., None, None]).square() * weight).sum((-2, -1)) / total
    return mean, variance.clamp_min(1e-12).sqrt()


class DescriptorIndex:
    """Descriptors of studies, computed once per content and kept in the cache.

    One cache entry per study holds the rows known so far; slices that nobody asked for cost nothing.

    Args:
        foundation: a frozen encoder in eval mode, or a function that builds it, called at first need.
        cache: where descriptors are kept.
    """

    def __init__(self, foundation: Foundation | Callable[[], Foundation], cache: ContentCache) -> None:
        self._given = foundation
        self._foundation = foundation if isinstance(foundation, Foundation) else None
        self._cache = cache
        self._building = threading.Lock()
        self._encoding = threading.Lock()  # few cores: one batch at a time, so that a request waits for one at most
        self._merging = threading.Lock()
        self._unhashed = uuid.uuid4().hex  # random weights have no hash: their descriptors are never found again
        self._worker: _Worker | None = None

    @property
    def foundation(self) -> Foundation:
        """The encoder, built at first need."""
        with self._building:
            if self._foundation is None:
                self._foundation = self._given().eval()
            return self._foundation

    def key(self, content_hash: str) -> str:
        """Under which the cache keeps the descriptors of a study.

        Args:
            content_hash: of the study.

        Returns:
            A content key.
        """
        encoder = self.foundation
        weights = encoder.weights_sha256 or self._unhashed
        return content_key("descriptors", _LAYOUT, encoder.name, weights, encoder.image_size, content_hash)

    def of(self, study: Study, indices: Sequence[int] | None = None, *, tags: Iterable[str] = ()) -> Tensor:
        """Descriptors of slices, computed where they are not yet known.

        Args:
            study: whose slices.
            indices: of the slices; None for all.
            tags: more tags for the cache entry.

        Returns:
            (len(indices), d).

        Raises:
            IndexError: for a slice that the study does not have.
        """
        wanted = list(range(len(study))) if indices is None else [int(i) for i in indices]
        bad = [i for i in wanted if not 0 <= i < len(study)]
        if bad:
            raise IndexError(f"slices {bad} asked of a study with {len(study)} slices")
        rows = self.known(study.content_hash, wanted)
        if rows is not None:
            return rows
        key = self.key(study.content_hash)
        entry = self._cache.get(key)
        known = entry.tensors[_KNOWN] if entry else torch.zeros(len(study), dtype=torch.bool)
        missing = [i for i in dict.fromkeys(wanted) if not known[i]]
        made = []
        for start in range(0, len(missing), _BATCH):
            images = study.images(missing[start : start + _BATCH])
            with self._encoding:
                made.append(describe(self.foundation, images))
        with self._merging:  # somebody else may have added rows to the same study meanwhile
            entry = self._cache.get(key)
            known = entry.tensors[_KNOWN].clone() if entry else torch.zeros(len(study), dtype=torch.bool)
            rows = entry.tensors[_ROWS].clone() if entry else torch.zeros(len(study), 6 * self.foundation.dim)
            if missing:
                rows[missing] = torch.cat(made)
                known[missing] = True
                kept = frozenset() if entry is None else entry.tags
                self._cache.put(key, {_ROWS: rows, _KNOWN: known}, tags=kept.union({study.content_hash}, tags))
        return rows[wanted]

    def known(self, content_hash: str, indices: Sequence[int]) -> Tensor | None:
        """Descriptors of slices without the study.

        Args:
            content_hash: of the study.
            indices: of the slices.

        Returns:
            (len(indices), d) if all of them are indexed already, else None.
        """
        entry = self._cache.get(self.key(content_hash))
        if entry is None or not len(indices) or not bool(entry.tensors[_KNOWN][list(indices)].all()):
            return None
        return entry.tensors[_ROWS][list(indices)]

    def mean(self, content_hash: str) -> NDArray[np.float32] | None:
        """The mean descriptor of a study.

        Args:
            content_hash: of the study.

        Returns:
            (d,), over the slices that are indexed already; None where there is none.
        """
        entry = self._cache.get(self.key(content_hash))
        if entry is None or not bool(entry.tensors[_KNOWN].any()):
            return None
        return entry.tensors[_ROWS][entry.tensors[_KNOWN]].mean(dim=0).numpy()

    # background

    def index_in_background(self, jobs: Mapping[str, Callable[[], object]]) -> None:
        """Run jobs one after the other in a single daemon thread.

        A later call adds its jobs behind those that wait, each only once. A job that fails is logged and skipped.

        Args:
            jobs: id of a study -> what brings it into the index.
        """
        if self._worker is None or not self._worker.alive():
            self._worker = _Worker()
        self._worker.add(jobs)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the background has nothing left.

        Args:
            timeout: seconds; None for ever.

        Returns:
            False if it still has something after that time.
        """
        return self._worker is None or self._worker.idle.wait(timeout)

    def stop(self, timeout: float = 30.0) -> None:
        """End the background thread after the job it is at.

        Args:
            timeout: seconds that this waits for it.
        """
        if self._worker is not None:
            self._worker.stop(timeout)
            self._worker = None


class _Worker:
    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[str, Callable[[], object]] | None] = queue.SimpleQueue()
        self._lock, self._waiting = threading.Lock(), set[str]()
        self._stopping = False
        self._done = self._total = 0
        self.idle = threading.Event()
        self.idle.set()
        self._thread = threading.Thread(target=self._run, name="descriptor-index", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        return self._thread.is_alive() and not self._stopping

    def add(self, jobs: Mapping[str, Callable[[], object]]) -> None:
        with self._lock:
            new = {key: job for key, job in jobs.items() if key not in self._waiting}
            self._waiting.update(new)
            if self._done == self._total:
                self._done = self._total = 0
            self._total += len(new)
            if new:
                self.idle.clear()
        for key_and_job in new.items():
            self._jobs.put(key_and_job)

    def stop(self, timeout: float) -> None:
        self._stopping = True
        self._jobs.put(None)
        self._thread.join(timeout)
        self.idle.set()

    def _run(self) -> None:
        while (taken := self._jobs.get()) is not None and not self._stopping:
            key, job = taken
            try:
                job()
            except Exception as error:  # one bad study must not end the index; whoever asks for it gets the error
                logger.warning("could not index a study: %s", error)
            with self._lock:
                self._waiting.discard(key)
                self._done += 1
                if self._done == self._total or self._done % 10 == 0:
                    logger.info("indexed %d/%d studies", self._done, self._total)
                if self._done == self._total:
                    self.idle.set()
