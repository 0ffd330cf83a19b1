"""The infer task on a real datastore: drop-downs, grids, ids, the answer's JSON, refusals, shared use."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import nrrd
import numpy as np
import pytest
from app_in_process import build_app
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from PIL import Image

from proxyprompt.predictor.latency import STAGES
from proxyprompt.server.answers import status_of

DISCLAIMER = "Research use only"


def infer(app, image, **params):
    """What MONAI Label's endpoint does: the options of the request beside model and image."""
    result = app.infer({"model": "proxyprompt", "image": image, **params})
    return Path(result["file"]), result["params"]


def refused(app, image, **params):
    with pytest.raises(MONAILabelException) as caught:
        infer(app, image, **params)
    assert caught.value.error is MONAILabelError.INVALID_INPUT
    return caught.value.msg


def test_the_drop_downs_show_the_datastore(app):
    info = app.info()
    assert DISCLAIMER in info["description"]
    task = info["models"]["proxyprompt"]
    assert task["type"] == "segmentation"
    assert task["config"]["support"][0] == "auto"
    assert set(task["config"]["support"][1:]) == set(app.datastore().get_labeled_images())
    assert task["config"]["structure"] == ["all", *task["labels"]]
    assert task["config"]["supports"] == ["4", "1", "2", "8", "16"]
    assert task["config"]["adapter"] == ["atto-1"]
    assert sorted(task["labels"].values()) == list(range(1, len(task["labels"]) + 1))


def test_an_image_comes_back_on_its_own_grid_with_registry_ids(app, samples):
    path, answer = infer(app, "us_09")
    result = np.asarray(Image.open(path))
    assert result.shape == np.asarray(Image.open(samples / "us_09.png")).shape[:2]
    assert result.dtype == np.uint8
    labels = app.info()["models"]["proxyprompt"]["labels"]
    assert answer["label_names"] == {name: labels[name] for name in ("head", "symphysis")}
    assert set(np.unique(result)) - {0} <= set(answer["label_names"].values())
    assert result.any()


def test_a_volume_comes_back_on_its_own_grid(app, samples):
    path, answer = infer(app, "mr_06", result_extension=".nii.gz")
    image, result = nibabel.load(samples / "mr_06.nii.gz"), nibabel.load(path)
    assert result.shape == image.shape
    np.testing.assert_array_equal(result.affine, image.affine)
    assert result.get_data_dtype() == np.uint8
    assert set(answer["label_names"]) == {"organ", "nodule"}


def test_the_viewer_gets_raw_nrrd(app, samples):
    options = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    path, _ = infer(app, "mr_06", **options, restore_label_idx=False)
    header, _, voxels = path.read_bytes().partition(b"\n\n")
    assert b"encoding: raw" in header
    assert len(voxels) == np.prod(nibabel.load(samples / "mr_06.nii.gz").shape)


def test_one_structure_keeps_its_id(app):
    labels = app.info()["models"]["proxyprompt"]["labels"]
    path, answer = infer(app, "us_09", structure="symphysis")
    assert answer["label_names"] == {"symphysis": labels["symphysis"]}
    assert set(np.unique(np.asarray(Image.open(path)))) <= {0, labels["symphysis"]}


def test_the_answer_says_how_it_came_about(app):
    _, answer = infer(app, "rgb_08", supports="2")
    assert len(answer["supports"]) == 2
    for used in answer["supports"]:
        assert used["id"].startswith("rgb_") and -1 <= used["similarity"] <= 1
        assert used["same_group"] is False
    for found in answer["structures"].values():
        assert 0 <= found["presence_mean"] <= found["presence_max"] <= 1
        assert found["pieces"] == 1
        assert 0 <= found["agreement"] <= 1
    assert answer["adapter"] == "atto-1"
    assert len(answer["weights_sha256"]) == 64
    assert DISCLAIMER in answer["disclaimer"]


def test_a_volume_is_searched_where_its_supports_show_the_structure(app):
    path, answer = infer(app, "mr_05")
    depth = nibabel.load(path).shape[2]
    found = answer["structures"].values()
    assert all(0 < one["slices_searched"] <= depth and one["slices"] <= one["slices_searched"] for one in found)
    assert any(one["slices_searched"] < depth for one in found)
    _, answer = infer(app, "mr_05", everywhere=True)
    assert all(one["slices_searched"] == depth for one in answer["structures"].values())


def test_the_latencies_are_a_true_split(app):
    _, answer = infer(app, "rgb_07")
    latencies = answer["latencies"]
    assert set(latencies) == {*STAGES, "other", "total"}
    assert latencies["total"] > 0
    assert sum(v for k, v in latencies.items() if k != "total") == pytest.approx(latencies["total"], abs=0.01)
    assert latencies["decode"] > 0 and latencies["encode"] > 0


