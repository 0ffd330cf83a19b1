#!/usr/bin/env python3
"""Where the time goes, as ratios within one run.

    python scripts/benchmark.py --quick                           # seconds: does it run?
    python scripts/benchmark.py                                   # atto at 256 and 512 pixels, and the operators
    python scripts/benchmark.py --foundation sam_vit_b --foundation sam2.1_hiera_tiny --json all.json --plot all.png
    python scripts/benchmark.py --page docs/benchmark.md --plot docs/benchmark.png

Random weights, so nothing need be downloaded. Measured are: every backend of the selective scan over the plain loop;
Vision Mamba over its matrix products; the explicit selective map over its attention form; a request with cached
supports over what the foundation itself must do for the target slice; preparing the supports; a training step; memory;
and how a request grows with supports (K), structures (N), slices and pixels. Where a figure has an aim, the table says
whether it is reached. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as scripts/serve.sh; read when torch is imported

PARTS = ("operators", "growth", "endurance", "requests")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--foundation", action="append", metavar="NAME", help="more than once; default atto")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; more than once; default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them here (.png, .svg, .pdf)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a Markdown page that shows --plot")
    parser.add_argument("--quick", action="store_true", help="small sizes and single rounds: numbers mean little")
    parser.add_argument("--budget", type=float, default=3.0, metavar="S", help="seconds to repeat each measurement")
    parser.add_argument("--minutes", type=float, metavar="M", help="measure nothing further after so many minutes")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    options = parser.parse_args(arguments)
    if options.page and not options.plot:
        parser.error("--page shows a plot: give --plot FILE too")
    return options


def rows(options: argparse.Namespace, folder: Path) -> Iterator:
    """Row after row, so that the screen shows how far it is."""
    import torch

    from proxyprompt.benchmark.operators import scan_rows, selective_map_rows, vision_mamba_rows
    from proxyprompt.benchmark.requests import endurance_rows, growth_rows, request_rows
    from proxyprompt.foundation import foundation_entry

    device, quick, parts = torch.device(options.device), options.quick, options.part or PARTS
    budget = 0.0 if quick else options.budget
    if "operators" in parts:
        yield from scan_rows(device, length=64 if quick else 4096, budget=budget)
        size = {"grid": 8, "width": 32, "depth": 2} if quick else {"grid": 64, "width": 192, "depth": 24}
        yield from vision_mamba_rows(device, **size, budget=budget)
        counts = (1, 2) if quick else (4, 16)
        yield from selective_map_rows(device, grid=8 if quick else 64, counts=counts, budget=budget)
    if "growth" in parts:
        yield from growth_rows(folder, device, size=128 if quick else 256, largest=2 if quick else 16, budget=budget)
    if "endurance" in parts:
        yield from endurance_rows(folder, device, size=64 if quick else 256, requests=3 if quick else 200)
    if "requests" in parts:
        for name in options.foundation or ["atto"]:
            embedded = foundation_entry(name).embedded
            sizes = ((64,) if quick else (256, 384, 512)) if embedded else (None,)
            slices = 4 if embedded and not quick else 2
            for size in sizes:
                yield from request_rows(name, folder, device, image_size=size, slices=slices, budget=budget)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when it ran, whether the aims are reached or not; 2 for what cannot be measured."""
    options = parse(arguments)
    import torch
    from rich.console import Console

    from proxyprompt.benchmark.measure import machine
    from proxyprompt.benchmark.report import screen_table, write_page, write_plot
    from proxyprompt.foundation import foundation_names
    from proxyprompt.io.files import write_json
    from proxyprompt.settings import usable_device

    if unknown := sorted(set(options.foundation or []) - set(foundation_names())):
        print(
            f"benchmark: unknown foundation {', '.join(unknown)}; valid: {', '.join(foundation_names())}",
            file=sys.stderr,
        )
        return 2
    try:
        usable_device(options.device)
    except ValueError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    if options.threads:
        torch.set_num_threads(options.threads)
    measured, described, start = [], machine(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options, Path(folder)):
            measured.append(row)
            print(f"{row.part}: {row.name}: {row.value:.2f} {row.unit} ({row.note})", file=sys.stderr, flush=True)
            if options.minutes and time.monotonic() - start > 60 * options.minutes:
                print(f"benchmark: stopped after {options.minutes:g} minutes", file=sys.stderr)
                break
    Console(width=None if sys.stdout.isatty() else 160).print(screen_table(measured))
    if options.json:
        write_json(options.json, {"machine": described, "rows": [row.to_dict() for row in measured]}, indent=2)
    if options.plot:
        write_plot(options.plot, measured)
    if options.page:
        write_page(options.page, measured, described, plot=options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
