"""Small files that claim, or unpack to, more than any machine holds: refused in a sentence, with memory flat."""

import gzip
import os
import struct
import traceback
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
from dicom_files import save_series

from proxyprompt.io.errors import StudyError
from proxyprompt.io.readers import read_raster

SIDE = 50_000
GROWTH_MB = 100


def png(path):
    """All of its 2.5 thousand million pixels are there."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, row = zlib.compressobj(1), b"\0" * (1 + SIDE // 8)
    packed = b"".join(packer.compress(row) for _ in range(SIDE)) + packer.flush()
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def nifti(path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header["dim"] = [3, 10_000, 10_000, 10_000, 1, 1, 1, 1]
    header["magic"], header["vox_offset"] = b"n+1\0", 352
    content = header.binaryblock + b"\0" * 4 + b"\0" * 1000
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def nrrd(path):
    text = "NRRD0004\ntype: short\ndimension: 3\nsizes: 10000 10000 10000\nendian: little\nencoding: gzip\n\n"
    path.write_bytes(text.encode() + gzip.compress(b"\0" * (64 << 20)))


def tiff(path):
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), compression="zlib", rowsperstrip=64)
    content = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        places = [tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    for place in places:
        struct.pack_into("<H", content, place, SIDE)
    path.write_bytes(content)


def ppm(path):
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(f"P6\n{SIDE} {SIDE}\n255\n".encode())
    path.write_bytes(packed + b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(256)) + packer.flush())


def long_ppm(path):
    """An honest header before what never ends."""
    packer = zlib.compressobj(9, wbits=31)
    packed = packer.compress(b"P6\n8 8\n255\n")
    path.write_bytes(packed + b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(512)) + packer.flush())


def dicom(path):
    save_series(path.parent / "series", np.zeros((1, 8, 8), np.int16))
    (file,) = (path.parent / "series").iterdir()
    header = pydicom.dcmread(file)
    header.Rows = header.Columns = 65_535
    header.NumberOfFrames = 10_000
    header.save_as(path)


BOMBS = {
    "a.png": (png, "pixels"),
    "a.nii": (nifti, "1,000,000,000,000 voxels"),
    "a.nii.gz": (nifti, "1,000,000,000,000 voxels"),
    "a.nrrd": (nrrd, "1,000,000,000,000 voxels"),
    "a.tif": (tiff, "2,500,000,000 voxels"),
    "a.ppm.gz": (ppm, "2,500,000,000 voxels"),
    "b.ppm.gz": (long_ppm, "unpacks to more"),
    "a.dcm": (dicom, "cut short"),
}


def highest_mb():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_a_sentence_with_memory_flat(tmp_path, name):
    write, words = BOMBS[name]
    path = tmp_path / name
    write(path)
    assert path.stat().st_size < 2 << 20
    child = os.fork()  # a process of its own has its own highest memory
    if child == 0:
        status = 1
        try:
            before = highest_mb()
            with pytest.raises(StudyError, match=words) as caught:
                read_raster(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)
            assert highest_mb() - before < GROWTH_MB, highest_mb() - before
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
