#!/usr/bin/env python3
"""Measure how well structures are segmented from K labelled supports, beside other ways to use the same supports.

    python scripts/evaluate.py --data DIR --shots 0 --supports 4 --seeds 3 --json FILE
    python scripts/evaluate.py --data A --data B --supports 1 2 4 8 --json FILE --markdown FILE --overlays FOLDER
    python scripts/evaluate.py --data DIR --weights runs/pretrain/atto-6.safetensors --limit-targets 8 --supports 4
    python scripts/evaluate.py --data DIR --compare --train-minutes 5 --unet-minutes 5 --mixed-precision --json FILE
    python scripts/evaluate.py --data eyes --structures rim=1,cup=2,disc=1+2 --methods proxyprompt copy dynunet

A folder holds images/ and masks/ (and groups.csv), or imagesTr/ and labelsTr/ (nnU-Net, Medical Segmentation
Decathlon), or is a MONAI Label folder. Groups (patients) are split once into a support pool and targets; K supports
are drawn from the pool for every seed, and every method gets the same ones and the same targets:

  proxyprompt   the app's own way, exactly as the server answers a request
  proxyprompt:without-pieces   the same, but fine structures are looked at in the whole view like all others
  proxyprompt:p-only, :without-selection, :unprompted   the same model with parts taken away: the proxy prompt of the
                whole view and nothing else; the same, made of the mean support instead of the selective map's; no
                proxy prompt: what the decoder draws when it is asked nothing
  proxyprompt:corrected-1, -2, -4   the slices of a volume that are most wrong painted right, as supports for the others
  proxyprompt:replaced-1, -2, -4    the same slices painted, and nothing else changed
  proxyprompt:slice-by-slice, :neighbours, :propagate   the same, with this done about neighbouring slices or frames
                (docs/volumes.md); also with :corrected-N and :replaced-N
  proxyprompt:box, :click-1, :clicks-5   the same, and on each slice a box around the truth, or clicks that correct,
                each in the middle of the largest error; with -unrefined behind the name: decoded once only
  copy          the supports' mask, by majority, laid on the target as it is
  nearest       every position takes the label of the most similar support position (same encoder)
  prototype     every position goes to the structure's or the rest's mean look (same encoder)
  memory        the supports as earlier frames of a video: plain SAM 2 (or atto), no generator
  memory:video  the same, and frame after frame what was found on those before
  frame-0:mask, :box, :point   the target's first frame prompted by the truth, the others by the memory
  persam        clicks where the target looks most and least like the structure, refined by the mask they give
  point, clicks-5, box, box-refined, everything   the foundation prompted by the target's own truth: what a user's
                prompts would give; clicks-5: one after the other, each in the middle of the largest error
  finetuned     proxyprompt after --train-minutes of training on those K supports
  finetuned_paper   the paper's setting: frozen foundation, low-rank adapters, a generator from scratch, SGD
  dynunet       a MONAI DynUNet with augmentation, trained from scratch on those K supports; minutes for each draw
  dynunet_plateau   the same, until its training loss no longer falls
  unet_pretrained   the same minutes for a U-Net whose encoder is atto's frozen ImageNet trunk
  --comparison-models FILE  SAMed-, AutoSAM- and Med-SA-like ones, trained by scripts/train.py; they take no supports

An interrupted run with the same --json goes on; methods, seeds, collections and K can be added to it later, and other
weights measure only those methods anew that use them. The JSON holds mean_dice (of proxyprompt at the first K: mean
over structures, then over collections), means, rows, gains and every case's scores.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as scripts/serve.sh; read when torch is imported

DEFAULT_METHODS = ("proxyprompt", "copy", "nearest", "prototype")
PAPER = {
    "shots": 16,
    "supports": [1, 2, 4, 8],
    "seeds": 100,
    "methods": ["proxyprompt"],
}
COMPARE = {
    "supports": [16],
    "methods": ["proxyprompt", "finetuned", "finetuned_paper", "unet_pretrained", "dynunet", "dynunet_plateau"],
}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    from proxyprompt.settings import Renamed

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
    data.add_argument(
        "--paper",
        action="store_true",
        help="its protocol: 16 shots, 1 to 8 of them as supports, 100 draws; proxyprompt alone, without extensions",
    )
    data.add_argument(
        "--compare",
        action="store_true",
        help="16 labelled slices as supports, as training of both fine-tuned methods, and of the U-Net, as long and "
        "until its plateau",
    )
    data.add_argument("--supports", type=int, nargs="+", default=[4], metavar="K", help="default 4; several: 1 2 4 8")
    data.add_argument("--seeds", type=int, default=3, metavar="N", help="support draws for each K (default 3)")
    data.add_argument("--limit-targets", type=int, metavar="N", help="at most so many cases of each collection")
    data.add_argument(
        "--target-slices", type=int, metavar="N", help="so many slices of each volume, evenly; default all"
    )
    data.add_argument("--clips", action="store_true", help="the images of one group are the frames of one clip")
    data.add_argument(
        "--everywhere", action="store_true", help="supports do not tell where along a volume a structure lies"
    )
    data.add_argument("--supports-share", type=float, default=0.4, help="of the groups, for the pool (default 0.4)")
    data.add_argument("--split-seed", type=int, default=0, help="another split into pool and targets")
    model = parser.add_argument_group("by what")
    model.add_argument("--methods", nargs="*", default=list(DEFAULT_METHODS), metavar="NAME", help="see above")
    model.add_argument("--foundation", default="atto", help="see scripts/fetch_weights.py --list (default atto)")
    model.add_argument(
        "--weights",
        type=Path,
        default=ROOT / "apps" / "proxyprompt" / "model",
        metavar="PATH",
        help="the folder with the foundation's weights, or one atto file (default: the app's model folder)",
    )
    model.add_argument(
        "--shots",
        type=int,
        default=0,
        metavar="M",
        help="supports are the cases that train.py --shots M trains on; 0: any",
    )
    model.add_argument("--adapter", type=Path, metavar="FILE", help="a fine-tuned version; groups.json lies beside it")
    model.add_argument(
        "--comparison-models", type=Path, nargs="+", default=[], metavar="FILE", help="fine-tuned ones; as above"
    )
    model.add_argument(
        "--peers", dest="comparison_models", type=Path, nargs="+", action=Renamed, help=argparse.SUPPRESS
    )
    model.add_argument("--unseen", action="store_true", help="leave out targets of groups that trained one of these")
    model.add_argument("--image-size", type=int, metavar="S", help="side of the input; default: what weights are for")
    model.add_argument(
        "--other-foundation",
        type=Path,
        metavar="FILE",
        help="an atto file whose foundation all methods but proxyprompt use, such as one without a generator",
    )
    model.add_argument(
        "--mask-quality",
        type=float,
        nargs="+",
        default=[],
        metavar="DICE",
        help="proxyprompt also with support masks of this Dice to the true ones; 0: empty masks",
    )
    model.add_argument("--inverted", action="store_true", help="proxyprompt also with the rest of the image as mask")
    model.add_argument(
        "--unrelated", type=Path, metavar="DIR", help="proxyprompt also with supports of this other collection"
    )
    model.add_argument("--train-minutes", type=float, default=10.0, help="fine-tuning of each draw (default 10)")
    model.add_argument("--unet-minutes", type=float, default=10.0, help="at most, for each draw (default 10)")
    model.add_argument(
        "--plateau-minutes", type=float, default=60.0, help="dynunet_plateau: at most, for each draw (default 60)"
    )
    model.add_argument("--unet-size", type=int, default=256, help="side of the U-Net's input (default 256)")
    model.add_argument("--unet-width", type=int, default=32, help="channels of its first level (default 32)")
    model.add_argument(
        "--mixed-precision",
        action="store_true",
        help="train in bfloat16: makes the U-Net about twice as fast where the machine computes in it",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="everything; an interrupted run goes on from it")
    results.add_argument("--markdown", type=Path, metavar="FILE", help="tables to read")
    results.add_argument("--csv", type=Path, metavar="FILE", help="one line for each case and draw")
    results.add_argument(
        "--overlays", type=Path, metavar="FOLDER", help="best, median and worst case of each structure"
    )
    results.add_argument("--plot", type=Path, metavar="FILE", help="Dice over K, and loss curves (.png, .svg, .pdf)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N (default cpu)")
    machine.add_argument("--threads", type=int, help="CPU threads (default: all)")
    machine.add_argument("--cache-gb", type=float, default=2.0, help="memory for encoded images (default 2)")
    machine.add_argument("--cache", type=Path, metavar="FOLDER", help="keep encoded images here too, for later runs")
    options = parser.parse_args(arguments)
    for chosen, preset in ((options.paper, PAPER), (options.compare, COMPARE)):
        if chosen:  # what is given by hand stays
            parser.set_defaults(**preset)
            options = parser.parse_args(arguments)
    return options


def method_options(options: argparse.Namespace, unrelated):
    from proxyprompt.evaluation.catalogue import MethodOptions

    return MethodOptions(
        names=tuple(options.methods),
        foundation=options.foundation,
        weights=options.weights,
        adapter=options.adapter,
        comparison_models=tuple(options.comparison_models),
        image_size=options.image_size,
        paper=options.paper,
        other=options.other_foundation,
        mask_quality=tuple(options.mask_quality),
        inverted=options.inverted,
        unrelated=unrelated,
        train_minutes=options.train_minutes,
        unet_minutes=options.unet_minutes,
        plateau_minutes=options.plateau_minutes,
        mixed_precision=options.mixed_precision,
        unet_size=options.unet_size,
        unet_width=options.unet_width,
        device=options.device,
        cache_bytes=int(options.cache_gb * 2**30),
        cache=options.cache,
    )


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when it ran, whatever the scores; 2, with a sentence, for what cannot be measured; 130 interrupted."""
    options = parse(arguments)
    import torch
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from proxyprompt.datasets.collections import read_collection, structures_of
    from proxyprompt.evaluation.case_figures import draw_overlays
    from proxyprompt.evaluation.catalogue import build_methods
    from proxyprompt.evaluation.clips import as_clips
    from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes
    from proxyprompt.evaluation.figures import plot
    from proxyprompt.evaluation.record import Record
    from proxyprompt.evaluation.run import EvalConfig, evaluate
    from proxyprompt.evaluation.summary import rows, summarise
    from proxyprompt.evaluation.tables import markdown, table_csv
    from proxyprompt.foundation import CheckpointError
    from proxyprompt.io.errors import StudyError
    from proxyprompt.predictor.adapters import AdapterError
    from proxyprompt.settings import usable_device
    from proxyprompt.training.errors import TrainingError

    logging.basicConfig(level=logging.WARNING, format="evaluate: %(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        usable_device(options.device)
        folders = [*options.data, *([options.unrelated] if options.unrelated else [])]
        structures = structures_of(options.structures, [folder.resolve().name for folder in folders])
        collections = [read_collection(f, structures=structures.get(f.resolve().name)) for f in folders]
        if options.clips:
            collections = [as_clips(collection) for collection in collections]
        episodes = EpisodeConfig(
            options.supports_share,
            options.split_seed,
            options.limit_targets,
            options.target_slices,
            options.shots or None,
            options.everywhere,
        )
        plan = EvalConfig(
            tuple(collections[: len(options.data)]),
            episodes,
            tuple(dict.fromkeys(options.supports)),
            options.seeds,
            options.unseen,
        )
        record = Record(options.json)
        unrelated = EvalEpisodes(collections[-1], episodes) if options.unrelated else None
        methods = build_methods(method_options(options, unrelated))
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
            "plan": plan.to_json(),
            "methods": {method.name: dict(method.settings) for method in methods},
        }
        record.save(summary)
        table = rows(measured.units)
        text = markdown(table, methods=summary["methods"], skipped=measured.skipped)
        print(text)
        for path, content in ((options.markdown, lambda: text), (options.csv, lambda: table_csv(measured.units))):
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content(), encoding="utf-8")
        if options.plot:
            plot(measured.units, table, options.plot)
        if options.overlays:
            draw_overlays(plan, methods, measured.units, options.overlays)
    except (StudyError, CheckpointError, AdapterError, TrainingError, ValueError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("evaluate: interrupted; the same command with the same --json goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
