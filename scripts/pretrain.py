#!/usr/bin/env python3
"""Pretrain ``atto`` from nothing, on procedurally generated tasks only.

    python scripts/pretrain.py --out apps/proxyprompt/model/atto-1.safetensors
    python scripts/pretrain.py --minutes 1 --stages 128:50:4     # a first look on a CPU

Interrupt it whenever you like: the same command goes on where it stopped. Progress is also in TensorBoard
(``tensorboard --logdir runs/atto``). On a GPU, use larger stages: ``--device cuda --stages 128:20000:32,256:20000:16``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "apps" / "proxyprompt"))


def parse_stages(text: str):
    """``size:steps:groups[:members]``, comma separated."""
    from lib.training.pretraining import Stage

    try:
        return tuple(Stage(*(int(n) for n in part.split(":"))) for part in text.split(","))
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r}: expected size:steps:groups[:members], comma separated") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the averaged weights here (also after an interruption)")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "atto", help="checkpoint and TensorBoard folder")
    parser.add_argument("--stages", type=parse_stages, help="size:steps:groups[:members], comma separated")
    parser.add_argument("--minutes", type=float, help="stop after so many minutes, resumable")
    parser.add_argument("--learning-rate", type=float, help="peak learning rate of AdamW")
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
    given = {"stages": args.stages, "learning_rate": args.learning_rate, "seed": args.seed}
    config = PretrainConfig(**{k: v for k, v in given.items() if v is not None})
    trainer = Pretrainer(config, args.runs, device=args.device)
    if trainer.resume():
        logging.info("resumed at step %d of %d", trainer.step, config.steps)
    writer = SummaryWriter(str(args.runs))
    bar = tqdm(total=config.steps, initial=trainer.step, mininterval=5, unit="step")
    running = {"dice": None}

    def validate() -> dict[str, float]:
        scores = trainer.validate(size=config.stage(max(0, trainer.step - 1)).size)
        for name, value in scores.items():
            writer.add_scalar(f"validation/{name}", value, trainer.step)
        tqdm.write(f"step {trainer.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in scores.items()))
        return scores

    def report(step: int, loss, seconds: float) -> None:
        dice = loss.dice[~loss.dice.isnan()].mean().item()
        running["dice"] = dice if running["dice"] is None else 0.98 * running["dice"] + 0.02 * dice
        bar.update()
        bar.set_postfix(dice=f"{running['dice']:.3f}", seconds=f"{seconds:.2f}", refresh=False)
        if step % 10 == 0:
            writer.add_scalar("train/dice", dice, step)
            for name, value in loss.parts.items():
                writer.add_scalar(f"train/{name}", value, step)
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
    if args.out:
        logging.info("wrote %s", trainer.export(args.out, scores=validate()))


if __name__ == "__main__":
    main()
