"""The viewer's files: fetched, checked, unpacked."""

import base64
import gzip
import hashlib
import io
import tarfile

import pytest

from proxyprompt.viewer import package
from proxyprompt.viewer.package import PackageError, check, fetch, unpack, viewer_folder

PAGE = b"<html><head></head></html>"


def archive(path, **files):
    with tarfile.open(path, "w:gz") as out:
        for name, content in {"package/LICENSE": b"MIT", **files}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def sha512(path):
    return base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


@pytest.fixture
def packed(tmp_path):
    files = {
        "package/dist/index.html": PAGE,
        "package/dist/app.bundle.js": b"x" * 10_000,
        "package/dist/assets/a.svg": b"<svg/>",
        "package/dist/app.bundle.js.map": b"{}",
        "package/dist/ort/ort.wasm": b"engine",
        "package/dist/../../escaped.txt": b"no",
        "package/package.json": b"{}",
    }
    return archive(tmp_path / "ohif.tgz", **files)


def test_what_is_not_needed_stays_out_and_large_texts_have_a_compressed_copy(packed, tmp_path):
    unpack(packed, tmp_path / "viewer")
    found = sorted(str(p.relative_to(tmp_path / "viewer")) for p in (tmp_path / "viewer").rglob("*") if p.is_file())
    assert found == ["LICENSE", "app.bundle.js", "app.bundle.js.gz", "assets/a.svg", "index.html"]
    assert gzip.decompress((tmp_path / "viewer/app.bundle.js.gz").read_bytes()) == b"x" * 10_000
    assert not (tmp_path / "escaped.txt").exists()


def test_an_archive_without_the_page_is_refused(tmp_path):
    with pytest.raises(PackageError, match=r"holds no dist/index\.html; expected the built viewer of @ohif/app"):
        unpack(archive(tmp_path / "other.tgz"), tmp_path / "viewer")


def test_other_bytes_than_those_that_were_pinned_are_refused(packed):
    check(packed, sha512(packed))
    with pytest.raises(PackageError, match="expected AAAA: it is not used"):
        check(packed, "AAAA")


def test_it_appears_whole_or_not_at_all(packed, tmp_path, monkeypatch):
    folder = tmp_path / "share" / "ohif"
    monkeypatch.setattr(package, "_packed", lambda temporary: packed)
    with pytest.raises(PackageError, match="it is not used"):
        fetch(folder)
    assert list(folder.parent.iterdir()) == []
    monkeypatch.setattr(package, "SHA512", sha512(packed))
    fetch(folder)
    assert (folder / "index.html").read_bytes() == PAGE and [p.name for p in folder.parent.iterdir()] == ["ohif"]
    monkeypatch.setattr(package, "_packed", lambda temporary: pytest.fail("fetched twice"))
    fetch(folder)


def test_without_npm_the_message_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(package.sys, "prefix", str(tmp_path))
    with pytest.raises(PackageError, match="npm is not here: install the requirements"):
        fetch(tmp_path / "share" / "ohif")


def test_npm_that_reaches_nothing_is_said(tmp_path, monkeypatch):
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'network is unreachable' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(PackageError, match=r"npm did not fetch @ohif/app@3\.13\.2: network is unreachable"):
        fetch(tmp_path / "share" / "ohif")


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.delenv("PROXYPROMPT_OHIF", raising=False)
    assert viewer_folder().name == "ohif-3.13.2"
    monkeypatch.setenv("PROXYPROMPT_OHIF", str(tmp_path))
    assert viewer_folder() == tmp_path
