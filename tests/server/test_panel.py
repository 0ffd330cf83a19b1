"""What the viewer's panel asks: supports as images, labels as voxels."""

import io
from functools import partial
from itertools import combinations

import nibabel
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException
from PIL import Image

from proxyprompt.server.answers import install_answers
from proxyprompt.server.panel import (
    color_of,
    draw_slice,
    label_voxels,
    list_slices,
    list_supports,
    panel_router,
)


@pytest.fixture
def library(app):
    return app.library


@pytest.fixture
def volume(library):
    return next(study for study in library.studies().values() if study.kind == "volume")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_neighbours_have_colours_that_differ():
    colors = np.array([color_of(n) for n in range(1, 9)])
    assert min(np.abs(a - b).sum() for a, b in combinations(colors, 2)) > 60
    assert color_of(3) == color_of(3) and colors.min() >= 0 and colors.max() <= 255


def test_supports_come_with_the_slice_that_shows_most(library, volume):
    listed = list_supports(library)
    assert [one["id"] for one in listed["supports"]] == library.ids()
    mine = next(one for one in listed["supports"] if one["id"] == volume.id)
    assert mine["structures"] == list(volume.structures) and mine["slices"] == len(volume)
    assert volume.areas[mine["slice"]].sum() > np.median(volume.areas.sum(axis=1))
    assert set(listed["colors"]) == set(listed["numbers"]) >= set(volume.structures)


def test_the_label_lies_over_the_image_in_its_colours(library, volume):
    index = next(one["slice"] for one in list_supports(library)["supports"] if one["id"] == volume.id)
    plain = pixels(draw_slice(library, volume.id, index, 200, mask=False))
    drawn = pixels(draw_slice(library, volume.id, index, 200))
    assert max(plain.shape[:2]) == 200 and plain.shape == drawn.shape
    differs = np.abs(plain.astype(int) - drawn).sum(axis=2) > 30
    share = volume.areas[index].sum() / np.prod(library.open(volume.id).slice_shape)
    assert 0.5 * share < differs.mean() < 1.5 * share


def test_slices_beyond_the_end_mean_the_last_one(library, volume):
    last = draw_slice(library, volume.id, len(volume) - 1, 64)
    assert draw_slice(library, volume.id, 10_000, 64) == last != draw_slice(library, volume.id, -5, 64)


def test_voxels_are_the_stored_label_on_the_grid_of_the_file(library, volume):
    told = list_slices(library, volume.id)
    voxels = np.frombuffer(label_voxels(library, volume.id), np.uint8).reshape(told["shape"])
    stored = np.asarray(nibabel.load(volume.label_path).dataobj)
    for name, number in told["numbers"].items():
        np.testing.assert_array_equal(voxels == number, np.isin(stored, sorted(volume.structures[name])))


def test_what_is_not_there_is_said(library):
    unlabelled = next(i for i in library.catalogue.image_ids() if i not in library.studies())
    assert list_slices(library, unlabelled)["numbers"] == {}
    with pytest.raises(LabelNotFoundException):
        label_voxels(library, unlabelled)
    for ask in (list_slices, label_voxels):
        with pytest.raises(ImageNotFoundException):
            ask(library, "../etc/passwd")


def test_over_http(app, library, volume):
    server = FastAPI()
    install_answers(server)
    server.include_router(panel_router(library, app._infers["proxyprompt"].disagreement))
    client = TestClient(server)
    assert client.get("/proxyprompt/supports").json()["supports"]
    shown = client.get("/proxyprompt/image", params={"image": volume.id, "size": 32})
    assert shown.headers["content-type"] == "image/png" and max(pixels(shown.content).shape[:2]) == 32
    assert client.get("/proxyprompt/image", params={"image": volume.id, "size": 9999}).status_code == 400
    assert client.get("/proxyprompt/image", params={"image": "none"}).status_code == 404
    told = client.get("/proxyprompt/slices", params={"image": volume.id}).json()
    voxels = client.get("/proxyprompt/label/voxels", params={"image": volume.id})
    assert len(voxels.content) == np.prod(told["shape"]) and voxels.headers["cache-control"] == "no-store"


def test_where_the_supports_disagree(app, library):
    target = next(id for id in app.datastore().get_unlabeled_images() if id.startswith("us"))
    rows, columns = library.open(target).slice_shape
    server = FastAPI()
    install_answers(server)
    server.include_router(panel_router(library, app._infers["proxyprompt"].disagreement))
    ask = partial(TestClient(server).post, "/proxyprompt/disagreement", params={"image": target, "slice": 0})
    found = np.frombuffer(ask(json={"supports": "4"}).content, np.uint8)
    assert found.size == rows * columns and found.max() > 100 and len(np.unique(found)) > 2
    one = ask(json={"support": [id for id in library.ids() if id.startswith("us")][:1]})
    assert one.status_code == 400 and "one support only" in one.json()["detail"]
    assert TestClient(server).post("/proxyprompt/disagreement?image=none&slice=0", json={}).status_code == 404
