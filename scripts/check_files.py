"""Does everything in a folder go through? Sends every image and label there to a server of its own.

    python scripts/check_files.py DIR...
    python scripts/check_files.py DIR --infer 5 --json checked.json     # five inferences of each sub-folder

DIR: images of any kind, with labels (images/ and masks/, imagesTr/ and labelsTr/, a MONAI Label folder), DICOM series
with their DICOM SEG, or a folder of such folders; it is only read. Each image is uploaded, asked about, segmented with
the one before it as support, and labelled; how: apps/proxyprompt/lib/proxyprompt/evaluation/file_check.py. What is
refused is printed with its reason, to be judged. With --json a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from proxyprompt.benchmark.server import running_server
from proxyprompt.evaluation.client import Client, ServerError
from proxyprompt.evaluation.file_check import Checked, FileCheck
from proxyprompt.evaluation.file_groups import find_groups
from proxyprompt.io.files import write_json


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="images and labels")
    parser.add_argument("--infer", type=int, metavar="N", help="inferences of each group; default: one of each image")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything here; what it holds is done")
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="of the app")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when nothing failed, whatever was refused; 1 when something did; 2 when it could not run."""
    options = parse(arguments)
    try:
        if missing := [str(folder) for folder in options.folders if not folder.is_dir()]:
            raise ServerError(f"{', '.join(missing)}: no such folder")
        content = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
        done = {name: Checked.from_json(each) for name, each in content.items()}
        groups = {f"{folder.resolve().name}/{g.name}": g for folder in options.folders for g in find_groups(folder)}
        with tempfile.TemporaryDirectory(prefix="check-") as temporary:
            scratch = Path(temporary)
            studies = scratch / "studies"
            studies.mkdir()
            conf = {"background_scoring": "false", **dict(options.conf)}  # which would take half of the time
            with running_server(studies, log=scratch / "server.log", conf=conf) as server:
                check = FileCheck(Client(server.url), studies=studies, scratch=scratch, say=_say)
                for name, group in groups.items():
                    if name not in done or done[name].size != len(group.items):
                        for file, why in group.left_out.items():
                            _say(f"  not sent: {name}/{file} {why}")
                        done[name] = check.run(group, inferences=options.infer)
                        if options.json:
                            write_json(options.json, {n: each.to_json() for n, each in done.items()}, indent=2)
                    _say(f"{name}: {done[name]}")
    except (RuntimeError, OSError, ValueError, TypeError) as error:
        print(f"check_files: {error}", file=sys.stderr)
        return 2
    return _summarise([done[name] for name in groups])


def _say(text: str) -> None:
    print(text, flush=True)


def _summarise(checked: list[Checked]) -> int:
    total = Checked(sum(each.size for each in checked))
    for each in checked:
        total.images += each.images
        total.labels += each.labels
        total.stand_ins += each.stand_ins
        total.inferences += each.inferences
        total.seconds += each.seconds
        total.complaints += each.complaints
    _say(f"all: {total}")
    return 1 if total.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