def test_a_repeated_request_gives_the_same_mask_from_the_cache(app):
    first, _ = infer(app, "rgb_10")
    encoded = app.cache.stats()["misses"]
    second, _ = infer(app, "rgb_10")
    assert app.cache.stats()["misses"] == encoded
    np.testing.assert_array_equal(np.asarray(Image.open(first)), np.asarray(Image.open(second)))


def test_the_named_supports_are_used(app):
    _, answer = infer(app, "us_08", support="us_03")
    assert {used["id"] for used in answer["supports"]} == {"us_03"}
    assert all(found["agreement"] is None for found in answer["structures"].values())
    _, answer = infer(app, "us_08", support=["us_01", "us_04"])
    assert {used["id"] for used in answer["supports"]} == {"us_01", "us_04"}


def test_another_support_changes_the_result(app):
    masks = [np.asarray(Image.open(infer(app, "us_08", support=name)[0])) for name in ("us_03", "rgb_01")]
    assert not np.array_equal(*masks)


def test_agreement_can_be_left_out(app):
    _, answer = infer(app, "us_08", agreement=False)
    assert all(found["agreement"] is None for found in answer["structures"].values())
    assert answer["latencies"]["agreement"] == 0


def test_threads_share_the_model(app):
    images = ["us_07", "rgb_09", "us_07", "mr_05"]
    alone = {i: nibabel.load(f).get_fdata() if f.suffix == ".gz" else np.asarray(Image.open(f)) for i in set(images)
             for f in [infer(app, i)[0]]}  # fmt: skip
    app.cache.clear()
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda image: infer(app, image)[0], images))
    for image, path in zip(images, paths, strict=True):
        got = nibabel.load(path).get_fdata() if path.suffix == ".gz" else np.asarray(Image.open(path))
        np.testing.assert_array_equal(got, alone[image])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"support": "nobody"}, ["nobody", "does not exist", "us_01"]),
        ({"support": "us_10"}, ["us_10", "no final label"]),
        ({"support": "rgb_01", "structure": "head"}, ["rgb_01", "empty", "disc"]),
        ({"structure": "kidney"}, ["kidney", "head", "organ"]),
        ({"supports": "many"}, ["many", "1 to 64"]),
        ({"adapter": "atto-9"}, ["atto-9", "atto-1"]),
        ({"suport": "us_01"}, ["suport", "support"]),
        ({"result_extension": ".jpg"}, [".jpg", ".nrrd"]),
        ({"support": "../us_01"}, ["../us_01"]),
    ],
)
def test_bad_options_are_refused_with_the_valid_ones(app, params, words):
    message = refused(app, "us_09", **params)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("image", ["../studies/us_09", "..", "a/b", None, 7, ["us_09"]])
def test_an_image_that_is_a_path_is_refused(app, image):
    refused(app, image)


def test_an_existing_file_is_no_image(app, samples, tmp_path, monkeypatch):
    refused(app, str(samples / "us_09.png"))
    monkeypatch.chdir(samples)  # a name that happens to be a file of the working folder
    with pytest.raises(ImageNotFoundException):
        infer(app, "us_09.png")


def test_an_unknown_model_is_refused(app):
    with pytest.raises(MONAILabelException) as caught:
        app.infer({"model": "spleen", "image": "us_09"})
    assert "proxyprompt" in caught.value.msg


def test_the_result_can_be_saved_with_its_provenance(app):
    result = app.infer({"model": "proxyprompt", "image": "us_10", "save_label": True, "label_tag": "proposal"})
    assert result["label"] == "us_10"
    info = app.datastore().get_label_info("us_10", "proposal")
    assert info["params"]["supports"] == result["params"]["supports"]
    with pytest.raises(MONAILabelException):
        app.infer({"model": "proxyprompt", "image": "us_10", "save_label": True, "label_tag": "../out"})


