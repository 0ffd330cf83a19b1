"""Image files with a few bytes changed: read, or refused in a sentence; never a crash, a hang, or all of the memory.

PROXYPROMPT_FUZZ_MINUTES makes it longer: an hour is 60.
"""

import os
import random
import resource
import signal
import time
import traceback
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from dicom_files import save_series
from PIL import Image

from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import read_study

pytestmark = [pytest.mark.faults, pytest.mark.timeout(7200)]

SECONDS = 60 * float(os.environ.get("PROXYPROMPT_FUZZ_MINUTES", "0")) or 4.0
AT_ONCE = 40
EACH_SECONDS = 60
MEMORY = 4 << 30
HEADER = 600
NUMBERS = (b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x40\x9c\0\0", b"\0\0\x9c\x40")
KINDS = ("a.png", "b.png", "a.jpg", "a.tif", "a.bmp", "a.ppm", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.dcm")


def write_valid(folder: Path) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    gray, deep = rng.integers(0, 255, (24, 20), np.uint8), rng.integers(0, 4000, (24, 20), np.uint16)
    Image.fromarray(gray).save(folder / "a.png")
    Image.fromarray(deep).save(folder / "b.png")
    Image.fromarray(np.stack([gray] * 3, -1)).save(folder / "a.jpg")
    tifffile.imwrite(folder / "a.tif", deep, compression="zlib")
    Image.fromarray(gray).save(folder / "a.bmp")
    Image.fromarray(np.stack([gray] * 3, -1)).save(folder / "a.ppm")
    volume = rng.normal(size=(6, 7, 8)).astype(np.float32)
    for name in ("a.nii", "a.nii.gz"):
        nib.save(nib.Nifti1Image(volume, np.diag([1.5, 1.5, 3, 1])), folder / name)
    for name in ("a.nrrd", "a.mha"):
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(folder / name), True)
    save_series(folder / "series", deep[None])
    (folder / "a.dcm").write_bytes(next((folder / "series").iterdir()).read_bytes())
    return {name: (folder / name).read_bytes() for name in KINDS}


def mutated(content: bytes, drawn: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(drawn.choice([1, 1, 2, 5, 20])):
        place = drawn.randrange(min(len(changed), HEADER))
        what = drawn.random()
        if what < 0.5:
            changed[place] = drawn.choice([0, 1, 127, 128, 255, drawn.randrange(256)])
        elif what < 0.7:
            changed[place : place + 4] = drawn.choice(NUMBERS)
        elif what < 0.85:
            del changed[place : place + drawn.randrange(1, 9)]
        else:
            changed[place:place] = drawn.randbytes(drawn.randrange(1, 9))
        if len(changed) < 2:
            break
    return bytes(changed)


@pytest.mark.parametrize("name", KINDS)
def test_a_changed_file_is_read_or_refused(tmp_path, name):
    content = write_valid(tmp_path)[name]
    end, seed, tried = time.monotonic() + SECONDS / len(KINDS), 0, 0
    while time.monotonic() < end or not tried:
        child = os.fork()
        if child == 0:
            os._exit(_read_many(tmp_path / f"x{name}", content, seed))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"{name}, seed {seed}: ended with {status}"
        seed, tried = seed + 1, tried + AT_ONCE


def _read_many(path: Path, content: bytes, seed: int) -> int:
    soft = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
    drawn = random.Random(seed)
    for _ in range(AT_ONCE):
        path.write_bytes(mutated(content, drawn))
        signal.alarm(EACH_SECONDS)
        try:
            study = read_study(path)
            assert study.images([0]).shape[1] == 3
        except StudyError as error:
            if "\n" in str(error):
                traceback.print_exc()
                return 1
        except BaseException:
            traceback.print_exc()
            path.rename(path.with_name("found-" + path.name))
            return 1
        signal.alarm(0)
    return 0
