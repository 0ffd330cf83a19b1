#!/usr/bin/env python3
"""Pretrain ``atto``."""
from __future__ import annotations
import argparse, json, logging, os, sys, time
from collections import defaultdict
from pathlib import Path
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "apps" / "proxyprompt"))
def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--data", type=Path, required=True); p.add_argument("--folder", type=Path, required=True)
    p.add_argument("--pool", type=Path); p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--steps", type=int); p.add_argument("--workers", type=int, default=1)
    p.add_argument("--threads", type=int, default=2); p.add_argument("--start", type=int, default=60)
    p.add_argument("--decay", type=float); p.add_argument("--from", dest="source", type=Path)
    p.add_argument("--lr", type=float); p.add_argument("--size", type=int, default=384); p.add_argument("--export", type=Path); p.add_argument("--validate-every", type=int, default=500)
    o = p.parse_args()
    import torch
    from lib.pretraining.config import PretrainConfig
    from lib.pretraining.pool import GroupPool, GroupMaker, start_workers, wait_for
    from lib.pretraining.tasks import split_tasks, task_folders, read_task
    from lib.pretraining.trainer import Pretrainer
    from lib.foundation.pretrained_trunk import PretrainedTrunk
    torch.set_flush_denormal(True); torch.set_num_threads(o.threads); torch.backends.cuda.enable_flash_sdp(False); torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    opts = {k: v for k, v in (("steps", o.steps), ("decay", o.decay), ("learning_rate", o.lr), ("image_size", o.size)) if v is not None}
    config = PretrainConfig(**opts)
    train, back = split_tasks(task_folders(o.data), config.held_back)
    pool = GroupPool(o.pool or o.folder / "pool")
    workers = start_workers(o.workers, pool.folder, train, config.pool, config.image_size, "tf_efficientnet_lite0", int(time.time()))
    held = GroupPool(o.folder / f"held_back_{o.size}")
    if not held.files():
        torch.manual_seed(5)
        from dataclasses import replace
        maker = GroupMaker([t for t in (read_task(f, config.image_size) for f in back) if t], replace(config.pool, kinds={"real": 1.0}), config.image_size, PretrainedTrunk().to(torch.bfloat16))
        from lib.pretraining.pool import _choose, Group
        import torch.nn.functional as F
        for n, task in enumerate(maker.tasks):
            chosen = _choose(task, 8, one=False)
            images, labels = task.images[chosen], task.labels[chosen]
            values = [v for v in labels.unique().tolist() if v]
            value = max(values, key=lambda v: int((labels == v).flatten(1).any(1).sum()))
            masks = F.avg_pool2d((labels == value).float()[:, None], 2) >= 0.5
            held.write(n, Group(images, maker.encode(images), masks, False))
            print(n, task.name, value, flush=True)
    wait_for(pool, o.start, workers)
    trainer = Pretrainer(config, o.folder, pool)
    trainer.resume(o.source)
    print("step", trainer.step, "parameters", sum(q.numel() for q in trainer.model.parameters()) / 1e6, flush=True)
    groups = [held.read(f) for f in held.files()]
    sums = defaultdict(list); last = [time.monotonic(), trainer.step]
    def report(step, figures):
        for k, v in figures.items():
            if v == v: sums[k].append(v)
        if (step + 1) % 25 == 0:
            now = time.monotonic()
            print(step + 1, f"{(now - last[0]) / (step + 1 - last[1]):.2f}s", f"lr {trainer.learning_rate():.1e}", " ".join(f"{k} {sum(v)/len(v):.3f}" for k, v in sorted(sums.items())), flush=True)
            sums.clear(); last[:] = [now, step + 1]
        if (step + 1) % o.validate_every == 0:
            t = time.monotonic()
            print("VALIDATE", step + 1, {k: round(v, 3) for k, v in trainer.validate(groups).items()}, f"{time.monotonic()-t:.0f}s", flush=True)
            if o.export: trainer.export(o.export, tasks=[f.name for f in train])
            last[0] = time.monotonic()
    trainer.run(minutes=o.minutes, report=report)
    if o.export: trainer.export(o.export, tasks=[f.name for f in train], scores=trainer.validate(groups))
    for w in workers: w.terminate()
if __name__ == "__main__": main()
