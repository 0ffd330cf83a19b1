#!/usr/bin/env python3
"""Fine-tune on a folder of labelled images, without a server, and say whether the new version is any better.

    python scripts/train.py --data DIR --shots 16 --minutes 10
    python scripts/train.py --data DIR --structures disc=1+2,cup=2 --foundation sam_vit_h --paper --device cuda
    python scripts/train.py --data DIR --shots 16 --comparison-model samed-like
    python scripts/train.py --data DIR --shots 16 --without ccm --out runs/without-ccm
    python scripts/train.py --data STARE --data REFUGE2 --shots 16
    torchrun --nproc-per-node 4 scripts/train.py --data DIR --device cuda

The folder is a MONAI Label folder, one with images/ and masks/ (and groups.csv), or nnU-Net's or the Decathlon's. Some
groups (patients, cases) are held out: the new version and the one it came from are both scored on them. Interrupt it
whenever you like: the same command goes on where it stopped. Progress is also in TensorBoard (--logdir OUT/run).
`scripts/evaluate.py --adapter FILE` scores any version; with --shots, on cases that were not drawn from here.
--without and --context-encoder train the paper's ablations, --comparison-model one of the models that it is compared
with, for `scripts/evaluate.py --comparison-models FILE`; see proxyprompt/evaluation/comparison_models.py.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import Event

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "apps" / "proxyprompt"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    from proxyprompt.evaluation.comparison_models import COMPARISON_MODELS
    from proxyprompt.prompt_generator.context_encoders import CONTEXTS
    from proxyprompt.prompt_generator.generator import WITHOUT
    from proxyprompt.settings import Renamed
    from proxyprompt.training.finetune_config import OPTIMISERS
    from proxyprompt.training.strategies import STRATEGIES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("what it learns from")
    data.add_argument("--data", action="append", required=True, type=Path, metavar="DIR", help="more than once")
    data.add_argument(
        "--structures",
        action="append",
        default=[],
        metavar="TEXT",
        help="names of label values: disc=1+2,cup=2 (or a .json file); for one of several folders eyes:disc=1+2",
    )
    data.add_argument("--groups-from", type=Path, metavar="CSV", help="case,group; default: groups.csv in the folder")
    data.add_argument(
        "--shots", type=int, metavar="M", help="cases of each folder, drawn from evaluate.py's support pool; else all"
    )
    data.add_argument("--supports-share", type=float, default=0.4, help="of the groups, for that pool (default 0.4)")
    data.add_argument("--split-seed", type=int, default=0, help="another split into pool and targets")
    data.add_argument(
        "--no-validation", dest="validation", action="store_false", help="hold nothing out: all cases train"
    )
    model = parser.add_argument_group("what learns")
    model.add_argument("--foundation", default="atto", help="see scripts/fetch_weights.py --list (default atto)")
    model.add_argument("--weights", type=Path, default=APP / "model", metavar="DIR", help="folder of the foundation's")
    model.add_argument(
        "--allow-unverified-weights", action="store_true", help="weights that are not the published ones"
    )
    model.add_argument("--image-size", type=int, metavar="S", help="side of the input; default: what weights are for")
    model.add_argument(
        "--start-from", metavar="VERSION", help="in --out; default: the newest published, else as shipped"
    )
    ways = "; ".join(f"{name}: {strategy.summary}" for name, strategy in STRATEGIES.items())
    model.add_argument("--trainable", choices=list(STRATEGIES), help=f"{ways} (default: lora)")
    model.add_argument(
        "--comparison-model",
        choices=COMPARISON_MODELS,
        help="prompted in another way than by supports; starts anew each time",
    )
    model.add_argument(
        "--peer", dest="comparison_model", choices=COMPARISON_MODELS, action=Renamed, help=argparse.SUPPRESS
    )
    parts = parser.add_argument_group("ablations: the generator then starts untrained, the foundation as shipped")
    parts.add_argument("--without", choices=WITHOUT, nargs="+", default=[], help="parts of the generator to leave out")
    parts.add_argument("--context-encoder", choices=CONTEXTS, help="in the place of Vision Mamba")
    parts.add_argument("--untrained-generator", action="store_true", help="whole, to compare the others with")
    model.add_argument("--rank", type=int, help="of low-rank adapters")
    model.add_argument(
        "--decoder-only",
        dest="adapt_encoder",
        action="store_const",
        const=False,
        help="no adapters on the image encoder",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--paper", action="store_true", help="SGD at a constant rate, Dice loss, all other images support, no variation"
    )
    how.add_argument("--epochs", dest="max_epochs", type=int)
    how.add_argument("--minutes", dest="max_minutes", type=float, help="the schedule ends then, if not earlier")
    how.add_argument("--steps", dest="steps_per_epoch", type=int, help="of an epoch")
    how.add_argument("--patience", type=int, help="epochs without a better validation until it ends; 0: never")
    how.add_argument("--optimiser", choices=OPTIMISERS)
    how.add_argument("--learning-rate", type=float)
    how.add_argument("--members", type=int, help="images of a step, each once target")
    how.add_argument("--views", type=int, help="so many variations of each slice, encoded once (frozen encoder)")
    how.add_argument("--no-augmentation", dest="augment", action="store_const", const=False)
    how.add_argument(
        "--mixed-precision",
        action="store_const",
        const=True,
        help="bfloat16 (default: where the machine computes in it)",
    )
    how.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, metavar="DIR", help="versions, checkpoint, log (default runs/train/<data>)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N (default cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    return parser.parse_args(arguments)


def read_cases(options: argparse.Namespace):
    """The cases to train on. StudyError or ValueError when there are not so many."""
    from proxyprompt.datasets.collections import read_collection, structures_of
    from proxyprompt.evaluation.episodes import EpisodeConfig, EvalEpisodes, interleave
    from proxyprompt.training.cases import Cases

    names = [folder.resolve().name for folder in options.data]
    structures = structures_of(options.structures, names)
    parts = []
    for folder, name in zip(options.data, names, strict=True):
        collection = read_collection(folder, structures=structures.get(name), groups_from=options.groups_from)
        if options.shots is None:
            parts.append(Cases.from_collection(collection))
            continue
        pool = interleave(EvalEpisodes(collection, EpisodeConfig(options.supports_share, options.split_seed)).pool)
        if not 1 <= options.shots <= len(pool):
            raise ValueError(
                f"--shots {options.shots}: {options.supports_share} of the groups of {name} hold {len(pool)} of the "
                f"{len(collection.cases)} cases; ask for fewer, or raise --supports-share"
            )
        parts.append(Cases.from_collection(collection, only={case.id for case in pool[: options.shots]}))
    return Cases.joined(parts)


def config_of(options: argparse.Namespace, cases: int):
    """The options that were given, on what suits the foundation, or on the paper's."""
    from proxyprompt.evaluation.comparison_models import COMPARISON_MODELS
    from proxyprompt.training.finetune_config import FinetuneConfig

    known = {f.name for f in fields(FinetuneConfig)}
    given = {name: value for name, value in vars(options).items() if name in known and value is not None}
    if options.comparison_model:
        given = {"trainable": COMPARISON_MODELS[options.comparison_model], **given}
    if options.paper:
        return FinetuneConfig.paper(**{"members": max(2, cases), **given})
    return FinetuneConfig.defaults(options.foundation, **given)


