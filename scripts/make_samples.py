"""Makes a folder of drawn sample studies, ready for `monailabel start_server --studies DIR`.

    python scripts/make_samples.py --out samples/studies

The truth of the unlabelled ones goes to DIR.truth, beside the folder, for `scripts/score_samples.py`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from proxyprompt.datasets.samples import make_samples, truth_folder


def main(arguments: list[str] | None = None) -> int:
    """Returns 0, or 2 when the folder is in use."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new or empty folder")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same files (default 0)")
    options = parser.parse_args(arguments)
    try:
        ids = make_samples(options.out, seed=options.seed)
    except FileExistsError as error:
        print(f"make_samples: {error}", file=sys.stderr)
        return 2
    print(f"{len(ids)} studies in {options.out}, the truth of the unlabelled in {truth_folder(options.out)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
