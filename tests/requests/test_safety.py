"""Ids from the network never become paths."""

import contextlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from PIL import Image

from proxyprompt.requests.safety import SafeSessions, check_id, guard, image_path

PATHS = ["../evil", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:\\x", "~root", ".hidden", "a\0b", "a\nb", "x" * 201, ""]


@pytest.fixture
def studies(tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "one.png")
    (tmp_path / "outside.png").write_bytes((folder / "one.png").read_bytes())
    return folder


@pytest.fixture
def datastore(studies):
    return guard(LocalDatastore(str(studies), extensions=["*.png"]))


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in (".lock",)}


@pytest.mark.parametrize("value", [*PATHS, None, 3, ["one"], {"a": 1}])
def test_what_is_no_plain_name_is_refused(value):
    with pytest.raises(MONAILabelException) as caught:
        check_id(value)
    assert caught.value.error is MONAILabelError.INVALID_INPUT


@pytest.mark.parametrize("value", ["one", "1.2.840.113619.2.1", "Case 3 (left), v2", "näme_1-b", "a..b"])
def test_plain_names_pass(value):
    assert check_id(value) == value


def test_a_guarded_datastore_is_still_the_datastore(datastore, studies):
    assert isinstance(datastore, LocalDatastore)
    assert datastore.list_images() == ["one"]
    assert image_path(datastore, "one") == str((studies / "one.png").resolve())
    label = studies.parent / "mask.png"
    label.write_bytes((studies / "one.png").read_bytes())
    assert datastore.save_label("one", str(label), "final", {}) == "one"
    assert datastore.get_labeled_images() == ["one"]


@pytest.mark.parametrize("bad", ["../evil", "/tmp/evil", "..", "a/b"])
def test_nothing_is_written_outside(datastore, studies, bad):
    source = str(studies / "one.png")
    before = tree(studies.parent)
    calls = [
        lambda: datastore.add_image(bad, source, {}),
        lambda: datastore.save_label(bad, source, "final", {}),
        lambda: datastore.save_label("one", source, bad, {}),
        lambda: datastore.save_label("one", source, label_tag=bad, label_info={}),
        lambda: datastore.get_image_uri(bad),
        lambda: datastore.get_image(bad),
        lambda: datastore.get_label_uri("one", bad),
        lambda: datastore.remove_label(bad, "final"),
        lambda: datastore.remove_image(image_id=bad),
        lambda: datastore.update_label_info("one", bad, {}),
    ]
    for call in calls:
        with pytest.raises(MONAILabelException):
            call()
    assert tree(studies.parent) == before
    assert json.loads((studies / "datastore_v2.json").read_text())["objects"].keys() == {"one"}


@pytest.mark.parametrize("name", ["datastore_v2.json", "groups.csv", "code.py", "page.html", "plain"])
def test_only_studies_and_labels_are_stored(datastore, studies, name):
    other = studies.parent / name
    other.write_text("{}")
    before = tree(studies)
    for call in (
        lambda: datastore.add_image("two", str(other), {}),
        lambda: datastore.add_image("", str(other), {}),
        lambda: datastore.save_label("one", str(other), "final", {}),
    ):
        with pytest.raises(MONAILabelException) as caught:
            call()
        assert name in caught.value.msg
    assert tree(studies) == before


@pytest.mark.parametrize("info", [["a"], "text", 3])
def test_what_is_noted_is_an_object(datastore, studies, info):
    for call in (
        lambda: datastore.update_image_info("one", info),
        lambda: datastore.save_label("one", str(studies / "one.png"), "final", info),
    ):
        with pytest.raises(MONAILabelException):
            call()
    assert datastore.get_labeled_images() == []


@pytest.fixture
def sessions(tmp_path):
    return SafeSessions(str(tmp_path / "sessions"))


def archive(folder, member):
    """A tar file with one file in it, which says that it lies at ``member``."""
    folder.mkdir()
    with tarfile.open(folder / "studies.tar", "w") as tar:
        entry = tarfile.TarInfo(member)
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"evil"))
    return str(folder / "studies.tar")


def test_an_archive_unpacks_into_its_session_only(sessions, tmp_path):
    name, session = sessions.add_session(archive(tmp_path / "good", "in/one.png"), uncompress=True)
    assert [p.name for p in Path(session.image).rglob("*.png")] == ["one.png"]
    before = tree(tmp_path)
    for number, member in enumerate(("../../evil", str(tmp_path / "evil"))):
        with contextlib.suppress(MONAILabelException):
            sessions.add_session(archive(tmp_path / f"bad{number}", member), uncompress=True)
    assert not [p for p in tree(tmp_path).keys() - before.keys() if p.name == "evil" and p.parent == tmp_path]
    link = tarfile.TarInfo("in/link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        tar.addfile(link)
    with pytest.raises(MONAILabelException, match="in/link"):
        sessions.add_session(str(tmp_path / "link.tar"), uncompress=True)
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no archive")
    with pytest.raises(MONAILabelException):
        sessions.add_session(str(broken), uncompress=True)
    assert sessions.get_session(name)


def test_a_session_has_a_plain_name_and_so_has_its_file(sessions, tmp_path):
    (tmp_path / ".hidden").write_bytes(b"x")
    for call in (
        lambda: sessions.get_session("../one"),
        lambda: sessions.remove_session(".."),
        lambda: sessions.add_session(str(tmp_path / ".hidden")),
    ):
        with pytest.raises(MONAILabelException):
            call()


def test_an_unknown_image_names_the_known_ones(datastore):
    with pytest.raises(ImageNotFoundException) as caught:
        image_path(datastore, "two")
    assert "two" in caught.value.msg and "one" in caught.value.msg


def test_an_existing_path_is_not_an_image(datastore, studies):
    for path in (studies.parent / "outside.png", studies / "one.png"):
        with pytest.raises(MONAILabelException):
            image_path(datastore, str(path))