def generator_of(options: argparse.Namespace) -> dict[str, object] | None:
    """What an ablation changes of the generator; None where the shipped one is trained on."""
    from proxyprompt.foundation import foundation_entry
    from proxyprompt.prompt_generator.generator import ablation

    full_size = not foundation_entry(options.foundation).embedded
    changes = ablation(options.without, options.context_encoder, full_size=full_size)
    return changes if changes or options.untrained_generator else None


@contextmanager
def interruptible() -> Iterator[Event]:
    """The event is set by the first Ctrl-C, so that a step is never cut in two; the second one ends it at once."""
    interrupted = Event()

    def handle(number, frame) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def train(options: argparse.Namespace, device: str) -> int:
    import torch
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    from proxyprompt.evaluation.comparison_models import ComparisonEpisodeModel, build_comparison_model
    from proxyprompt.foundation import build_foundation, weights_identity
    from proxyprompt.predictor.adapters import REFUSED, AdapterStore
    from proxyprompt.predictor.segmenter import build_segmenter
    from proxyprompt.training.distributed import rank
    from proxyprompt.training.finetune import Progress, finetune

    torch.set_flush_denormal(True)  # only now: numpy would warn about it while it is imported
    verify = not options.allow_unverified_weights
    name, sha256 = weights_identity(options.foundation, options.weights, verify=verify)
    parts = [*(data.resolve().name for data in options.data), options.comparison_model]
    folder = "-".join(part for part in parts if part)
    out = options.out or ROOT / "runs" / "train" / folder
    store = AdapterStore(out, foundation=name, foundation_sha256=sha256)
    cases = read_cases(options)
    config = config_of(options, len(cases))
    where = {"weights_dir": options.weights, "image_size": options.image_size, "verify": verify}
    if options.comparison_model:
        segmenter = build_comparison_model(
            options.comparison_model, cases.structures, build_foundation(name, **where).to(device)
        )
    else:
        segmenter = build_segmenter(
            foundation=name,
            adapter=options.start_from,
            adapters=store,
            generator=generator_of(options),
            device=device,
            merge=False,
            **where,
        )
    every = 0.5 if sys.stderr.isatty() else 30
    with (
        interruptible() as interrupted,
        logging_redirect_tqdm(),
        tqdm(unit="step", mininterval=every, disable=rank() != 0) as bar,
    ):

        def report(progress: Progress) -> None:
            bar.total = progress.steps
            bar.set_postfix(_shown(progress), refresh=False)
            bar.update(progress.step - bar.n)

        outcome = finetune(
            cases,
            config,
            segmenter=segmenter,
            store=store,
            run_folder=out / "run",
            report=report,
            stop=interrupted.is_set,
            model=ComparisonEpisodeModel if options.comparison_model else None,
        )
    if rank() == 0:
        for structure, child in outcome.child.items():
            parent = outcome.parent[structure]
            print(f"{structure:24} {_mean(parent):.3f} -> {_mean(child):.3f}  on {len(child)} held-out groups")
        print(f"{outcome.header.status}: {outcome.header.reason}\n{outcome.path}")
    return 1 if outcome.header.status == REFUSED else 0


def main(arguments: list[str] | None = None) -> int:
    """0 when a version was written that may serve; 1 when the gate refused it; 2, with a sentence, for what cannot be
    trained; 130 interrupted."""
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="train: %(message)s")
    import torch

    from proxyprompt.foundation import CheckpointError
    from proxyprompt.io.errors import StudyError
    from proxyprompt.predictor.adapters import AdapterError
    from proxyprompt.settings import usable_device
    from proxyprompt.training.distributed import process_group
    from proxyprompt.training.errors import TrainingError, TrainingStopped

    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        with process_group(usable_device(options.device)) as device:
            return train(options, device)
    except TrainingStopped as stopped:
        print(f"train: {stopped}; the same command goes on", file=sys.stderr)
        return 130
    except (StudyError, TrainingError, AdapterError, CheckpointError, ValueError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2


def _shown(progress) -> dict[str, str]:
    shown = {"loss": f"{progress.loss:.3f}"}
    if progress.validation:
        shown["held out"] = f"{_mean(progress.validation):.3f}"
        shown["best"] = f"{progress.best:.3f}"
    return shown


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


if __name__ == "__main__":
    sys.exit(main())
