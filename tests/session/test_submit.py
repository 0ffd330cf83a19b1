"""A label comes in: what is noted with it, and what that means for its use as support."""

import shutil

import numpy as np
import pytest
from app_in_process import build_app
from PIL import Image

from proxyprompt.supports.library import NOTE


@pytest.fixture
def app(samples, weights, tmp_path):
    """The ultrasound samples, in a folder of their own."""
    studies = tmp_path / "studies"
    shutil.copytree(samples, studies, ignore=shutil.ignore_patterns("rgb_*", "mr_*", ".proxyprompt"))
    return build_app(studies, weights)


def submit(app, image, path, tag="final"):
    """What MONAI Label's endpoint does with an uploaded label."""
    names = app.info()["models"]["proxyprompt"]["labels"]
    info = {"label_info": [{"name": name, "idx": id} for name, id in names.items()]}
    app.on_save_label(image, app.datastore().save_label(image, str(path), tag, info))


def note(app, image):
    return app.datastore().get_label_info(image, "final").get(NOTE)


def propose(app, image, **options):
    result = app.infer({"model": "proxyprompt", "image": image, **options})
    return result["file"], result["params"]


def edit(path, tmp_path):
    plain_image = np.asarray(Image.open(path)).copy()
    plain_image[:3, :3] = 1 - (plain_image[:3, :3] == 1)
    edited = tmp_path / "edited.png"
    Image.fromarray(plain_image).save(edited)
    return edited


def test_a_label_accepted_unchanged_is_marked_and_ranks_last(app, tmp_path):
    path, answer = propose(app, "us_07")
    submit(app, "us_07", path)
    noted = note(app, "us_07")
    assert noted["changed_voxels"] == 0 and noted["accepted_unchanged"] is True
    assert noted["adapter"] == answer["adapter"] and noted["weights_sha256"] == answer["weights_sha256"]
    assert set(noted["supports"]) == {used["id"] for used in answer["supports"]}
    assert app.library.studies()["us_07"].accepted_unchanged
    # the most similar study there is: the same image, but for one pixel
    twin = np.asarray(Image.open(app.library.studies()["us_07"].image_path)).copy()
    twin.flat[0] ^= 1
    Image.fromarray(twin).save(tmp_path / "twin.png")
    app.datastore().add_image("twin", str(tmp_path / "twin.png"), {})
    _, answer = propose(app, "twin", supports=2)
    assert "us_07" not in {used["id"] for used in answer["supports"]}
    submit(app, "us_07", edit(path, tmp_path))
    assert not app.library.studies()["us_07"].accepted_unchanged
    _, answer = propose(app, "twin", supports=2)
    assert answer["supports"][0]["id"] == "us_07"


def test_the_changed_voxels_are_counted(app, tmp_path):
    path, _ = propose(app, "us_08")
    submit(app, "us_08", edit(path, tmp_path))
    assert note(app, "us_08")["changed_voxels"] == 9
    assert not app.library.studies()["us_08"].accepted_unchanged


def test_a_label_drawn_without_a_proposal_has_no_note(app):
    submit(app, "us_09", app.library.studies()["us_01"].label_path)
    assert note(app, "us_09") is None
    assert "us_09" in app.library.ids()


def test_a_later_proposal_does_not_change_what_was_noted(app, tmp_path):
    path, _ = propose(app, "us_08")
    submit(app, "us_08", edit(path, tmp_path))
    before = note(app, "us_08")
    path, _ = propose(app, "us_08", structure="head")
    submit(app, "us_08", path, tag="original")
    assert note(app, "us_08") == before


def test_what_the_server_saves_as_final_itself_is_marked(app):
    app.infer({"model": "proxyprompt", "image": "us_10", "save_label": True, "label_tag": "final"})
    assert note(app, "us_10")["accepted_unchanged"] is True


def test_an_edit_of_the_file_takes_the_mark_off(app, tmp_path):
    path, _ = propose(app, "us_07")
    submit(app, "us_07", path)
    label = app.library.studies()["us_07"].label_path
    shutil.copy(edit(label, tmp_path), label)
    assert not app.library.studies()["us_07"].accepted_unchanged
