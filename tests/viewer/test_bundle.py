"""The patched copies of OHIF's files."""

import hashlib
import shutil
import subprocess

import pytest

from proxyprompt.viewer.bundle import ViewerError, prepare_viewer
from proxyprompt.viewer.patches import PATCHES, SHA256, Patch
from proxyprompt.viewer.serve import STOCK

ONE = Patch("a.js", "a reason", "old()", "new()")


@pytest.fixture
def stock(tmp_path):
    folder = tmp_path / "stock"
    folder.mkdir()
    (folder / "a.js").write_text("before; old(); after")
    return folder


def sums(folder):
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir() if f.is_file()}


def test_the_installed_bundle_is_patched_and_stays_as_it_is(tmp_path):
    made = prepare_viewer(STOCK, tmp_path / "viewer")
    assert {f.name for f in made.iterdir()} == set(SHA256)
    assert {name: sums(STOCK)[name] for name in SHA256} == SHA256
    for patch in PATCHES:
        text = (made / patch.file).read_text()
        assert patch.new in text
    assert prepare_viewer(STOCK, tmp_path / "viewer") == made
    assert [f.name for f in (tmp_path / "viewer").iterdir()] == [made.name]


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed: nothing to check JavaScript with")
def test_what_comes_out_is_javascript(tmp_path):
    made = prepare_viewer(STOCK, tmp_path / "viewer")
    for file in made.glob("*.js"):
        subprocess.run(["node", "--check", file], check=True, capture_output=True, timeout=60)


def test_nothing_of_it_asks_other_sites_for_fonts(tmp_path):
    made = prepare_viewer(STOCK, tmp_path / "viewer")
    for name in ("index.html", "app.bundle.css"):
        assert "googleapis" in (STOCK / name).read_text() and "googleapis" not in (made / name).read_text()
    assert "gstatic" not in (made / "index.html").read_text()


def test_other_content_gives_another_folder(stock, tmp_path):
    first = prepare_viewer(stock, tmp_path / "viewer", patches=[ONE], sha256=sums(stock))
    assert (first / "a.js").read_text() == "before; new(); after"
    other = Patch("a.js", "a reason", "old()", "newer()")
    assert prepare_viewer(stock, tmp_path / "viewer", patches=[other], sha256=sums(stock)) != first


def test_another_bundle_is_refused(stock, tmp_path):
    wanted = sums(stock)
    (stock / "a.js").write_text("before; old(); after that")
    with pytest.raises(ViewerError, match=r"a\.js: is another version than the patches were made for; install MONAI"):
        prepare_viewer(stock, tmp_path / "viewer", patches=[ONE], sha256=wanted)
    (stock / "a.js").unlink()
    with pytest.raises(ViewerError, match=r"a\.js: cannot be read"):
        prepare_viewer(stock, tmp_path / "viewer", patches=[ONE], sha256=wanted)
    assert not (tmp_path / "viewer").exists()


def test_a_patch_that_fits_twice_or_nowhere_is_refused(stock, tmp_path):
    (stock / "a.js").write_text("old(); old()")
    with pytest.raises(ViewerError, match=r"a\.js: what to patch \(a reason\) occurs 2 times"):
        prepare_viewer(stock, tmp_path / "viewer", patches=[ONE], sha256=sums(stock))
    (stock / "a.js").write_text("nothing")
    with pytest.raises(ViewerError, match="occurs 0 times"):
        prepare_viewer(stock, tmp_path / "viewer", patches=[ONE], sha256=sums(stock))