@pytest.fixture
def bad_studies(samples, tmp_path):
    """A folder with one good support and one study for each way to be bad."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("us_01", "us_09"):
        shutil.copy(samples / f"{name}.png", folder)
    final = folder / "labels" / "final"
    final.mkdir(parents=True)
    shutil.copy(samples / "labels" / "final" / "us_01.png", final)
    (folder / "truncated.png").write_bytes((samples / "us_02.png").read_bytes()[:200])
    (folder / "text.nii.gz").write_bytes(b"not an image")
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(folder / "constant.png")
    Image.fromarray(np.full((1, 1), 7, np.uint8)).save(folder / "pixel.png")
    affine = np.eye(4)
    nibabel.save(nibabel.Nifti1Image(np.full((16, 16, 4), np.nan, np.float32), affine), folder / "nan.nii.gz")
    five = np.random.default_rng(0).normal(size=(8, 8, 4, 2, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(five, affine), folder / "five.nii.gz")
    shutil.copy(samples / "us_03.png", folder / "shifted.png")
    Image.fromarray(np.ones((5, 5), np.uint8)).save(final / "shifted.png")
    return folder


def test_bad_files_are_refused_one_by_one(bad_studies, weights):
    app = build_app(bad_studies, weights)
    for image in ("truncated", "text", "constant", "pixel", "nan", "five"):
        message = refused(app, image)
        assert image in message, message
    message = refused(app, "us_09", support="shifted")
    assert "shifted" in message and "5" in message, message
    _, answer = infer(app, "us_09")
    assert "shifted" in answer["skipped"]
    assert any("shifted" in warning for warning in answer["warnings"])


def test_without_a_labelled_study_the_error_says_what_to_do(samples, weights, tmp_path):
    shutil.copy(samples / "us_09.png", tmp_path)
    app = build_app(tmp_path, weights)
    message = refused(app, "us_09")
    assert "no labelled study" in message and "label" in message
    assert app.info()["models"]["proxyprompt"]["config"]["support"] == ["auto"]


def test_a_submitted_label_is_a_support_at_once(samples, weights, tmp_path):
    for name in ("us_01", "us_02", "us_09"):
        shutil.copy(samples / f"{name}.png", tmp_path)
    label = samples / "labels" / "final" / "us_01.png"
    app = build_app(tmp_path, weights, labels="skull=1")
    app.datastore().save_label("us_01", str(label), "final", {})
    app.on_save_label("us_01", "us_01")
    assert app.info()["models"]["proxyprompt"]["config"]["support"] == ["auto", "us_01"]
    assert infer(app, "us_09")[1]["supports"][0]["id"] == "us_01"


def test_weights_that_are_corrupt_or_gone_say_so_and_are_found_once_put_right(samples, tmp_path, weights):
    good, place = weights / "atto-1.safetensors", tmp_path / "atto-1.safetensors"
    place.write_bytes(good.read_bytes()[:1000])
    app = build_app(samples, tmp_path)
    for damage in (lambda: None, place.unlink):
        damage()
        with pytest.raises(MONAILabelException) as caught:
            infer(app, "us_09")
        assert status_of(caught.value) == 503
        assert "atto-" in caught.value.msg
        assert app.info()["models"]["proxyprompt"]["config"]["support"][0] == "auto"
    shutil.copy(good, place)
    assert infer(app, "us_09")[1]["adapter"] == "atto-1"


def test_segments_of_a_support_that_overlap_are_said_in_the_answer(tmp_path, samples, weights):
    folder = tmp_path / "studies"
    shutil.copytree(samples, folder)
    columns, rows = Image.open(folder / "us_01.png").size
    layers = np.zeros((2, columns, rows), np.uint8)
    layers[0, 20:60, 20:60], layers[1, 50:80, 20:90] = 1, 1
    header = {"kinds": ["list", "domain", "domain"], "space dimension": 2, "space origin": [0, 0]}
    header["space directions"] = np.array([[np.nan, np.nan], [1, 0], [0, 1]])
    for n, name in enumerate(("left", "right")):
        header |= {f"Segment{n}_Name": name, f"Segment{n}_Layer": str(n), f"Segment{n}_LabelValue": "1"}
    nrrd.write(str(tmp_path / "label.nrrd"), layers, header)
    app = build_app(folder, weights)
    app.datastore().save_label("us_01", str(tmp_path / "label.nrrd"), "final", {})
    _, answer = infer(app, "us_09", support="us_01")
    assert set(answer["label_names"]) == {"left", "right"}
    said = "segments 'right' and 'left' overlap in 400 voxels; they count for 'left', the smaller one"
    assert f"support us_01: {said}" in answer["warnings"]


def test_corrected_slices_stay_as_they_were_painted(app, samples, tmp_path):
    """Painted under a tag of their own; then said by their numbers."""
    before, _ = infer(app, "mr_06", result_extension=".nii.gz")
    assert "no label with the tag 'corrected'" in refused(app, "mr_06", corrected=[3])
    source = nibabel.load(before)
    painted = np.zeros(source.shape, np.uint8)
    painted[30:50, 20:60, 3] = 1
    file = tmp_path / "painted.nii.gz"
    nibabel.save(nibabel.Nifti1Image(painted, source.affine), file)
    names = app.info()["models"]["proxyprompt"]["labels"]
    info = {"label_info": [{"name": "organ", "idx": 1}]}
    app.datastore().save_label("mr_06", str(file), "corrected", info)
    path, answer = infer(app, "mr_06", result_extension=".nii.gz", structure="organ", corrected="3")
    result = np.asarray(nibabel.load(path).dataobj)
    assert answer["corrected"] == [3] and "" not in {used["id"] for used in answer["supports"]}
    np.testing.assert_array_equal(result[..., 3] == names["organ"], painted[..., 3] == 1)
    assert "has slices 0 to" in refused(app, "mr_06", corrected=[3, 99])
    assert "is not a list of slices" in refused(app, "mr_06", corrected="three")
    assert "mr_06" not in app.datastore().get_labeled_images()  # nothing final came of it
