#!/usr/bin/env python3
"""Frames a second of a stream and its memory over many frames; time and memory of a large volume.

    python scripts/benchmark_volumes.py                                       # 2,000 frames at 256; 200 slices of 512
    python scripts/benchmark_volumes.py --frames 300 --slices 0   # the stream alone
    python scripts/benchmark_volumes.py --frames 0 --mode propagate --json FILE

Frames and slices are drawn. Seconds of the processor stand beside those of the clock: on a machine that does other work
meanwhile the clock says little.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np


def parse(arguments: list[str] | None) -> argparse.Namespace:
    from proxyprompt.settings import MODES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000, metavar="N", help="of the stream; 0: none")
    parser.add_argument("--slices", type=int, default=200, metavar="N", help="of the volume; 0: none")
    parser.add_argument("--side", type=int, default=512, metavar="PIXELS", help="of a slice")
    parser.add_argument("--image-size", type=int, default=256, metavar="S", help="of the network, for the stream")
    parser.add_argument("--mode", default="auto", choices=MODES)
    parser.add_argument("--foundation", default="atto")
    parser.add_argument("--weights-dir", metavar="DIR")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch; more hardly pay at these sizes (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def megabytes() -> int:
    """Of the process, now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() >> 20


def peak() -> int:
    """Megabytes of the process, at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def stream(options: argparse.Namespace) -> dict[str, object]:
    from proxyprompt import ProxyPromptPredictor
    from proxyprompt.datasets.samples import sonogram

    predictor = ProxyPromptPredictor.from_pretrained(
        options.foundation, weights_dir=options.weights_dir, image_size=options.image_size, device="cpu"
    )
    drawn = [sonogram.draw(np.random.default_rng(n)) for n in range(8)]
    predictor.set_support(*map(list, zip(*drawn[:1], strict=True)), names=["head", "symphysis"])
    segment = predictor.stream(mode=options.mode)
    segment(drawn[1][0])
    memory, clock, processor = [], time.perf_counter(), time.process_time()
    for n in range(options.frames):
        segment(np.roll(drawn[1 + n % 7][0], n % 5, axis=1))
        if n % max(1, options.frames // 10) == 0 or n == options.frames - 1:
            memory.append(megabytes())
    seconds, used = time.perf_counter() - clock, time.process_time() - processor
    return {
        "frames": options.frames,
        "frames_per_second": round(options.frames / seconds, 2),
        "processor_seconds_per_frame": round(used / options.frames, 4),
        "megabytes": memory,
    }


def volume(options: argparse.Namespace) -> dict[str, object]:
    from proxyprompt import ProxyPromptPredictor
    from proxyprompt.predictor.progress import FollowedRequests

    predictor = ProxyPromptPredictor.from_pretrained(options.foundation, weights_dir=options.weights_dir, device="cpu")
    side, count = options.side, options.slices
    rows, columns = np.mgrid[:side, :side]
    rng, slices, labels = np.random.default_rng(0), [], []
    for z in range(count):
        radius = side / 5 * max(0.0, 1 - (2 * z / count - 1) ** 2) ** 0.5
        ball = (rows - side / 2) ** 2 + (columns - side / 2) ** 2 < radius**2
        slices.append((rng.normal(100, 8, ball.shape) + 60 * ball).astype(np.int16))
        labels.append(ball.astype(np.uint8))
    stack, truth = np.stack(slices), np.stack(labels)
    predictor.set_support(stack[count // 4 :: count // 4][:3].copy(), truth[count // 4 :: count // 4][:3], ["ball"])
    seen: list[tuple[int, int]] = []
    requests = FollowedRequests()
    clock, processor = time.perf_counter(), time.process_time()
    with requests.following("volume"):
        progress = requests.get("volume")
        advance = progress.advance
        progress.advance = lambda done, total: (seen.append((done, total)), advance(done, total))[1]
        prediction = predictor.predict_volume(stack, mode=options.mode)
    seconds, used = time.perf_counter() - clock, time.process_time() - processor
    overlap = 2 * (prediction["ball"] & (truth == 1)).sum() / (prediction["ball"].sum() + truth.sum())
    return {
        "slices": count,
        "side": side,
        "seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "peak_megabytes": peak(),
        "progress_steps": len(seen),
        "last_step": seen[-1],
        "dice": round(float(overlap), 3),
    }


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    import torch

    torch.set_num_threads(options.threads)
    found: dict[str, object] = {"mode": options.mode, "threads": options.threads}
    if options.frames:
        found["stream"] = stream(options)
        print(json.dumps(found["stream"]), flush=True)
    if options.slices:
        found["volume"] = volume(options)
        print(json.dumps(found["volume"]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
