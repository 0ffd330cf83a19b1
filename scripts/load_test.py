#!/usr/bin/env python3
"""Many clients at one server: are all answers right, and does looking something up wait for computations?

    python scripts/load_test.py                                # a server of its own on drawn samples
    python scripts/load_test.py --url http://127.0.0.1:8000    # a running one, with labelled and unlabelled studies
    python scripts/load_test.py --seconds 600 --train          # with a training beside
    python scripts/load_test.py --clients 6 --seconds 10 --json load.json

By default 20 clients ask for a minute. It submits labels that are there already, so no study changes. What is asked
and compared: apps/proxyprompt/lib/proxyprompt/benchmark/load.py. It fails when an answer is not the one that a single
client gets, when `/info/` takes more than a second at the 95th percentile, when the server's memory grew by more than
50 MB in 1,000 requests, or when no two inferences were computed at the same time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from proxyprompt.benchmark.load import Load, LoadError, run_load, summary, training_beside
from proxyprompt.benchmark.server import running_server
from proxyprompt.datasets.samples import make_samples

INFO_SECONDS = 1.0
MEMORY_MB = 50


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server; default: one of its own")
    parser.add_argument("--clients", type=int, default=20, metavar="N")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S")
    parser.add_argument("--train", action="store_true", help="let a training run beside; nothing of it is published")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser.parse_args(arguments)


def failures(load: Load) -> list[str]:
    found = [f"{len(load.wrong)} wrong answers"] if load.wrong else []
    if not load.percentile("info", 95) <= INFO_SECONDS:
        found.append(f"/info/ takes {load.percentile('info', 95):.2f} s at the 95th percentile, aim {INFO_SECONDS} s")
    if load.gained_mb > MEMORY_MB:
        found.append(f"the server's memory grew by {load.gained_mb:.0f} MB in 1,000 requests, aim {MEMORY_MB} MB")
    if load.most_at_once < 2:
        found.append("no two inferences were computed at the same time")
    return found


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    with ExitStack() as stack:
        url = options.url
        if url is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_samples(folder / "studies")
            url = stack.enter_context(running_server(folder / "studies", log=folder / "server.log")).url
        try:
            if options.train:
                stack.enter_context(training_beside(url.rstrip("/")))
            load = run_load(url, clients=options.clients, seconds=options.seconds)
        except LoadError as error:
            print(f"load_test: {error}", file=sys.stderr)
            return 2
    print(summary(load))
    if options.json:
        options.json.write_text(json.dumps(load.to_dict(), indent=2) + "\n", encoding="utf-8")
    for failure in failures(load):
        print(f"load_test: {failure}", file=sys.stderr)
    return 1 if failures(load) else 0


if __name__ == "__main__":
    sys.exit(main())
