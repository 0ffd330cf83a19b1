"""Does training pay on one's own data? Labels, measures, trains and measures again, on a running server.

    mkdir loop && scripts/serve.sh --studies loop --port 8101 --conf background_scoring false &
    python scripts/training_loop.py --data DIR --server http://127.0.0.1:8101 --json loop.json

DIR: images/ and masks/ (with groups.csv), nnU-Net v2 or MSD (dataset.json), or a MONAI Label folder; it is only read.
Images and masks of a few cases are uploaded to the server, which must serve an empty folder; other groups (patients,
cases) are the targets that are measured. What is done on the way:
apps/proxyprompt/lib/proxyprompt/evaluation/training_loop.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from proxyprompt.datasets.collections import read_collection
from proxyprompt.evaluation.client import Client, ServerError
from proxyprompt.evaluation.training_loop import Report, TrainingLoop, plan_of
from proxyprompt.io.errors import StudyError
from proxyprompt.io.files import write_json
from proxyprompt.metrics.segmentation import Interval


def table(report: Report, shots: int, more: int) -> Table:
    drawn = Table(title=f"Dice on {len(report.few.dice)} targets of other groups")
    rows = {f"{shots} labelled": report.few, f"{shots + more} labelled": report.many, "trained": report.trained}
    structures = sorted({name for measured in rows.values() for name in measured.by_structure()})
    for column in ("", "version", *structures, "mean"):
        drawn.add_column(column, justify="left" if column in ("", "version") else "right")
    for name, measured in rows.items():
        means = measured.by_structure()
        mean = sum(measured.means()) / len(measured.dice)
        drawn.add_row(
            name, measured.version, *(f"{means[s]:.3f}" if s in means else "-" for s in structures), f"{mean:.3f}"
        )
    return drawn


def sentences(report: Report) -> list[str]:
    said = [
        f"the added labels, before training: {_interval(report.gain_of_labels)}",
        f"training: {_interval(report.gain)}",
        f"both: {_interval(report.total_gain)}",
        f"the version is {report.training['status']}: {report.training['message']}",
        f"rolled back: {'the old results, bit for bit' if report.rolled_back else 'NOT the old results'}",
    ]
    if report.killed_at is not None:
        served = "nothing that is served changed" if report.untouched else "what is served CHANGED"
        said.append(f"killed at step {report.killed_at}: {served}; it went on from step {report.resumed_from}")
    if report.wrong_labels is not None:
        kept = "the served version stayed" if report.wrong_labels["served_unchanged"] else "it is SERVED"
        said.append(
            f"trained on wrong labels: {report.wrong_labels['status']}, {kept}: {report.wrong_labels['reason']}"
        )
    return said


def _interval(gain: Interval) -> str:
    return f"{gain.mean:+.3f} (95% interval {gain.low:+.3f} to {gain.high:+.3f}, paired, bootstrap over targets)"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when it ran, whatever came out; 2 when it could not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="labelled images")
    parser.add_argument("--server", required=True, metavar="URL", help="such as http://127.0.0.1:8101")
    parser.add_argument("--structures", metavar="NAMES", help="names of label values, such as disc=1+2,cup=2")
    parser.add_argument("--first", type=int, default=4, help="cases labelled at the start (default 4)")
    parser.add_argument("--more", type=int, default=12, help="cases labelled then (default 12)")
    parser.add_argument("--targets", type=int, default=40, help="cases that are measured (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="which cases (default 0)")
    parser.add_argument(
        "--train", metavar="JSON", default="{}", help="""options of the training: '{"max_minutes": 20}'"""
    )
    parser.add_argument("--no-kill", action="store_true", help="do not kill a training half way")
    parser.add_argument("--no-wrong-labels", action="store_true", help="do not train on wrong labels at the end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        collection = read_collection(options.data, structures=options.structures)
        plan = plan_of(collection, first=options.first, more=options.more, targets=options.targets, seed=options.seed)
        with tempfile.TemporaryDirectory() as folder:
            loop = TrainingLoop(
                Client(options.server),
                collection,
                plan,
                folder=Path(folder),
                options=json.loads(options.train),
                say=lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
            )
            report = loop.run(kill=not options.no_kill, wrong_labels=not options.no_wrong_labels)
    except (StudyError, ServerError, json.JSONDecodeError) as error:
        print(f"training_loop: {error}", file=sys.stderr)
        return 2
    console.print(table(report, options.first, options.more))
    for text in sentences(report):
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if options.json:
        content = {"data": options.data.name, "seed": options.seed, "train": options.train, **report.to_json()}
        write_json(options.json, content, indent=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
