"""What README points to runs as it stands."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_predictor(samples, tmp_path):
    command = [sys.executable, str(EXAMPLES / "predictor.py"), "--studies", str(samples), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "head" in done.stdout and "pixels after two clicks" in done.stdout and "organ" in done.stdout
    truth = np.asarray(Image.open(samples.parent / "studies.truth" / "us_07.png"))
    drawn = np.asarray(Image.open(tmp_path / "us_07.png"))
    assert 2 * ((drawn == 1) & (truth == 1)).sum() / ((drawn == 1).sum() + (truth == 1).sum()) > 0.8
    assert (tmp_path / "mr_05.nii.gz").is_file()
