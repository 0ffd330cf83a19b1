#!/usr/bin/env python3
"""Pretrain ``atto`` from nothing, on procedurally generated tasks only.

    python scripts/pretrain.py --out apps/proxyprompt/model/atto-6.safetensors
    python scripts/pretrain.py --minutes 1 --phases foundation:128:20:2,proxy:128:20:2    # a first look on a CPU

First a promptable foundation (stage "foundation": points, boxes, masks, corrections, clips), then the Proxy Prompt
Generator on it (stage "proxy"). Interrupt it whenever you like: the same command goes on where it stopped, also with
other phases. Progress is also in TensorBoard (``tensorboard --logdir runs/atto``). On a GPU, use larger phases:
``--device cuda --phases foundation:256:10000:16,proxy:256:30000:16:5,proxy:512:5000:6:5``.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "apps" / "proxyprompt"))


def parse_phases(text: str):
    """``stage:size:steps:groups[:members]``, comma separated."""
    from lib.training.pretraining import Phase

    try:
        parts = [part.split(":") for part in text.split(",")]
        return tuple(Phase(stage, *(int(n) for n in numbers)) for stage, *numbers in parts)
    except (TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected stage:size:steps:groups[:members], comma separated ({error})"
        ) from None


def main() -> None:
    from lib.prompt.context_encoders import CONTEXTS
    from lib.prompt.generator import WITHOUT, ablation

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the averaged weights here (also after an interruption)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "atto", help="checkpoint and TensorBoard folder")
    parser.add_argument(
        "--phases",
        type=parse_phases,
        help="stage:size:steps:groups[:members], comma separated; stages: foundation, proxy",
    )
    parser.add_argument("--minutes", type=float, help="stop after so many minutes, resumable")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate of AdamW")
    parser.add_argument("--frozen-foundation", action="store_true", help="the second stage trains the generator alone")
    parser.add_argument("--without", choices=WITHOUT, nargs="+", default=[], help="parts of the generator to leave out")
    parser.add_argument("--context-encoder", choices=CONTEXTS, help="in the place of Vision Mamba")
    parser.add_argument("--mixed-precision", action="store_true", help="bfloat16 (CUDA; CPUs that have it, as AVX-512)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch (default: all)")
    parser.add_argument("--validate-every", type=int, default=500, help="steps between validations")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")

    import torch
    from torch.utils.tensorboard import SummaryWriter
    from tqdm import tqdm

    from lib.training.pretraining import PretrainConfig, Pretrainer

    torch.set_flush_denormal(True)
    if args.threads:
        torch.set_num_threads(args.threads)
    given = {
        "phases": args.phases,
        "learning_rate": args.learning_rate,
        "seed": args.seed,
        "frozen_foundation": args.frozen_foundation,
        "mixed_precision": args.mixed_precision,
    }
    config = PretrainConfig(**{k: v for k, v in given.items() if v is not None})
    changes = ablation(args.without, args.context_encoder)
    config = replace(config, generator={**config.generator, **changes})
    trainer = Pretrainer(config, args.runs, device=args.device)
    if trainer.resume():
        logging.info("resumed at step %d of %d", trainer.step, config.steps)
    writer = SummaryWriter(str(args.runs))
    bar = tqdm(total=config.steps, initial=trainer.step, mininterval=5, unit="step")
    running: dict[str, float] = {}

    def validate() -> dict[str, float]:
        scores = trainer.validate(size=config.phase(max(0, trainer.step - 1)).size)
        for name, value in scores.items():
            writer.add_scalar(f"validation/{name}", value, trainer.step)
        tqdm.write(f"step {trainer.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
        return scores

    def report(step: int, kind: str, loss, seconds: float) -> None:
        dice = loss.dice.nanmean().item()
        if dice == dice:  # a step may hold nothing but absent structures
            running[kind] = 0.97 * running.get(kind, dice) + 0.03 * dice
        bar.update()
        bar.set_postfix({k: f"{v:.3f}" for k, v in running.items()} | {"seconds": f"{seconds:.2f}"}, refresh=False)
        if step % 10 == 0:
            writer.add_scalar(f"dice/{kind}", dice, step)
            for name, value in loss.parts.items():
                writer.add_scalar(f"loss/{name}", value, step)
        if step % args.validate_every == 0:
            validate()

    try:
        trainer.run(minutes=args.minutes, report=report)
    except KeyboardInterrupt:
        trainer.save()
        logging.info("interrupted at step %d; the same command goes on from here", trainer.step)
    finally:
        bar.close()
        writer.close()
    if args.out and trainer.foundation_file.exists():
        beside = args.out.with_name(f"{args.out.stem}-foundation.safetensors")
        shutil.copyfile(trainer.foundation_file, beside)
        logging.info("wrote %s, the first stage alone", beside)
    if args.out:
        logging.info("wrote %s", trainer.export(args.out, scores=validate()))


if __name__ == "__main__":
    main()
