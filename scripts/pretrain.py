#!/usr/bin/env python3
"""Pretrain ``atto``: points, boxes, masks, memory and the proxy prompt, on real tasks and on drawn ones.

    python scripts/pretrain.py --data TASKS --out apps/proxyprompt/model/atto-6.safetensors
    python scripts/pretrain.py --data TASKS --image-size 256 --minutes 120    # smaller first: several times faster
    python scripts/pretrain.py --data TASKS --minutes 5 --pool-slots 50       # a first look
    python scripts/pretrain.py --data TASKS --device cuda --workers 14        # where there is a GPU

TASKS is a folder of folders, each a task with images/ and masks/ of the same names (and groups.csv: which images
belong to one patient). Every fifth task is held back and measured on. Workers vary the images, encode them by the
frozen trunk and keep the results in --runs; the trainer draws its steps from them.

Interrupt it whenever you like: the same command goes on where it stopped, also with another --image-size. The rate is
constant and falls over the last quarter of --steps; before_decay.pt is kept, so that a longer run can go on from there.
Progress: the log, and TensorBoard (tensorboard --logdir runs/pretrain). On a CPU that is shared, --threads 1 is best:
threads that wait for each other cost more than they bring.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

logger = logging.getLogger("pretrain")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="TASKS", help="folder of the real tasks")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the averaged weights here at each validation")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "pretrain", help="checkpoint, pool and TensorBoard"
    )
    parser.add_argument("--steps", type=int, help="of the whole run (default 20000)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many minutes, resumable")
    parser.add_argument("--image-size", type=int, metavar="S", help="side of the input (default 384)")
    parser.add_argument("--learning-rate", type=float, help="of AdamW (default 1e-3)")
    parser.add_argument("--held-back", type=int, metavar="N", help="hold back every N-th task; 0: none (default 5)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="a checkpoint; default: the newest in --runs")
    parser.add_argument("--start-from", type=Path, metavar="FILE", help="exported weights to start a new run from")
    parser.add_argument("--workers", type=int, default=1, help="processes that make groups (default 1)")
    parser.add_argument("--pool-slots", type=int, metavar="N", help="groups on disk, about 12 to 25 MB each (600)")
    parser.add_argument("--start-with", type=int, default=40, metavar="N", help="groups to wait for (default 40)")
    parser.add_argument("--validate-every", type=int, default=500, metavar="N", help="steps (default 500)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the trainer (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    return parser.parse_args(arguments)


def configure(options: argparse.Namespace):
    """PretrainConfig of what was given."""
    from dataclasses import replace

    from proxyprompt.pretraining.config import PretrainConfig

    given = {name: getattr(options, name) for name in ("steps", "image_size", "learning_rate", "held_back")}
    config = PretrainConfig(**{name: value for name, value in given.items() if value is not None})
    if options.pool_slots:
        config = replace(config, pool=replace(config.pool, slots=options.pool_slots))
    return config


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 when it ran to its end, 2, with a sentence, when it cannot, 130 when interrupted."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from proxyprompt.foundation.checkpoints import CheckpointError
    from proxyprompt.pretraining.held_back import held_back_groups
    from proxyprompt.pretraining.pool import GroupPool, build_maker, start_workers, wait_for
    from proxyprompt.pretraining.running import RunningMeans
    from proxyprompt.pretraining.tasks import PretrainingDataError, split_tasks, task_folders
    from proxyprompt.pretraining.trainer import Pretrainer

    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    config, workers, writer = configure(options), [], None
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore otherwise
    try:
        train, back = split_tasks(task_folders(options.data), config.held_back)
        pool = GroupPool(options.runs / f"pool-{config.image_size}")
        held = held_back_groups(options.runs / "held_back", back, config, build_maker(back, config)) if back else {}
        trainer = Pretrainer(config, options.runs, pool, device=options.device)
        if trainer.resume(options.resume):
            logger.info("goes on at step %d of %d", trainer.step, config.steps)
        elif options.start_from:
            trainer.start_from(options.start_from)
        workers = start_workers(options.workers, pool.folder, train, config, int(time.time()))
        logger.info(
            "%d tasks train, %d are held back; waiting for %d groups", len(train), len(back), options.start_with
        )
        wait_for(pool, min(options.start_with, config.pool.slots), workers)
        writer = SummaryWriter(str(options.runs))
        means = RunningMeans()

        def validate() -> dict[str, float]:
            scores = trainer.validate(list(held.values())) if held else {}
            if scores:
                logger.info("step %d, held back: %s", trainer.step, RunningMeans.text(scores))
            for name, value in scores.items():
                writer.add_scalar(f"held_back/{name}", value, trainer.step)
            if options.out:
                trainer.export(options.out, tasks=[path.name for path in train], scores=scores)
            return scores

        def report(step: int, figures: dict[str, float]) -> None:
            means.add(figures)
            for name, value in figures.items():
                writer.add_scalar(f"training/{name}", value, step)
            if (step + 1) % 50 == 0:
                seconds, text = means.take()
                logger.info("step %d of %d, %.2f s: %s", step + 1, config.steps, seconds, text)
            if (step + 1) % options.validate_every == 0:
                validate()

        trainer.run(minutes=options.minutes, report=report)
        validate()
    except (PretrainingDataError, CheckpointError, FloatingPointError, RuntimeError, ValueError) as error:
        print(f"pretrain: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        trainer.save()
        logger.info("interrupted at step %d; the same command goes on from here", trainer.step)
        return 130
    finally:
        for worker in workers:
            worker.terminate()
        if writer is not None:
            writer.close()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    raise SystemExit(main())
