"""From slice to slice: what the neighbours of a slice, or of a frame of a clip, say of it.

Two ways, both after every slice has been segmented by itself:

- *neighbours*: each slice's logits are averaged with those of the slices beside it, which count little: more would
  blur what is drawn well already. For any foundation;
- *propagation* through a memory of frames, for foundations that have one (SAM 2, ``atto``): from the corrected
  slices, or from the slice that the model is surest of, in both directions. Memory attention reads the conditioning
  slices and the last ones before, as in SAM 2; what it finds is mixed with what the proxy prompt finds on the slice,
  and then neighbours are averaged as well. What is kept of a sequence is bounded, however long it is.

What each brings, and which one ``auto`` stands for: docs/volumes.md.

Axes: ``Z`` slices, ``N`` structures, ``s`` the side of the decoder's masks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from proxyprompt.foundation.base import Decoded, Features, Foundation, FrameMemory, MemoryBank, Prompts, no_clicks

from .latency import Latencies

WEIGHTS = (1, 4, 1)
"""What the slice before, the slice itself and the one after count."""
SHARE = 1 / 3
"""Of the memory, in the mixture with the proxy prompt."""
RECENT = 6
"""Slices before the present one that are remembered: all that SAM 2 has places for."""
CONDITIONING = 4
"""Corrected slices that are remembered on each slice: the nearest ones."""
UNSURE = 1e-4
"""Probabilities of presence nearer to 0 or 1 become this one's logit."""


def with_neighbours(values: Tensor) -> Tensor:
    """Weighted mean of each slice and those beside it; beyond the ends, the first and the last one count again.

    Args:
        values: (Z, ...), logits or probabilities, of neighbouring slices.

    Returns:
        (Z, ...) of the same type.
    """
    reach, last = len(WEIGHTS) // 2, len(values) - 1
    mixed = torch.empty_like(values)
    for z in range(len(values)):  # one slice at a time: a volume's are many
        beside = (weight * values[min(max(z + n - reach, 0), last)].float() for n, weight in enumerate(WEIGHTS))
        mixed[z] = sum(beside) / sum(WEIGHTS)
    return mixed


def surest(logits: Tensor, presence: Tensor) -> int:
    """The slice to begin with: the soft overlap of a mask with its own probabilities, where the structure is.

    Args:
        logits: (Z, N, s, s).
        presence: (Z, N) probabilities.

    Returns:
        Its index.
    """
    sure = []
    for each, there in zip(logits, presence, strict=True):  # one slice at a time: a volume's are many
        soft = each.float().sigmoid()
        both = (soft * (soft > 0.5)).sum((1, 2))
        sure.append((both / (soft.sum((1, 2)) + (soft > 0.5).sum((1, 2)) - both + 1e-6) * there).mean())
    return int(torch.stack(sure).argmax())


class Propagation:
    """The memory of one sequence of slices.

    Args:
        foundation: that remembers.
        features: of one slice, by its place in the sequence; encoded once and kept by whoever gives them.
        logits: (Z, N, s, s), of each slice by itself.
        presence: (Z, N) probabilities.
        latencies: where the time goes.
    """

    def __init__(
        self,
        foundation: Foundation,
        features: Callable[[int], Features],
        logits: Tensor,
        presence: Tensor,
        latencies: Latencies,
    ) -> None:
        self._foundation, self._features, self._latencies = foundation, features, latencies
        self._logits, self._presence = logits, presence

    def run(self, known: Sequence[int], advance: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        """Go through the sequence.

        Args:
            known: places of slices whose masks a person made; none for the surest one.
            advance: is told how many slices are done; what it raises ends the run.

        Returns:
            Logits (Z, N, s, s) and presence (Z, N); those of the slices to begin with are as they were.
        """
        logits, presence = self._logits.clone(), self._presence.clone()
        begin = sorted(known) or [surest(logits, presence)]
        conditioning = {z: self._condition(z) for z in begin}
        done = len(begin)
        for way in _ways(begin, len(logits)):
            recent: deque[tuple[int, FrameMemory]] = deque(maxlen=RECENT)
            for z in way:
                advance(done)
                features = self._features(z)
                bank = _bank(z, conditioning, recent)
                with self._latencies.of("decode"):
                    nothing = no_clicks(1, logits.shape[1], features.embedding.device)
                    decoded = self._foundation.decode(features, Prompts(points=nothing), bank)
                    logits[z] = self._logits[z].lerp(decoded.mask_logits[0].to(logits), SHARE)
                    presence[z] = self._presence[z].lerp(decoded.presence_logit[0].sigmoid().to(presence), SHARE)
                    recent.append((z, self._remember(features, logits[z], presence[z], decoded)))
                done += 1
        advance(done)
        return logits, presence

    def _condition(self, z: int) -> FrameMemory:
        """What a slice whose masks are given leaves in the memory, as in training: decoded from these masks."""
        features, logits = self._features(z), self._logits[z]
        with self._latencies.of("decode"):
            decoded = self._foundation.decode(features, Prompts(masks=logits[None].to(features.embedding)))
            return self._remember(features, logits, self._presence[z], decoded)

    def _remember(self, features: Features, logits: Tensor, presence: Tensor, decoded: Decoded) -> FrameMemory:
        there = presence.float().clamp(UNSURE, 1 - UNSURE).logit()
        decoded = replace(decoded, presence_logit=there[None].to(features.embedding))
        return self._foundation.remember_frame(features, logits[None].to(features.embedding), decoded)


def _ways(begin: Sequence[int], count: int) -> Iterator[range]:
    """From each slice to begin with, which lie in order, forward and backward to halfway to the next one."""
    halfway = [(one + other + 1) // 2 for one, other in pairwise(begin)]
    for start, low, high in zip(begin, [0, *halfway], [*halfway, count], strict=True):
        yield range(start + 1, high)
        yield range(start - 1, low - 1, -1)


def _bank(z: int, conditioning: Mapping[int, FrameMemory], recent: Sequence[tuple[int, FrameMemory]]) -> MemoryBank:
    nearest = sorted(conditioning, key=lambda other: abs(z - other))[:CONDITIONING]
    frames = [(other, conditioning[other]) for other in nearest] + list(recent)
    return MemoryBank(
        tuple(frame for _, frame in frames),
        tuple(min(abs(z - other), RECENT) for other, _ in frames),
        (True,) * len(nearest) + (False,) * len(recent),
    )
