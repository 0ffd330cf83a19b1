#!/usr/bin/env python3
"""Simulate a reader who labels what the app proposes, against one who labels in random order.

    python scripts/simulate_active_learning.py --data DIR --json FILE --plot FILE
    python scripts/simulate_active_learning.py --data DIR --structures symphysis=1,head=2 --seeds 5 --json FILE

A folder holds images/ and masks/ (and groups.csv), or imagesTr/ and labelsTr/, or is a MONAI Label folder. Some groups
are held out; of the others, one after the other is labelled with its truth, from --first to --last labels, in the order
that support_disagreement and its strategy propose, and in random order. After each label the held-out cases are
segmented and scored. An interrupted run with the same --json goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as scripts/serve.sh; read when torch is imported

MODEL = ROOT / "apps" / "proxyprompt" / "model"
GIGABYTE = 1 << 30


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--structures", metavar="NAMES", help="disc=1+2,cup=2; default: as the folder names them")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="readers of each kind (default 5)")
    parser.add_argument("--first", type=int, default=2, help="labels at the beginning (default 2)")
    parser.add_argument("--last", type=int, default=16, help="labels at the end (default 16)")
    parser.add_argument("--supports", type=int, default=4, metavar="K", help="default 4")
    parser.add_argument("--targets", type=int, default=40, help="at most so many held-out cases (default 40)")
    parser.add_argument("--pool", type=int, default=100, help="at most so many cases to label (default 100)")
    parser.add_argument("--held-out", type=float, default=0.4, help="share of the groups (default 0.4)")
    parser.add_argument("--split", type=int, default=0, help="another split of the groups")
    parser.add_argument("--foundation", default="atto", help="see scripts/fetch_weights.py --list (default atto)")
    parser.add_argument("--weights", type=Path, default=MODEL, metavar="DIR", help="folder with the weights")
    parser.add_argument("--image-size", type=int, metavar="S", help="side of the input; default: what weights are for")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N (default cpu)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--cache-gb", type=float, default=4.0, help="memory for encoded images (default 4)")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="everything; a run goes on from it")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the two curves, as PNG")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    logging.basicConfig(level=logging.WARNING)
    import torch

    from proxyprompt.datasets.collections import read_collection
    from proxyprompt.evaluation.labelling import STRATEGIES, LabellingConfig, LabellingRun, Simulation, compare
    from proxyprompt.foundation import build_foundation
    from proxyprompt.io.cache import ContentCache
    from proxyprompt.io.files import write_json
    from proxyprompt.predictor.segmenter import build_segmenter

    if options.threads:
        torch.set_num_threads(options.threads)
    plan = LabellingConfig(**{name: getattr(options, name) for name in LabellingConfig.__dataclass_fields__})
    collection = read_collection(options.data, structures=options.structures)
    segmenter = build_segmenter(
        foundation=options.foundation,
        weights_dir=options.weights,
        image_size=options.image_size,
        device=options.device,
    )
    describer = build_foundation("atto", image_size=256, weights_dir=options.weights)
    about = {"collection": collection.name, "structures": sorted(collection.structures), "plan": asdict(plan)}
    about |= {"foundation": segmenter.foundation.name, "weights_sha256": segmenter.weights_sha256}
    runs = [LabellingRun(**run) for run in _known(options.json, about)]
    cache = ContentCache(None, memory_bytes=int(options.cache_gb * GIGABYTE), disk_bytes=0)
    simulation = Simulation(collection, segmenter, describer.to(options.device), plan, cache)
    for seed in range(options.seeds):
        for strategy in STRATEGIES:
            if any((run.strategy, run.seed) == (strategy, seed) for run in runs):
                continue

            def show(count: int, dice: float, strategy: str = strategy, seed: int = seed) -> None:
                print(f"{strategy:>13} seed {seed}: {count:3d} labels, Dice {dice:.4f}", flush=True)

            runs.append(simulation.run(strategy, seed, progress=show))
            options.json.parent.mkdir(parents=True, exist_ok=True)
            content = {**about, **compare(runs, plan), "runs": [run.to_json() for run in runs]}
            write_json(options.json, content, indent=1)
    found = compare(runs, plan)
    if options.plot:
        _plot(options.plot, collection.name, found)
    print(json.dumps(found.get("gain"), indent=1))
    return 0


def _known(path: Path, about: dict) -> list[dict]:
    """The runs of an earlier, interrupted simulation; SystemExit when the file is of another one."""
    if not path.exists():
        return []
    content = json.loads(path.read_text(encoding="utf-8"))
    different = [name for name in about if content.get(name) != json.loads(json.dumps(about[name]))]
    if different:
        raise SystemExit(f"{path} is of another simulation ({', '.join(different)} differ); name another file")
    return content["runs"]


def _plot(path: Path, name: str, found: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    from proxyprompt.io.files import replacing

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for strategy, colour in (("disagreement", "#1f77b4"), ("random", "#7f7f7f")):
        mean, std = found[strategy]["mean"], found[strategy]["std"]
        axes.plot(found["labels"], mean, "o-", color=colour, label=strategy, markersize=4)
        low, high = ([m + sign * s for m, s in zip(mean, std, strict=True)] for sign in (-1, 1))
        axes.fill_between(found["labels"], low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="labelled studies", ylabel="mean Dice on held-out studies", title=name)
    axes.legend()
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        figure.savefig(beside, dpi=120, format="png")
    plt.close(figure)


if __name__ == "__main__":
    raise SystemExit(main())
