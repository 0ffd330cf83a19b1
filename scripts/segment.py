#!/usr/bin/env python3
"""Segments every study of a folder or DICOMweb server as labelled ones show it.

    python scripts/segment.py --studies DIR --support s1 --support s2 --names disc cup --out RESULTS
    python scripts/segment.py --studies DIR_OR_URL --support IMAGE MASK --names disc cup --out RESULTS --ray auto

A support is a labelled study of the folder (its id), or the files of an image and its mask, whose value n is the n-th
name. Each result appears whole as RESULTS/ID.nii.gz (.png for an image); what has one is done. So a run that was
stopped, or killed, goes on when the same command is given again, and what failed is tried again: RESULTS/failed.json
lists it with the reasons, RESULTS/batch.jsonl has a line for each study.

Locally so many processes as --workers says; with --ray on a cluster that `ray start` made (requirements-ray.txt), whose
machines must see the same paths. It ends with 0 when every study has its result, 1 when some have not, 2 when it could
not run.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path

from proxyprompt.batch.folder import BatchFolder
from proxyprompt.batch.making import SegmenterMaker
from proxyprompt.batch.plan import BatchPlan
from proxyprompt.batch.progress import BatchProgress
from proxyprompt.batch.queue import DONE, BatchAnswer, BatchError, BatchWorkers, run_batch
from proxyprompt.batch.studies import find_studies, labelled_files
from proxyprompt.errors import Refusal
from proxyprompt.io.errors import StudyError, WeightsError
from proxyprompt.io.files import file_hash
from proxyprompt.io.label_files import WRITABLE
from proxyprompt.requests.defaults import set_defaults

REFUSALS = (StudyError, WeightsError, Refusal)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", required=True, metavar="DIR_OR_URL")
    parser.add_argument("--support", required=True, nargs="+", action="append", metavar="ID | IMAGE MASK")
    parser.add_argument(
        "--names", required=True, nargs="+", help="of the structures, in the order of the masks' values"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument("--suffix", default="", choices=["", *WRITABLE], help="of the results; default: see above")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="default: locally 1, on Ray what has room")
    parser.add_argument("--attempts", type=int, default=3, metavar="N", help="for what fails but is not refused")
    parser.add_argument("--ray", metavar="ADDRESS", help="of a cluster; auto for the one of this machine")
    parser.add_argument("--cpus", type=float, default=1.0, metavar="N", help="cores of a worker on Ray")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="N", help="GPUs of a worker on Ray, 0.5 for a half")
    parser.add_argument("--foundation", default="atto")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR")
    parser.add_argument("--adapter", type=Path, metavar="FILE", help="a trained version")
    parser.add_argument("--image-size", type=int, metavar="PIXELS")
    parser.add_argument("--device", help="cpu, cuda, cuda:N; default: a GPU where there is one")
    parser.add_argument("--paper", action="store_true", help="the paper's method and nothing else")
    return parser.parse_args(arguments)


def plan_of(options: argparse.Namespace, archive: str) -> BatchPlan:
    """What the workers do. BatchError for supports that are not there."""
    supports = []
    for given in options.support:
        if len(given) == 1 and not archive:
            supports.append(labelled_files(Path(options.studies), given[0]))
        elif len(given) == 2:
            supports.append((os.path.abspath(given[0]), os.path.abspath(given[1])))
        else:
            raise BatchError(f"--support {' '.join(given)}: expected IMAGE and MASK files, or the id of a study in DIR")
    if missing := [path for pair in supports for path in pair if not os.path.exists(path)]:
        raise BatchError(f"{missing[0]}: no such file; a support is an image and its mask")
    return BatchPlan(
        out=str(options.out.resolve()),
        supports=tuple(supports),
        names=tuple(options.names),
        archive=archive,
        foundation=options.foundation,
        weights_dir=options.weights_dir and str(options.weights_dir.resolve()),
        adapter=options.adapter and str(options.adapter.resolve()),
        image_size=options.image_size,
        device=options.device,
        paper=options.paper,
        suffix=options.suffix,
        threads=_threads(options),
    )


def _threads(options: argparse.Namespace) -> int:
    """Of PyTorch in a worker; 0 where the environment says it."""
    if "OMP_NUM_THREADS" in os.environ:
        return 0
    return max(1, int(options.cpus) if options.ray else (os.cpu_count() or 1) // max(1, options.workers))


def deciding(plan: BatchPlan) -> dict[str, object]:
    """What of a plan decides the results, whatever the places and the machines."""
    left_out = ("out", "archive", "device", "threads", "weights_dir")
    facts = {key: value for key, value in asdict(plan).items() if key not in left_out}
    hashes = [[file_hash(Path(path)) for path in pair] for pair in plan.supports]
    return {**facts, "supports": hashes, "adapter": file_hash(Path(plan.adapter)) if plan.adapter else None}


def workers_of(options: argparse.Namespace, plan: BatchPlan) -> BatchWorkers:
    if options.ray:
        from proxyprompt.batch.ray_workers import RayWorkers

        share = {"cpus": options.cpus, "gpus": options.gpus, "count": options.workers}
        return RayWorkers(SegmenterMaker(plan), address=options.ray, refusals=REFUSALS, **share)
    from proxyprompt.batch.workers import ProcessWorkers

    return ProcessWorkers(SegmenterMaker(plan), max(1, options.workers), refusals=REFUSALS)


def run(options: argparse.Namespace) -> int:
    set_defaults()
    studies = find_studies(options.studies)
    for name, why in studies.left_out.items():
        say(f"{name} is left out: it {why}")
    plan, folder = plan_of(options, studies.archive), BatchFolder(options.out.resolve())
    supports = {os.path.realpath(image) for image, _ in plan.supports}
    items = [item for item in studies.items if os.path.realpath(item.source) not in supports]
    with folder.exclusive():
        folder.claim(deciding(plan))
        missing = folder.missing(items)
        say(f"{len(items)} studies, {len(items) - len(missing)} of them done before; results in {folder.folder}")
        progress = BatchProgress(len(items), len(items) - len(missing), say)

        def note(answer: BatchAnswer) -> None:
            folder.note(answer)
            progress.note(answer)

        answers = {}
        if missing:
            with workers_of(options, plan) as workers:
                answers = run_batch(missing, workers, attempts=options.attempts, note=note)
        failed = {id: answer.message for id, answer in answers.items() if answer.status != DONE}
        listed = folder.list_failed(failed)
    say(f"{progress}; " + (f"what failed is in {listed}" if listed else "nothing is missing"))
    return 1 if failed else 0


def say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    # Idle threads of PyTorch sleep: beside other work on the same cores, spinning costs many times more.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return run(options)
    except (BatchError, *REFUSALS) as error:
        print(f"segment: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("segment: stopped; the same command goes on from here", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
