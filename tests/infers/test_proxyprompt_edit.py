"""The interactive task on a real datastore: clicks are obeyed, change only what they should, and undo."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from app_in_process import build_app
from monailabel.interfaces.exception import MONAILabelException
from PIL import Image

from proxyprompt.infers.corrections import TAKES, pixels


def edit(app, image, **params):
    result = app.infer({"model": "proxyprompt_edit", "image": image, **params})
    path = Path(result["file"])
    voxels = np.asarray(nibabel.load(path).dataobj) if path.suffix == ".gz" else np.asarray(Image.open(path)).T
    return voxels, result["params"]


def refused(app, image, **params):
    with pytest.raises(MONAILabelException) as caught:
        edit(app, image, **params)
    return caught.value.msg


@pytest.fixture(scope="module")
def ids(app):
    return app.info()["models"]["proxyprompt_edit"]["labels"]


def empty_and_full(voxels, id):
    """A voxel without the structure and one inside it."""
    return [int(n) for n in np.argwhere(voxels == 0)[7]], [int(n) for n in np.argwhere(voxels == id)[-7]]


def test_viewers_list_it_where_they_offer_points(app):
    task = app.info()["models"]["proxyprompt_edit"]
    assert task["type"] == "deepedit"
    assert task["config"]["support"][0] == "auto"
    assert task["config"]["agreement"] is False
    assert task["labels"] == app.info()["models"]["proxyprompt"]["labels"]


def test_without_clicks_it_is_the_plain_task(app):
    plain = app.infer({"model": "proxyprompt", "image": "us_09"})
    voxels, answer = edit(app, "us_09")
    np.testing.assert_array_equal(voxels, np.asarray(Image.open(plain["file"])).T)
    assert answer["label_names"] == plain["params"]["label_names"]
    assert answer["clicks"] == {}


def test_clicks_are_obeyed_and_undone(app, ids):
    before, _ = edit(app, "us_09", structure="head")
    out, in_ = empty_and_full(before, ids["head"])
    after, answer = edit(app, "us_09", structure="head", head=[[*out, 0]], background=[[*in_, 0]])
    assert after[tuple(out)] == ids["head"] and after[tuple(in_)] == 0
    said = answer["clicks"]["head"]
    assert (said["inside"], said["outside"], said["slices"]) == (1, 1, [0]) and 0 <= said["enforced"] <= 2
    one, _ = edit(app, "us_09", structure="head", head=[[*out, 0]])
    assert one[tuple(out)] == ids["head"]
    undone, _ = edit(app, "us_09", structure="head")
    np.testing.assert_array_equal(undone, before)


def test_only_the_clicked_structure_on_the_clicked_slice_changes(app, ids):
    before, _ = edit(app, "mr_06", structure=["organ", "nodule"])
    (organ, nodule), slice_ = (ids["organ"], ids["nodule"]), 3
    x, y = np.argwhere(before[:, :, slice_] == 0)[40]
    after, answer = edit(app, "mr_06", structure=["organ", "nodule"], organ=[[int(x), int(y), slice_]])
    assert after[x, y, slice_] == organ
    others = np.arange(before.shape[2]) != slice_
    np.testing.assert_array_equal(after[:, :, others], before[:, :, others])
    near = np.hypot(*(np.indices(before.shape[:2]) - np.array([x, y])[:, None, None])) <= pixels(
        TAKES, before.shape[:2]
    )
    was, is_ = before[:, :, slice_][~near], after[:, :, slice_][~near]
    assert (is_[was == nodule] == nodule).all()
    assert (was[is_ == nodule] != 0).all()  # it may only come to light where what lay on top of it went
    assert answer["clicks"]["organ"]["inside"] == 1


def test_a_click_elsewhere_leaves_what_a_click_made(app, ids):
    """What one click made on a slice does not depend on what is clicked on another slice or of another structure."""
    first = {"organ": [[4, 4, 2]]}
    one, _ = edit(app, "mr_06", structure=["organ", "nodule"], **first)
    two, _ = edit(app, "mr_06", structure=["organ", "nodule"], organ=[[4, 4, 2], [9, 9, 5]], nodule=[[20, 20, 7]])
    for z in set(range(one.shape[2])) - {5, 7}:
        np.testing.assert_array_equal(one[:, :, z], two[:, :, z])


def test_the_result_holds_what_was_clicked(app, ids):
    voxels, answer = edit(app, "us_09", head=[[5, 5, 0]])
    assert set(np.unique(voxels)) <= {0, ids["head"]} and set(answer["label_names"]) == {"head"}
    voxels, answer = edit(app, "us_09", label="symphysis", foreground=[[5, 5, 0]], background=[])
    assert voxels[5, 5] == ids["symphysis"] and set(answer["label_names"]) == {"symphysis"}


def test_the_rest_stays_as_the_plain_task_drew_it(app, ids):
    """A point outside, where nothing is drawn, has nothing to take away."""
    whole, _ = edit(app, "us_09")
    x, y = (int(n) for n in np.argwhere(whole == 0)[0][:2])
    one, _ = edit(app, "us_09", label="symphysis", background=[[x, y, 0]])
    np.testing.assert_array_equal(one == ids["symphysis"], whole == ids["symphysis"])


def test_a_point_in_nothing_clears_whatever_is_drawn_there(app):
    whole, _ = edit(app, "us_09")
    x, y = (int(n) for n in np.argwhere(whole > 0)[11])
    cleared, _ = edit(app, "us_09", structure=["head", "symphysis"], background=[[x, y, 0]])
    assert cleared[x, y] == 0


def test_a_click_costs_one_decoding(app):
    """Everything else comes from the cache: nothing is encoded, and what was decoded is not decoded again."""
    edit(app, "mr_05")
    misses = app.cache.stats()["misses"]
    _, answer = edit(app, "mr_05", organ=[[6, 6, 2]])
    assert app.cache.stats()["misses"] == misses + 1
    assert answer["latencies"]["click"] > 0 and answer["latencies"]["agreement"] == 0
    edit(app, "mr_05", organ=[[6, 6, 2], [9, 9, 2]])
    edit(app, "mr_05", organ=[[6, 6, 2]])  # undo
    assert app.cache.stats()["misses"] == misses + 2


def test_a_structure_that_does_not_suit_can_be_clicked_all_the_same(app, ids):
    voxels, answer = edit(app, "us_09", disc=[[5, 5, 0]])
    assert voxels[5, 5] == ids["disc"] and set(answer["label_names"]) == {"disc"}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"heart": [[1, 1, 0]]}, ["heart", "head"]),
        ({"label": "heart", "foreground": [[1, 1, 0]]}, ["heart", "head"]),
        ({"head": [[1, 1, 5]]}, ["outside", "size"]),
        ({"head": [[1e6, 1, 0]]}, ["outside"]),
        ({"suport": "us_01"}, ["suport"]),
    ],
)
def test_what_cannot_be_used_is_refused(app, params, words):
    message = refused(app, "us_09", **params)
    assert all(word in message for word in words), message


def test_clicks_alone_segment_where_nothing_is_labelled(samples, weights, tmp_path):
    shutil.copy(samples / "us_09.png", tmp_path)
    app = build_app(tmp_path, weights, labels="head=1,neck=2")
    assert app.info()["models"]["proxyprompt_edit"]["labels"] == {"head": 1, "neck": 2}
    voxels, answer = edit(app, "us_09", head=[[30, 40, 0]], background=[[2, 2, 0]])
    assert voxels[30, 40] == 1 and voxels[2, 2] == 0
    assert any("clicks alone" in warning and "head" in warning for warning in answer["warnings"])
    assert answer["supports"] == []
    assert "no labelled study" in refused(app, "us_09")
    assert "no labelled study" in refused(app, "us_09", structure="neck", head=[[30, 40, 0]])


def test_a_box_is_a_prompt_and_the_structure_stays_within_it(app, ids):
    before, _ = edit(app, "us_09", structure="head")
    (left, top), (right, bottom) = (
        np.argwhere(before == ids["head"]).min(0),
        np.argwhere(before == ids["head"]).max(0),
    )
    half = [[[int(left), int(top), 0], [int((left + right) // 2), int(bottom), 0]]]
    after, answer = edit(app, "us_09", structure="head", head={"boxes": half})
    within = np.zeros(after.shape, bool)
    within[left : (left + right) // 2 + 1, top : bottom + 1] = True
    assert not (after[~within] == ids["head"]).any() and (after[within] == ids["head"]).any()
    assert (after[within] != before[within]).any()  # more than cut off: the decoder was told
    assert answer["clicks"]["head"] == {"inside": 0, "outside": 0, "boxes": 1, "slices": [0], "enforced": 0}
    out = [int(right), int(bottom), 0]
    both, _ = edit(app, "us_09", structure="head", head={"boxes": half, "foreground": [out]})
    assert both[tuple(out[:2])] == ids["head"]
