"""The Python interface: arrays and files in, masks on the same grid out."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from versions import write_version

from proxyprompt import ProxyPromptPredictor
from proxyprompt.foundation import CheckpointError, weights_identity
from proxyprompt.io.study import StudyError
from proxyprompt.predictor.adapters import AdapterError, AdapterHeader, AdapterStore
from proxyprompt.predictor.segmenter import build_segmenter
from proxyprompt.supports.selection import SupportError

NAMES = ["ball", "bar"]


def scene(height=60, width=80, *, at=(20, 30), seed=0):
    """(image, label map): a bright ball, value 1, and a dark bar, value 2, on noise."""
    rows, columns = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    labels[(rows - at[0]) ** 2 + (columns - at[1]) ** 2 < 100] = 1
    labels[height - 12 : height - 6, 10 : width - 10] = 2
    noise = np.random.default_rng(seed).normal(100, 5, labels.shape)
    return (noise + 80 * (labels == 1) - 60 * (labels == 2)).astype(np.float32), labels


@pytest.fixture(scope="module")
def tiny(weights):
    return ProxyPromptPredictor.from_pretrained("atto", weights_dir=weights, device="cpu", paper=True)


@pytest.fixture
def predictor(tiny):
    image, labels = scene()
    tiny.set_support(image, labels, NAMES)
    return tiny


def test_it_is_the_foundation_and_the_generator_by_hand(predictor):
    """The same logits from the parts, called one after the other."""
    (image, labels), (target, _) = scene(), scene(at=(30, 50), seed=1)
    segmenter = predictor.segmenter
    foundation = segmenter.foundation

    def brightness(image):
        low, high = np.percentile(image, (0.5, 99.5))
        gray = torch.from_numpy(((image - low) / (high - low)).clip(0, 1)).float()
        return foundation.preprocess(gray.expand(1, 3, -1, -1))

    with torch.inference_mode():
        (support, geometry), (given, own) = brightness(image), brightness(target)
        masks = torch.from_numpy(np.stack([labels == 1, labels == 2]))[None]
        contexts = segmenter.encode_pair(support, foundation.preprocess_masks(masks, geometry))
        encoding = segmenter.encode_support(segmenter.encode(support), contexts, torch.ones(1, 2, dtype=torch.bool))
        decoded = segmenter.segment(segmenter.encode(given), encoding)
        expected = foundation.postprocess(decoded.mask_logits, own)[0].numpy()
    found = predictor.predict(target)
    assert found.logits.shape == (2, 60, 80) and found.logits.std() > 0.01
    np.testing.assert_allclose(found.logits, expected, atol=0.02)
    np.testing.assert_allclose(found.presence, decoded.presence_logit.sigmoid().numpy(), atol=1e-4)
    np.testing.assert_array_equal(found.masks, (found.logits > 0) & (found.presence[0] >= 0.5)[:, None, None])


def test_label_map_and_names(predictor):
    found = predictor.predict(scene(seed=2)[0])
    assert found.names == ("ball", "bar") == predictor.names
    np.testing.assert_array_equal(found["bar"], found.masks[1])
    inside = found.masks.any(0)
    np.testing.assert_array_equal(found.label_map > 0, inside)
    best = np.where(found.masks, found.logits.astype(np.float32), -np.inf).argmax(0) + 1
    np.testing.assert_array_equal(found.label_map[inside], best[inside])
    with pytest.raises(KeyError, match="no structure 'cup'; there are: ball, bar"):
        found["cup"]


def test_ways_to_give_an_image_and_its_masks_agree(predictor, tmp_path):
    colour = np.random.default_rng(3).integers(0, 255, (40, 50, 3), np.uint8)
    labels = np.zeros((40, 50), np.uint8)
    labels[5:20, 5:20], labels[25:35, 10:40] = 1, 2
    Image.fromarray(colour).save(tmp_path / "image.png")
    Image.fromarray(labels).save(tmp_path / "labels.png")
    masks = np.stack([labels == 1, labels == 2])
    ways = [
        (colour, labels),
        (torch.from_numpy(colour).permute(2, 0, 1), torch.from_numpy(masks)),
        (tmp_path / "image.png", str(tmp_path / "labels.png")),
        ([colour], [masks.astype(np.int64)]),
    ]
    found = []
    for image, mask in ways:
        predictor.set_support(image, mask, NAMES)
        found.append(predictor.predict(colour))
    for other in found[1:]:
        np.testing.assert_array_equal(other.logits, found[0].logits)


def test_more_supports_change_the_answer_and_their_agreement_is_told(predictor):
    target = scene(at=(35, 40), seed=5)[0]
    one = predictor.predict(target, agreement=True)
    pairs = [scene(at=at, seed=seed) for seed, at in enumerate([(20, 30), (30, 60), (15, 20)])]
    predictor.set_support([image for image, _ in pairs], [labels for _, labels in pairs], NAMES)
    several = predictor.predict(target, agreement=True)
    assert one.agreement == (None, None) and all(0 <= value <= 1 for value in several.agreement)
    assert not np.array_equal(several.logits, one.logits)


def test_a_volume_file_comes_back_on_its_own_grid(predictor, tmp_path):
    """Sagittal slices in a file whose axes run backwards: what is drawn lies where nibabel's indices say."""
    slices = [scene(at=(20, 30 + n), seed=n) for n in range(6)]
    voxels = np.stack([image for image, _ in slices])  # (6, 60, 80)
    labels = np.stack([label for _, label in slices])
    affine = np.array([[0, 0, 1.0, 3], [0, -1, 0, 50], [4, 0, 0, -7], [0, 0, 0, 1]])
    for name, array in (("volume", voxels), ("label", labels)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    predictor.set_support(tmp_path / "volume.nii.gz", tmp_path / "label.nii.gz", NAMES, slices_per_volume=2)
    by_file = predictor.predict_volume(tmp_path / "volume.nii.gz")
    assert by_file.masks.shape == (2, 6, 60, 80) == by_file.logits.shape and by_file.presence.shape == (6, 2)
    predictor.set_support(tmp_path / "volume.nii.gz", labels, NAMES, slices_per_volume=2)
    np.testing.assert_array_equal(predictor.predict_volume(tmp_path / "volume.nii.gz").masks, by_file.masks)
    saved = nib.load(by_file.save(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(np.asarray(saved.dataobj), by_file.label_map)
    np.testing.assert_allclose(saved.affine, affine)
    x, y, z = 2, 20, 30
    clicked = predictor.predict_volume(tmp_path / "volume.nii.gz", points={"bar": [(x, y, z, 1)]})
    changed = np.argwhere((clicked.logits[1] != by_file.logits[1]).any((1, 2)))
    assert changed.ravel().tolist() == [x]


def test_an_array_of_slices_is_a_volume(predictor):
    volume = np.stack([scene(seed=n)[0] for n in range(3)])
    found = predictor.predict_volume(volume)
    assert found.masks.shape == (2, 3, 60, 80) == (2, *found.label_map.shape)
    single = predictor.predict(volume[1])
    assert np.abs(found.logits[:, 1].astype(float) - single.logits).max() < 1.0  # one window for all slices


def test_corrected_slices_of_a_volume(predictor):
    images, labels = zip(*(scene(seed=n) for n in range(4)), strict=True)
    volume, masks = np.stack(images), np.stack(labels)
    before = predictor.predict_volume(volume)
    after = predictor.predict_volume(volume, corrected=masks, corrected_slices=[2])
    for n in range(2):
        np.testing.assert_array_equal(after.masks[n, 2], masks[2] == n + 1)
    assert not np.array_equal(after.logits[:, 0], before.logits[:, 0])
    with pytest.raises(SupportError, match=r"slices \[4\] are said to be corrected; the volume has slices 0 to 3"):
        predictor.predict_volume(volume, corrected=masks, corrected_slices=[1, 4])
    with pytest.raises(ValueError, match="expected their masks, too"):
        predictor.predict_volume(volume, corrected_slices=[1])


def test_clicks(predictor):
    target = scene(seed=6)[0]
    plain = predictor.predict(target)
    clicked = predictor.predict(target, points={"ball": [(30, 20, 1), [70, 5, 0]]})
    assert not np.array_equal(clicked.logits[0], plain.logits[0])
    np.testing.assert_array_equal(clicked.logits[1], plain.logits[1])
    with pytest.raises(ValueError, match="points are given for cup; the supports show ball, bar"):
        predictor.predict(target, points={"cup": [(1, 1, 1)]})
    for wrong in ([(3, 4)], [(3, 4, 2)], [(3,)]):
        with pytest.raises(ValueError, match=r"expected \(x, y, label\)"):
            predictor.predict(target, points={"ball": wrong})
    with pytest.raises(StudyError, match="outside the image"):
        predictor.predict(target, points={"ball": [(80, 0, 1)]})


def test_without_supports_it_wants_points(weights):
    predictor = ProxyPromptPredictor.from_pretrained("atto", weights_dir=weights, device="cpu")
    image = scene()[0]
    with pytest.raises(SupportError, match="call set_support first, or give points"):
        predictor.predict(image)
    assert predictor.predict(image, points={"this": [(30, 20, 1)]}).names == ("this",)


@pytest.mark.parametrize(
    ("images", "masks", "names", "said"),
    [
        ([], [], NAMES, "0 images and 0 masks"),
        ([np.zeros((9, 9))] * 2, [np.zeros((9, 9), np.uint8)], NAMES, "2 images and 1 masks"),
        (scene()[0], scene()[1], ["a", "a"], "each once"),
        (scene()[0], scene()[1], [], "one name for each structure"),
        (scene()[0], scene()[1], ["ball"], "mask 0 holds the value 2; there are 1 names"),
        (scene()[0], scene()[1][:50], NAMES, r"mask 0 is uint8 \(50, 80\); expected whole numbers \(60, 80\)"),
        (scene()[0], scene()[1].astype(float), NAMES, "expected whole numbers"),
        (np.zeros((3, 4, 5, 6)), scene()[1], NAMES, r"array \(3, 4, 5, 6\)"),
        (np.array([["a"]]), scene()[1], NAMES, "expected numbers"),
        (np.ones((20, 20)), np.zeros((20, 20), np.uint8), NAMES, "constant|same value|one value"),
    ],
)
def test_what_cannot_be_support_is_named(tiny, images, masks, names, said):
    image, labels = scene()
    tiny.set_support(image, labels, NAMES)
    with pytest.raises((ValueError, StudyError), match=said):
        tiny.set_support(images, masks, names)
    assert tiny.names == ("ball", "bar")  # what was said before still stands


def test_a_volume_is_not_one_image(predictor):
    with pytest.raises(StudyError, match="3 slices; use predict_volume"):
        predictor.predict(np.random.default_rng(0).random((3, 20, 20)))


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(CheckpointError, match="no atto-N"):
        ProxyPromptPredictor.from_pretrained("atto", weights_dir=tmp_path)
    with pytest.raises(ValueError, match="unknown foundation 'sam3'"):
        ProxyPromptPredictor.from_pretrained("sam3")


def test_an_adapter_is_a_file(weights, tmp_path):
    """A version that training made is loaded, and one of other weights refused."""
    name, sha256 = weights_identity("atto", weights)
    segmenter = build_segmenter(weights_dir=weights)
    state = {f"generator.{key}": value + 0.01 for key, value in segmenter.generator.state_dict().items()}
    config = {"foundation": {"kind": "frozen"}, "generator": segmenter.options()}
    store = AdapterStore(tmp_path, foundation=name, foundation_sha256=sha256)
    path = write_version(tmp_path / "other")
    with pytest.raises(AdapterError, match="was trained on atto-1"):
        ProxyPromptPredictor.from_pretrained("atto", weights_dir=weights, adapter=path, device="cpu")
    header = replace(store_header(path), name="mine", foundation=name, foundation_sha256=sha256, config=config)
    mine = ProxyPromptPredictor.from_pretrained(
        "atto", weights_dir=weights, adapter=store.save(header, state), device="cpu"
    )
    assert mine.segmenter.version == "mine"
    for key, value in mine.segmenter.generator.state_dict().items():
        torch.testing.assert_close(value, state[f"generator.{key}"])


def store_header(path):
    """Of a version, whatever it was made for."""
    with safe_open(path, framework="pt") as file:
        return AdapterHeader.from_json(file.metadata()["header"])


def test_what_neighbours_have_to_say(predictor):
    """Nothing in the paper, unless it is asked for; a list of files is a clip of these frames."""
    volume = np.stack([scene(at=(20, 30 + z), seed=z)[0] for z in range(4)])
    alone, near = (predictor.predict_volume(volume, mode=mode) for mode in ("slice by slice", "neighbours"))
    assert np.array_equal(predictor.predict_volume(volume).logits, alone.logits)
    assert not np.array_equal(near.logits, alone.logits)
    with pytest.raises(ValueError, match="mode is 'both'; expected one of auto, slice by slice, neighbours, propagate"):
        predictor.predict_volume(volume, mode="both")


def test_a_clip_of_files(predictor, tmp_path):
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        Image.fromarray(scene(at=(20, 30 + n), seed=n)[0].clip(0, 255).astype(np.uint8)).save(path)
    found = predictor.predict_volume(paths)
    assert found.masks.shape == (2, 3, 60, 80) and found.presence.shape == (3, 2)
    Image.fromarray(scene(50, 80)[0].astype(np.uint8)).save(paths[1])
    with pytest.raises(StudyError, match=r"0.png is 80 x 60 x 1, .*1.png is 80 x 50 x 1"):
        predictor.predict_volume(paths)
