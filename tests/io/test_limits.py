"""Files of a few bytes that ask for all of a machine's memory."""

import gzip
import io
import tarfile
import zipfile

import pytest

from proxyprompt.io.errors import StudyError
from proxyprompt.io.limits import check_archive, check_size, gunzip


def test_a_size_that_no_scanner_makes(tmp_path):
    check_size(tmp_path, (1024, 1024, 1024))
    with pytest.raises(StudyError, match=r"10000 x 10000 x 10000 = 1,000,000,000,000 voxels"):
        check_size(tmp_path / "x.nii", (10_000, 10_000, 10_000))


def test_a_gzip_bomb(tmp_path):
    path = tmp_path / "x.ppm.gz"
    path.write_bytes(gzip.compress(b"\0" * (5 << 20)))
    assert len(gunzip(path)) == 5 << 20
    with pytest.raises(StudyError, match="more than 4 MB"):
        gunzip(path, most=4 << 20)


def test_archives_that_unpack_to_more_than_the_disk_should_take(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a", "b"):
            archive.writestr(name, b"\0" * (3 << 20))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in ("a", "b"):
            info = tarfile.TarInfo(name)
            info.size = 3 << 20
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
    (tmp_path / "plain").write_bytes(b"no archive")
    for name in ("a.zip", "a.tar.gz"):
        assert (tmp_path / name).stat().st_size < 20_000
        check_archive(tmp_path / name, most=6 << 20)
        with pytest.raises(StudyError, match="more than 5 MB"):
            check_archive(tmp_path / name, most=5 << 20)
    check_archive(tmp_path / "plain", most=1)
