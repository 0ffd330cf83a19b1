#!/usr/bin/env python3
"""The paper's tables and figures, from records of scripts/evaluate.py and from a model.

    python scripts/figures.py results zero-shot=a.json full=b.json without-ccm=c.json --out docs/results.md
    python scripts/figures.py maps --data DIR --structure NAME --unrelated OTHER --out maps.png

`results` writes what the records say next to what the paper says: its tasks, the number of supports (box and ridge
plots), the quality of masks, the similarity of support and target, the parts of the generator, and which of its
findings hold here. A record is FILE or LABEL=FILE. Labels that mean something: full, without-csm, without-ccm,
without-csm-ccm, vit, resnet50 (parts of the generator, compared with full), strategy-1, strategy-2,
strategy-3 (trained on each data set, each modality, all), shots-M (on M images of each). Several records of one label
are one: those of strategy-1, say.

`maps` shows where a target looks in five supports: itself, three others of increasing difference, an unrelated one.
Outlines of the best, median and worst cases (Fig. 4) come from scripts/evaluate.py --overlays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    results = commands.add_parser("results", help="tables and figures from records")
    results.add_argument("records", nargs="+", metavar="[LABEL=]JSON", help="of scripts/evaluate.py")
    results.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".md; figures go to a folder beside it"
    )
    maps = commands.add_parser("maps", help="selective maps as heat on the supports")
    maps.add_argument("--data", type=Path, required=True, metavar="DIR", help="a labelled folder, as for evaluate.py")
    maps.add_argument("--structures", action="append", default=[], metavar="NAMES", help="as for evaluate.py")
    maps.add_argument("--structure", required=True, metavar="NAME", help="the one that is looked for")
    maps.add_argument("--case", metavar="ID", help="the target (default: the first one of evaluate.py)")
    maps.add_argument("--unrelated", type=Path, metavar="DIR", help="another folder, whose first case is a support too")
    maps.add_argument("--foundation", default="atto", help="see scripts/fetch_weights.py --list (default atto)")
    maps.add_argument("--weights", type=Path, default=ROOT / "apps" / "proxyprompt" / "model", metavar="PATH")
    maps.add_argument("--adapter", type=Path, metavar="FILE", help="a fine-tuned version")
    maps.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N (default cpu)")
    maps.add_argument("--out", type=Path, required=True, metavar="FILE", help=".png, .svg, .pdf")
    return parser.parse_args(arguments)


def write_results(options: argparse.Namespace) -> None:
    from proxyprompt.evaluation.report.document import write_results
    from proxyprompt.evaluation.report.sheets import Sheet

    sheets = [Sheet.read(given) for given in options.records]
    shown = " ".join(f"{sheet.label}=..." for sheet in sheets)
    write_results(sheets, options.out, command=f"scripts/figures.py results {shown} --out {options.out.name}")


def draw_maps(options: argparse.Namespace) -> None:
    from proxyprompt.datasets.collections import read_collection, structures_of
    from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
    from proxyprompt.evaluation.report.maps import Shown, draw_maps
    from proxyprompt.evaluation.scoring import image_difference
    from proxyprompt.foundation import weights_identity
    from proxyprompt.predictor.adapters import AdapterStore
    from proxyprompt.predictor.segmenter import build_segmenter

    def shown(collection, case, structure: str) -> Shown:
        """The slice that shows most."""
        study, labels = collection.open(case)
        masks = collection.mask(case, labels, structure)
        index = int(masks.sum(axis=(1, 2)).argmax())
        return Shown(case.id, study.image(index), masks[index])

    folders = [options.data, *([options.unrelated] if options.unrelated else [])]
    names = [folder.resolve().name for folder in folders]
    structures = structures_of(options.structures, names)
    collection, *others = (
        read_collection(f, structures=structures.get(n)) for f, n in zip(folders, names, strict=True)
    )
    if options.structure not in collection.structures:
        raise ValueError(f"--structure {options.structure}: there are {', '.join(collection.structures)}")
    episodes = EvalEpisodes(collection, EpisodeConfig())
    targets = [case for case in episodes.targets_of(options.structure) if options.case in (None, case.id)]
    if not targets:
        raise ValueError(f"--case {options.case}: no target of evaluate.py is called so")
    target = shown(collection, targets[0], options.structure)
    pool = [shown(collection, case, options.structure) for cases in episodes.pool for case in cases]
    pool = sorted((s for s in pool if s.mask.any()), key=lambda s: image_difference(s.image, target.image))
    supports = [target, *dict.fromkeys((pool[0], pool[len(pool) // 2], pool[-1]))]
    for other in others:
        supports.append(shown(other, other.cases[0], next(iter(other.structures))))
    store = None
    if options.adapter:
        name, sha256 = weights_identity(options.foundation, options.weights)
        store = AdapterStore(options.adapter.parent, foundation=name, foundation_sha256=sha256)
    segmenter = build_segmenter(
        foundation=options.foundation,
        weights_dir=options.weights,
        adapter=options.adapter and options.adapter.stem,
        adapters=store,
        device=options.device,
    )
    for found in draw_maps(segmenter, target, supports, options.out):
        print(f"{found.support.name:24} MSE {found.mse:7.0f}  Dice {found.dice:.3f}")


def main(arguments: list[str] | None = None) -> int:
    """Returns 0; 2, with a sentence, for what cannot be drawn."""
    options = parse(arguments)
    from proxyprompt.foundation import CheckpointError
    from proxyprompt.io.errors import StudyError
    from proxyprompt.predictor.adapters import AdapterError

    try:
        {"results": write_results, "maps": draw_maps}[options.command](options)
    except (StudyError, CheckpointError, AdapterError, ValueError, OSError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
