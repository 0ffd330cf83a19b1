#!/usr/bin/env python3
"""What labelling cost: slices accepted unchanged, voxels changed, clicks, minutes, supports; by study and structure.

    python scripts/session_report.py --studies samples/studies --csv report.csv --plot report.png

It reads the journal that the server keeps with the studies (for a DICOMweb server: with their local copies). What the
columns mean: apps/proxyprompt/lib/proxyprompt/session/report.py. A running server gives the same at GET
/proxyprompt/report and GET /proxyprompt/report?format=png.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from proxyprompt.session.journal import Journal
from proxyprompt.session.plot import draw
from proxyprompt.session.report import session_rows, write_csv


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=Path, required=True, metavar="DIR", help="the folder that the server serves")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table here; default: the screen")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it here (.png, .svg, .pdf)")
    options = parser.parse_args(arguments)
    journal = Journal(options.studies / ".proxyprompt" / "journal.jsonl")
    if not journal.path.is_file():
        print(f"session_report: there is no {journal.path}; has a server served these studies?", file=sys.stderr)
        return 2
    rows = session_rows(journal)
    table = write_csv(rows)
    if options.csv is None:
        print(table, end="")
    try:
        if options.csv is not None:
            options.csv.write_text(table, encoding="utf-8")
        if options.plot is not None:
            draw(rows, str(options.plot))
    except (OSError, ValueError) as error:
        print(f"session_report: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
