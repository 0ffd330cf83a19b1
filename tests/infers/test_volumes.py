"""Volumes and clips by request: the modes, frames in a file, what is refused."""

import nibabel
import numpy as np
import pytest
from app_in_process import build_app
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from PIL import Image

from proxyprompt.datasets.samples import sonogram


def infer(app, image, model="proxyprompt", **params):
    result = app.infer({"model": model, "image": image, "agreement": False, **params})
    return result["file"], result["params"]


def test_a_volume_in_each_mode(app):
    found = {}
    for mode in ("slice by slice", "neighbours", "propagate", "auto"):
        path, answer = infer(app, "mr_05", mode=mode, everywhere=True)
        found[mode], said = np.asarray(nibabel.load(path).dataobj), answer["mode"]
        assert said == ("propagate" if mode == "auto" else mode)
    assert np.array_equal(found["auto"], found["propagate"])
    assert infer(app, "us_09", mode="propagate")[1]["mode"] == "slice by slice"
    assert app.info()["models"]["proxyprompt"]["config"]["mode"][0] == "auto"
    with pytest.raises(MONAILabelException, match="there is no mode 'sideways'; valid: auto, slice by slice") as caught:
        infer(app, "mr_05", mode="sideways")
    assert caught.value.error is MONAILabelError.INVALID_INPUT


@pytest.fixture(scope="module")
def clips(tmp_path_factory, weights):
    """An image with a label, clips of four frames and of one, and one whose frames differ in size."""
    studies = tmp_path_factory.mktemp("clips") / "studies"
    (studies / "labels" / "final").mkdir(parents=True)
    frames = [sonogram.draw(np.random.default_rng(n)) for n in range(5)]
    Image.fromarray(frames[0][0]).save(studies / "support.png")
    Image.fromarray(frames[0][1]).save(studies / "labels" / "final" / "support.png")
    pages = [Image.fromarray(image) for image, _ in frames[1:]]
    pages[0].save(studies / "clip.tif", save_all=True, append_images=pages[1:])
    pages[0].save(studies / "one.tif", save_all=True)
    odd = [pages[0], pages[1].resize((50, 70)), pages[2]]
    odd[0].save(studies / "odd.tif", save_all=True, append_images=odd[1:])
    return build_app(studies, weights)


def test_a_clip_of_frames_in_one_file(clips):
    path, answer = infer(clips, "clip", result_extension=".nii.gz")
    assert answer["mode"] == "neighbours"
    labels = np.asarray(nibabel.load(path).dataobj)
    assert labels.shape[2] == 4
    one = infer(clips, "one")[1]
    assert one["mode"] == "slice by slice" and one["structures"].keys() == answer["structures"].keys()
    infer(clips, "clip", mode="propagate")


def test_frames_that_differ_in_size_are_refused(clips):
    with pytest.raises(MONAILabelException, match="pages differ in size"):
        infer(clips, "odd")
    assert infer(clips, "clip")[1]["structures"]
