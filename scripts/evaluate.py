#!/usr/bin/env python3
"""Measure how well structures are segmented from K labelled supports, beside other ways to use the same supports.

    python scripts/evaluate.py --data DIR --shots 0 --supports 4 --seeds 3 --json FILE
    python scripts/evaluate.py --data A --data B --supports 1 2 4 8 --json FILE --markdown FILE --overlays FOLDER
    python scripts/evaluate.py --data DIR --weights runs/atto/atto-2.safetensors --limit-targets 8 --supports 4
    python scripts/evaluate.py --data eyes --structures rim=1,cup=2,disc=1+2 --methods proxyprompt copy dynunet

A folder holds images/ and masks/ (and groups.csv), or imagesTr/ and labelsTr/ (nnU-Net, Medical Segmentation
Decathlon), or is a MONAI Label folder. Groups (patients) are split once into a support pool and targets; K supports
are drawn from the pool for every seed, and every method gets the same ones and the same targets:

  proxyprompt   the app's own way, exactly as the server answers a request
  copy          the supports' mask, by majority, laid on the target as it is
  nearest       every position takes the label of the most similar support position (same encoder)
  prototype     every position goes to the structure's or the rest's mean look (same encoder)
  dynunet       a MONAI DynUNet with augmentation, trained from scratch on those K supports; minutes for each draw

An interrupted run with the same --json goes on; methods, seeds, collections and K can be added to it later, and other
weights measure only those methods anew that use them. The JSON holds mean_dice (of proxyprompt at the first K: mean
over structures, then over collections), means, rows, gains and every case's scores.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "apps" / "proxyprompt"))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as scripts/serve.sh; read when torch is imported

METHODS = ("proxyprompt", "copy", "nearest", "prototype", "dynunet")
DEFAULT_METHODS = METHODS[:4]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("what is segmented")
    data.add_argument("--data", action="append", required=True, type=Path, metavar="DIR", help="more than once")
    data.add_argument(
        "--structures",
        action="append",
        default=[],
        metavar="NAMES",
        help="label values of each structure: disc=1+2,cup=2; for one of several folders eyes:disc=1+2,cup=2; or a "
        'JSON file {"eyes": {"disc": [1, 2]}}; default: label info, dataset.json, else label_<value>',
    )
    data.add_argument("--supports", type=int, nargs="+", default=[4], metavar="K", help="default 4; several: 1 2 4 8")
    data.add_argument("--seeds", type=int, default=3, metavar="N", help="support draws for each K (default 3)")
    data.add_argument("--limit-targets", type=int, metavar="N", help="at most so many cases of each collection")
    data.add_argument(
        "--target-slices", type=int, metavar="N", help="so many slices of each volume, evenly; default all"
    )
    data.add_argument("--supports-share", type=float, default=0.4, help="of the groups, for the pool (default 0.4)")
    data.add_argument("--split-seed", type=int, default=0, help="another split into pool and targets")
    model = parser.add_argument_group("by what")
    model.add_argument("--methods", nargs="+", choices=METHODS, default=list(DEFAULT_METHODS), metavar="NAME")
    model.add_argument("--foundation", default="atto", help="see scripts/fetch_weights.py --list (default atto)")
    model.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "apps" / "proxyprompt" / "model",
        metavar="PATH",
        help="the folder with the foundation's weights, or one atto file (default: the app's model folder)",
    )
    model.add_argument("--shots", type=int, choices=(0,), default=0, help="cases fine-tuned on; 0: as it is")
    model.add_argument("--image-size", type=int, metavar="S", help="side of the input; default: what weights are for")
    model.add_argument(
        "--nearest-foundation",
        type=Path,
        metavar="FILE",
        help="an atto file whose encoder nearest and prototype use instead",
    )
    model.add_argument("--unet-minutes", type=float, default=10.0, help="at most, for each draw (default 10)")
    model.add_argument("--unet-size", type=int, default=256, help="side of the U-Net's input (default 256)")
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="everything; an interrupted run goes on from it")
    results.add_argument("--markdown", type=Path, metavar="FILE", help="tables to read")
    results.add_argument("--csv", type=Path, metavar="FILE", help="one line for each case and draw")
    results.add_argument(
        "--overlays", type=Path, metavar="FOLDER", help="best, median and worst case of each structure"
    )
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N (default cpu)")
    machine.add_argument("--threads", type=int, help="CPU threads (default: all)")
    machine.add_argument("--cache-gb", type=float, default=2.0, help="memory for encoded images (default 2)")
    machine.add_argument("--cache", type=Path, metavar="FOLDER", help="keep encoded images here too, for later runs")
    return parser.parse_args(arguments)


def named_structures(given: list[str], names: list[str]) -> dict[str, object]:
    """Collection -> what ``read_collection`` takes as structures. ValueError for a collection that is not measured."""
    found: dict[str, object] = {}
    for text in given:
        if text.lower().endswith(".json"):
            try:
                content = json.loads(Path(text).read_text(encoding="utf-8"))
                found.update({name: content[name] for name in names if name in content})
            except (OSError, ValueError, TypeError) as error:
                raise ValueError(f"--structures {text}: {error}; expected a JSON file by collection") from error
            continue
        collection, colon, rest = text.partition(":")
        if colon and collection not in names:
            raise ValueError(f"--structures {text}: no --data folder is called {collection!r}; {', '.join(names)} are")
        found.update({collection: rest} if colon else dict.fromkeys(names, text))
    return found


def build_methods(options: argparse.Namespace) -> list:
    """The methods asked for, in the order of METHODS; encoded images are shared."""
    import torch

    from lib.evaluation.methods import Copy, EncodeOnce, ProxyPrompt, nearest, prototypes
    from lib.foundation import build_foundation
    from lib.segmenter import build_segmenter
    from lib.studies.cache import ContentCache

    device = torch.device(options.device)
    cache = ContentCache(options.cache, memory_bytes=int(options.cache_gb * 2**30), disk_bytes=50 * 2**30)
    built, foundation = {"copy": Copy}, None
    if "proxyprompt" in options.methods:
        segmenter = build_segmenter(
            foundation=options.foundation,
            weights_dir=options.weights,
            image_size=options.image_size,
            device=device,
        )
        segmenter.foundation = foundation = EncodeOnce(segmenter.foundation, cache)
        built["proxyprompt"] = lambda: ProxyPrompt(segmenter)
    if {"nearest", "prototype"} & set(options.methods):
        other = options.nearest_foundation
        if other or foundation is None:
            foundation = build_foundation(
                "atto" if other else options.foundation,
                weights_dir=other or options.weights,
                image_size=options.image_size,
            )
            foundation = EncodeOnce(foundation.to(device).requires_grad_(False), cache)
        label = other.stem if other else None
        built["nearest"] = lambda: nearest(foundation, label=label)
        built["prototype"] = lambda: prototypes(foundation, label=label)
    if "dynunet" in options.methods:
        from lib.evaluation.unet import DynUNetFromScratch, UNetConfig  # MONAI takes seconds to import

        config = UNetConfig(minutes=options.unet_minutes, size=options.unet_size)
        built["dynunet"] = lambda: DynUNetFromScratch(config, device=device)
    return [built[name]() for name in METHODS if name in options.methods]


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when it ran, whatever the scores; 2, with a sentence, for what cannot be measured; 130 interrupted."""
    options = parse(arguments)
    import torch
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from lib.evaluation.episodes import EpisodeConfig
    from lib.evaluation.pictures import draw_overlays
    from lib.evaluation.record import Record
    from lib.evaluation.run import Plan, evaluate
    from lib.evaluation.summary import rows, summarise
    from lib.evaluation.tables import markdown, table_csv
    from lib.foundation import CheckpointError
    from lib.studies.collections import read_collection
    from lib.studies.errors import StudyError

    logging.basicConfig(level=logging.WARNING, format="evaluate: %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        if options.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError("no CUDA device here; use --device cpu")
        structures = named_structures(options.structures, [folder.resolve().name for folder in options.data])
        plan = Plan(
            tuple(read_collection(folder, structures=structures.get(folder.resolve().name)) for folder in options.data),
            EpisodeConfig(options.supports_share, options.split_seed, options.limit_targets, options.target_slices),
            tuple(dict.fromkeys(options.supports)),
            options.seeds,
        )
        record = Record(options.json)
        methods = build_methods(options)
        every = 0.1 if sys.stderr.isatty() else 30
        with logging_redirect_tqdm(), tqdm(unit="draw", dynamic_ncols=True, mininterval=every) as bar:

            def report(work, done, total):
                bar.total = total
                bar.set_description(f"{work.key[0]} {work.structure} K={work.count} {work.method.name}", refresh=False)
                bar.update(done - bar.n)

            measured = evaluate(plan, methods, record, report=report)
            bar.update(bar.total - bar.n)
        summary = {
            **summarise(measured.units),
            "skipped": measured.skipped,
            "methods": {method.name: dict(method.settings) for method in methods},
            "command": sys.argv[1:] if arguments is None else arguments,
        }
        record.save(summary)
        text = markdown(rows(measured.units), skipped=measured.skipped)
        print(text)
        for path, content in ((options.markdown, lambda: text), (options.csv, lambda: table_csv(measured.units))):
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content(), encoding="utf-8")
        if options.overlays:
            draw_overlays(plan, methods, measured.units, options.overlays)
    except (StudyError, CheckpointError, ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: interrupted; the same command with the same --json goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
