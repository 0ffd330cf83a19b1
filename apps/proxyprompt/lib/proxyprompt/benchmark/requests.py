"""Whole requests over what the foundation alone must do, and how they grow."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from proxyprompt.io.cache import ContentCache

from .measure import BenchmarkRow, Work, compare, give_back_freed_memory, peak_bytes, resident_bytes, seconds
from .scene import Scene, random_segmenter

PAIRS = 4
OVER_FLOOR = 1.35  # what a cached request is to take at most, as a multiple of its floor
SECONDS = 0.25  # and in seconds
ROUNDS = 3  # of what is aimed at: works of seconds seldom meet a quiet machine


def request_rows(
    name: str, folder: Path, device: torch.device, *, image_size: int | None, slices: int, budget: float
) -> Iterator[BenchmarkRow]:
    """One foundation: cached requests over its floor, support preparation, a training step, peak memory."""
    segmenter = random_segmenter(name, image_size, device)
    size = segmenter.foundation.image_size
    part = f"{name} at {size}"
    cache = ContentCache(None, memory_bytes=4 * 2**30, disk_bytes=0)
    for objects in (1, 3):
        scene = Scene(segmenter, folder, pairs=PAIRS, objects=objects, cache=cache)
        scene.request()
        whole, floor = compare(scene.request, scene.floor, budget=budget, rounds=ROUNDS)
        note = f"{whole:.2f} s against {floor:.2f} s, K={PAIRS}"
        yield BenchmarkRow(
            part, f"cached request over floor, N={objects}, 2-D", whole / floor, "x", OVER_FLOOR, note=note
        )
        if name == "atto" and objects == 1:
            yield BenchmarkRow(part, "cached request, N=1, 2-D", whole, "s", SECONDS, note=f"K={PAIRS}")
        volume = Scene(segmenter, folder, pairs=PAIRS, objects=objects, slices=slices, cache=cache)
        whole, floor = compare(volume.request, partial(_repeat, volume.floor, slices), budget=budget, rounds=ROUNDS)
        note = f"{whole / slices:.2f} s a slice against {floor / slices:.2f} s, {slices} slices, K={PAIRS}"
        yield BenchmarkRow(
            part, f"cached request over floor, N={objects}, a volume's slice", whole / floor, "x", OVER_FLOOR, note=note
        )
    scene, coloured = (
        Scene(segmenter, folder, pairs=PAIRS, objects=1, cache=cache, colour=colour) for colour in (False, True)
    )
    gray, colour = compare(scene.request, coloured.request, budget=budget, rounds=1)
    yield BenchmarkRow(
        part, "request of a colour image over a gray one", colour / gray, "x", note=f"{colour:.2f} s, {gray:.2f} s"
    )
    yield BenchmarkRow(part, "peak memory of a cached request, N=1", peak_bytes(scene.request) / 2**20, "MB")
    plain, checked = compare(scene.request, lambda: scene.request(agreement=True), budget=budget, rounds=1)
    note = f"{checked:.2f} s against {plain:.2f} s"
    yield BenchmarkRow(
        part, f"request with the agreement of {PAIRS} supports over without", checked / plain, "x", note=note
    )
    prepared, floor = compare(scene.prepare, scene.floor, budget=budget, rounds=1)
    note = f"{prepared:.2f} s against {floor:.2f} s, K={PAIRS}, N=1"
    yield BenchmarkRow(part, "support preparation over floor", prepared / floor, "x", note=note)
    scene = Scene(segmenter, folder, pairs=1, objects=1)
    stepped, floor = compare(scene.train_step, scene.floor, budget=budget, rounds=1)
    note = f"{stepped:.2f} s against {floor:.2f} s, one pair, encoder frozen"
    yield BenchmarkRow(part, "training step over floor", stepped / floor, "x", note=note)
    yield BenchmarkRow(part, "peak memory of a training step", peak_bytes(scene.train_step) / 2**20, "MB")


def _repeat(work: Work, times: int) -> None:
    """One after the other, so that two works that are compared last as long: a short one is disturbed less often."""
    for _ in range(times):
        work()


def growth_rows(
    folder: Path, device: torch.device, *, size: int, largest: int, budget: float
) -> Iterator[BenchmarkRow]:
    """``atto`` at ``size`` pixels: a cached request as one thing grows at a time, over the smallest."""
    segmenter = random_segmenter("atto", size, device)

    def grow(what: str, values: list[int], build: Callable[[int], Scene]) -> Iterator[BenchmarkRow]:
        scenes = [build(value) for value in values]
        for scene in scenes:
            scene.request()
        times = compare(*(scene.request for scene in scenes), budget=budget)
        for value, spent in zip(values, times, strict=True):
            note = f"{spent:.3f} s"
            yield BenchmarkRow(f"growth with {what}", f"{what} = {value}", spent / times[0], "x", note=note)

    steps = [n for n in (1, 2, 4, 8, 16) if n <= largest]
    yield from grow("K", steps, lambda n: Scene(segmenter, folder, pairs=n, objects=1))
    yield from grow("N", steps, lambda n: Scene(segmenter, folder, pairs=PAIRS, objects=n))
    yield from grow("slices", steps, lambda n: Scene(segmenter, folder, pairs=PAIRS, objects=1, slices=n))
    sizes = [size * n // 2 for n in (1, 2, 4, 6) if n <= largest]
    scaled = {s: segmenter if s == size else random_segmenter("atto", s, device) for s in sizes}
    yield from grow("pixels", sizes, lambda s: Scene(scaled[s], folder, pairs=PAIRS, objects=1))


def endurance_rows(folder: Path, device: torch.device, *, size: int, requests: int) -> Iterator[BenchmarkRow]:
    """Memory of the process over many requests of ``atto`` at ``size`` pixels, after a tenth of them as a warm-up."""
    scene = Scene(random_segmenter("atto", size, device), folder, pairs=PAIRS, objects=1)
    for _ in range(max(1, requests // 10)):
        scene.request()
    gc.collect()
    give_back_freed_memory()
    before = resident_bytes()
    spent = seconds(lambda: [scene.request() for _ in range(requests)])
    gc.collect()
    give_back_freed_memory()
    grown = (resident_bytes() - before) / 2**20
    note = f"{before / 2**20:.0f} MB before, {requests} requests in {spent:.0f} s"
    yield BenchmarkRow("endurance", f"memory gained over {requests} requests", grown, "MB", 20.0, note=note)
