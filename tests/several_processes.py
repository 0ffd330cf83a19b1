"""A module to be started with ``python -m``: trains nothing, but in two processes. argv: a folder, and what happens."""

import os
import sys
from pathlib import Path

from torch import distributed

from proxyprompt.trainers import processes

folder, happens = Path(sys.argv[1]), sys.argv[2]
processes._GRACE_SECONDS = 1.0
with processes.several(2, "cpu", logs=folder):
    ranks = [None, None]
    distributed.all_gather_object(ranks, (distributed.get_rank(), os.getppid()))
    if happens == "killed" and processes.joins():
        os._exit(3)
    if happens == "killed":
        while True:  # as in a computation that nothing interrupts
            pass
    if happens == "error":
        raise ValueError(f"of {distributed.get_rank()}")
    print("ranks", [rank for rank, _ in ranks], "started by the first:", ranks[1][1] == os.getpid())
