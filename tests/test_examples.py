"""What README points to runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


def run_page(page, samples, folder):
    """Run the Python of a page, all of it as one program, in ``folder``, beside samples/studies."""
    (folder / "samples").mkdir()
    (folder / "samples" / "studies").symlink_to(samples)
    program = "\n".join(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    )
    assert "ProxyPromptPredictor" in program
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_readme(samples, tmp_path):
    run_page(ROOT / "README.md", samples, tmp_path)
    truth = np.asarray(Image.open(samples.parent / "studies.truth" / "us_07.png"))
    drawn = np.asarray(Image.open(tmp_path / "us_07_label.png"))
    assert 2 * ((drawn == 1) & (truth == 1)).sum() / ((drawn == 1).sum() + (truth == 1).sum()) > 0.7


@pytest.mark.slow
def test_python_page(samples, tmp_path):
    run_page(ROOT / "docs" / "how-to" / "python.md", samples, tmp_path)
    assert np.asarray(Image.open(tmp_path / "look.png")).any()
    made, image = (nib.load(path) for path in (tmp_path / "mr_05_label.nii.gz", samples / "mr_05.nii.gz"))
    assert made.shape == image.shape and np.asarray(made.dataobj).any()


def test_predictor(samples, tmp_path):
    command = [sys.executable, str(EXAMPLES / "predictor.py"), "--studies", str(samples), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "head" in done.stdout and "pixels after two clicks" in done.stdout and "organ" in done.stdout
    truth = np.asarray(Image.open(samples.parent / "studies.truth" / "us_07.png"))
    drawn = np.asarray(Image.open(tmp_path / "us_07.png"))
    assert 2 * ((drawn == 1) & (truth == 1)).sum() / ((drawn == 1).sum() + (truth == 1).sum()) > 0.8
    assert (tmp_path / "mr_05.nii.gz").is_file()
