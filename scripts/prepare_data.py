#!/usr/bin/env python3
"""Bring one of the paper's data sets, as it is distributed, to the layout that every command here reads.

    python scripts/prepare_data.py STARE --source ~/Downloads/stare --out data/stare
    python scripts/evaluate.py --data data/stare --supports 1 4 --json stare.json

SOURCE holds the unpacked files, in whatever folders; nothing is downloaded and nothing there is changed. OUT gets
images/, masks/, groups.csv (patients, videos, or what else must stay on one side of a split) and dataset.json (the
names of the structures), all at once when everything is there. Interrupted, the same command goes on.

  REFUGE2     JPEG images, Disc_Cup_Masks as BMP (0 cup, 128 disc, 255 background): disc, cup
  STARE       im0001.ppm.gz, im0001.ah.ppm.gz (and vk, the second observer, into masks_vk/): vessels
  FH-PS-AOP   image_mha/, label_mha/ (1 symphysis, 2 head); a hundred consecutive numbers are one group
  PROMISE12   CaseNN.mhd, CaseNN_segmentation.mhd and their .raw: prostate, in millimetres
  JNU-IFM     for each video image/, mask/ (7 symphysis, 8 head) and frame_label.csv; a video is one group
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None) -> int:
    """Returns 0; 2, with a sentence, for what cannot be prepared; 130 interrupted."""
    from tqdm import tqdm

    from proxyprompt.datasets.preparation import DISTRIBUTIONS, prepare
    from proxyprompt.io.errors import StudyError

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=DISTRIBUTIONS, metavar="SET", help=", ".join(DISTRIBUTIONS))
    parser.add_argument("--source", required=True, type=Path, metavar="DIR", help="with the unpacked files")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="a folder that does not exist yet")
    parser.add_argument("--any-count", action="store_true", help="a part of the set will do")
    options = parser.parse_args(arguments)
    try:
        with tqdm(unit="image", mininterval=0.1 if sys.stderr.isatty() else 30) as bar:

            def report(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            prepare(options.set, options.source, options.out, any_count=options.any_count, report=report)
    except (StudyError, OSError) as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("prepare_data: interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(f"{options.set}: {bar.n} labelled images in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
