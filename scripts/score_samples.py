"""Scores a running server on the unlabelled sample studies, beside two baselines and two controls.

    scripts/serve.sh --port 8000 &
    python scripts/score_samples.py --server http://127.0.0.1:8000 --samples samples/studies --json scores.json

What the columns mean: see apps/proxyprompt/lib/proxyprompt/evaluation/sample_scores.py. Drawn studies say that the
method works, not how well it does on patients.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from proxyprompt.datasets.samples.folder import SampleFolder
from proxyprompt.evaluation.client import Client, ServerError
from proxyprompt.evaluation.sample_scores import MEASURES, Answer, Refused, SampleScore, score_study, summarise
from proxyprompt.foundation import CheckpointError, build_foundation
from proxyprompt.io.errors import StudyError
from proxyprompt.io.files import write_json

MODEL_FOLDER = Path(__file__).resolve().parents[1] / "apps" / "proxyprompt" / "model"


class Server:
    """A running server as something to ask; label files that come back lie in ``folder``."""

    def __init__(self, client: Client, folder: Path):
        self._client, self._folder = client, folder

    def ask(self, study_id: str, options: dict[str, object]) -> Answer:
        """One inference; Refused with the server's words when it does not give one."""
        start = time.perf_counter()
        try:
            content, suffix, answer = self._client.segment(study_id, **options)
        except ServerError as error:
            raise Refused(f"{study_id}: {error}") from error
        seconds = time.perf_counter() - start
        handle, path = tempfile.mkstemp(suffix=suffix, dir=self._folder)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        likest = sorted(answer["supports"], key=lambda support: -support["similarity"])
        supports = [(support["id"], int(support["slice"])) for support in likest]
        return Answer(Path(path), answer["label_names"], supports, seconds)


def table(scores: list[SampleScore], summary: dict) -> Table:
    drawn = Table(title="Dice on the unlabelled samples", caption="swapped and unrelated should be low")
    for column in ("study", "structure", *MEASURES, "seconds"):
        drawn.add_column(column, justify="left" if column in ("study", "structure") else "right")
    for score in scores:
        drawn.add_row(score.study, score.structure, *_cells(vars(score)), _number(score.seconds))
    drawn.add_section()
    for name, means in summary["mean_by_set"].items():
        drawn.add_row(name, "mean", *_cells(means), "")
    drawn.add_row("all", "mean", *_cells(summary["mean"]), "", style="bold")
    return drawn


def _cells(measures: dict) -> list[str]:
    return [_number(measures[name]) for name in MEASURES]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when it ran, whatever the scores; 2 when there is no server, no samples or no weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", required=True, metavar="URL", help="such as http://127.0.0.1:8000")
    parser.add_argument("--samples", required=True, type=Path, metavar="DIR", help="the folder the server serves")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here too")
    parser.add_argument("--only", metavar="SET", help="only the studies of one set: rgb, us or mr")
    parser.add_argument("--foundation", default="atto", help="whose features 'nearest' compares (default atto)")
    parser.add_argument("--weights", type=Path, default=MODEL_FOLDER, metavar="DIR", help="where its weights are")
    parser.add_argument("--no-nearest", action="store_true", help="leave the nearest-feature baseline out")
    parser.add_argument("--no-controls", action="store_true", help="leave the two controls out")
    parser.add_argument("--timeout", type=float, default=600, help="seconds to wait for an answer (default 600)")
    options = parser.parse_args(arguments)
    try:
        samples = SampleFolder(options.samples)
        targets = [name for name in samples.targets if options.only in (None, samples.set_of(name))]
        if not targets:
            raise StudyError(f"no sample set is called {options.only!r}")
        foundation = None
        if not options.no_nearest:
            foundation = build_foundation(options.foundation, weights_dir=options.weights)
        with tempfile.TemporaryDirectory() as folder:
            client = Client(options.server, timeout=options.timeout)
            client.info()
            server = Server(client, Path(folder))
            scores = []
            for name in targets:
                controls = not options.no_controls
                scores += score_study(samples, name, server.ask, foundation=foundation, controls=controls)
                print(f"{name}: {', '.join(f'{s.structure} {_number(s.dice)}' for s in scores if s.study == name)}")
    except (StudyError, CheckpointError, ServerError, Refused, ValueError) as error:
        print(f"score_samples: {error}", file=sys.stderr)
        return 2
    summary = summarise(scores)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(scores, summary))
    for error in dict.fromkeys(error for score in scores for error in score.errors):
        console.print(error, style="red", markup=False)
    if options.json:
        content = {"server": options.server, "samples": str(options.samples), **summary}
        write_json(options.json, content, indent=2)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
