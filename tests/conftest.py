"""Shared by all tests: the app folder on the path, few threads, no surprises from the environment."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
APP = ROOT / "apps" / "proxyprompt"
sys.path.insert(0, str(APP))
sys.path.insert(0, str(ROOT / "scripts"))
sys.path.insert(0, str(ROOT / "tests"))
