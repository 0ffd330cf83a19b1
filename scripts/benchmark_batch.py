#!/usr/bin/env python3
"""How many studies a minute over one process, two, and a local Ray cluster of two, one worker and the program killed.

    python scripts/benchmark_batch.py                              # 300 drawn studies, each way
    python scripts/benchmark_batch.py --studies 60 --ways one ray --json batch.json

Each way runs scripts/segment.py by itself, one after the other. On a machine that does other work meanwhile the ratio
says little: the load is printed with it. It fails when a study was lost or done twice. Ray: requirements-ray.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from proxyprompt.benchmark.batch import PIXELS, BatchBenchmark, BatchRun, ray_cluster, write_studies

SCRIPT = Path(__file__).resolve().parent / "segment.py"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--ways", nargs="+", default=["one", "processes", "ray"], choices=["one", "processes", "ray"])
    parser.add_argument("--no-kill", action="store_true", help="kill nothing")
    parser.add_argument("--image-size", type=int, default=PIXELS, metavar="PIXELS")
    parser.add_argument("--weights-dir", metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep studies, results and logs here")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    runs: list[BatchRun] = []
    with ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        studies = scratch / "studies"
        if not studies.exists():
            write_studies(studies, count=options.studies)
        more = ["--image-size", str(options.image_size), "--device", "cpu"]
        more += ["--weights-dir", options.weights_dir] if options.weights_dir else []
        benchmark = BatchBenchmark(SCRIPT, studies, scratch, more)
        if "one" in options.ways:
            runs.append(benchmark.run("one process", workers=1))
            print(runs[-1], flush=True)
        if "processes" in options.ways:
            runs.append(benchmark.run("processes", workers=options.workers, kill=not options.no_kill))
            print(runs[-1], flush=True)
        if "ray" in options.ways:
            address = stack.enter_context(ray_cluster(cpus=options.workers, log=scratch / "cluster.log"))
            runs.append(benchmark.run("ray", workers=options.workers, ray=address, kill=not options.no_kill))
            print(runs[-1], flush=True)
    for run in runs[1:]:
        if runs[0].per_minute:
            print(f"{run.kind}: {run.per_minute / runs[0].per_minute:.2f} times {runs[0].kind}")
    if options.json:
        options.json.write_text(json.dumps([run.to_dict() for run in runs], indent=2) + "\n", encoding="utf-8")
    return 1 if any(run.lost or run.twice for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
