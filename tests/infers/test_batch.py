"""Many studies in one request, some of which cannot be segmented."""

import shutil

import pytest
from app_in_process import build_app
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.exception import ImageNotFoundException

from proxyprompt.errors import refuse
from proxyprompt.infers import batch
from proxyprompt.infers.batch import BatchInfer

IMAGES = ["a_bad", "b", "c_gone", "d"]
REASONS = {"a_bad": refuse("a_bad.nii.gz is cut short"), "c_gone": ImageNotFoundException("there is no c_gone")}


def infer(request: dict, datastore: Datastore) -> dict:
    if error := REASONS.get(request["image"]):
        raise error
    return {"label": f"{request['image']}.nii.gz"}


def run(images, **options):
    return BatchInfer()({"model": "proxyprompt", "images": images, **options}, None, infer)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_rest_is_done_and_the_bad_ones_are_named(workers, caplog):
    done = run(IMAGES, max_workers=workers)
    assert {name: set(answer) for name, answer in done.items()} == {
        "a_bad": {"error"},
        "b": {"label"},
        "c_gone": {"error"},
        "d": {"label"},
    }
    assert "cut short" in done["a_bad"]["error"]
    assert "2 of 4 studies were not segmented" in caplog.text and "there is no c_gone" in caplog.text


def test_the_exit_status_of_a_process_of_its_own_says_so(monkeypatch):
    monkeypatch.setattr(batch, "in_task_process", lambda: True)
    with pytest.raises(SystemExit) as caught:
        run(IMAGES, max_workers=1)
    assert isinstance(caught.value.code, str)  # printed, and the status is 1
    assert "a_bad" in caught.value.code and "c_gone" in caught.value.code
    assert set(run(["b", "d"], max_workers=1)) == {"b", "d"}


def test_what_is_our_own_fault_is_named_and_stops_nobody(caplog):
    def broken(request, datastore):
        if request["image"] == "b":
            raise ZeroDivisionError("by nothing")
        return infer(request, datastore)

    done = BatchInfer()({"images": ["b", "d"], "max_workers": 1}, None, broken)
    assert done == {"b": {"error": "ZeroDivisionError: by nothing"}, "d": {"label": "d.nii.gz"}}
    assert "Traceback" in caplog.text


def test_no_more_than_was_asked_for():
    assert list(run(["d", "b", "e"], max_batch_size=2)) == ["b", "d"]


def test_damaged_studies_among_real_ones(tmp_path, weights, drawn_samples):
    shutil.copytree(drawn_samples, tmp_path, dirs_exist_ok=True)
    unlabelled = ["us_08", "us_09"]
    for name in ("us_07", "us_10"):
        (tmp_path / f"{name}.png").write_bytes((tmp_path / f"{name}.png").read_bytes()[:300])
    app = build_app(tmp_path, weights)
    done = app.batch_infer({"model": "proxyprompt", "images": ["us_07", *unlabelled, "us_10"], "max_workers": 1})
    assert [name for name, answer in done.items() if "error" in answer] == ["us_07", "us_10"]
    assert all(app.datastore().get_label_uri(name, "original") for name in unlabelled)
