"""The app as MONAI Label builds it: what it refuses at start, what it never does, what it takes in."""

import json
import os

import numpy as np
import pytest
from app_in_process import build_app
from monailabel.config import settings as server_settings
from monailabel.interfaces.exception import MONAILabelException
from PIL import Image
from tiny_atto import write_tiny_atto
from versions import write_version


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_tiny_atto(folder)
    return folder


@pytest.fixture
def studies(tmp_path):
    """Three images of a bright square somewhere, one of them labelled."""
    folder = tmp_path / "studies"
    (folder / "labels" / "final").mkdir(parents=True)
    for n, name in enumerate(("a", "b", "c")):
        plain_image, mask = np.full((48, 64), 30, np.uint8), np.zeros((48, 64), np.uint8)
        mask[10 : 20 + n, 8 * n : 8 * n + 20] = 1
        plain_image[mask > 0] = 200 + n
        Image.fromarray(plain_image).save(folder / f"{name}.png")
        if name == "a":
            Image.fromarray(mask).save(folder / "labels" / "final" / f"{name}.png")
    return folder


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"fundation": "atto"}, ["fundation", "foundation", "weights_dir"]),
        ({"foundation": "sam9"}, ["sam9", "sam_vit_b"]),
        ({"window": "muscle"}, ["muscle", "lung"]),
    ],
)
def test_an_option_that_does_not_exist_stops_the_start(studies, weights, conf, words):
    with pytest.raises(MONAILabelException) as caught:
        build_app(studies, weights, **conf)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1, "structures": [{"id": "one", "name": "disc"}]}'])
def test_a_damaged_registry_stops_the_start_with_its_path_and_stays(studies, weights, content):
    path = studies / ".proxyprompt" / "structures.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(MONAILabelException) as caught:
        build_app(studies, weights)
    assert str(path) in str(caught.value) and "restore" in str(caught.value)
    assert path.read_text() == content


def test_a_damaged_list_of_studies_does_not_stop_the_start(studies, weights):
    (studies / "datastore_v2.json").write_text('{"objects": {"a": {"im')
    app = build_app(studies, weights)
    assert sorted(app.datastore().list_images()) == ["a", "b", "c"]
    assert app.info()["models"]["proxyprompt"]["config"]["support"] == ["auto", "a"]
    assert len(list(studies.glob("datastore_v2.json.damaged-*"))) == 1


def test_damaged_statistics_of_a_training_are_no_statistics(studies, weights):
    app = build_app(studies, weights)
    path = studies / ".proxyprompt" / "training" / "stats.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for content in ("", "[]", "null", "{", '{"status": "RUNNING"}'):
        path.write_text(content)
        assert isinstance(app.info()["train_stats"]["proxyprompt"], dict)


@pytest.mark.parametrize("noted", [{"label_info": 5}, {"params": []}, {"label_names": "disc"}, {"label_info": [3]}])
def test_one_label_whose_info_was_edited_stops_nobody(studies, weights, noted):
    build_app(studies, weights)
    path = studies / "datastore_v2.json"
    content = json.loads(path.read_text())
    content["objects"]["a"]["labels"]["final"]["info"] = noted
    path.write_text(json.dumps(content))
    app = build_app(studies, weights)
    assert set(app.info()["models"]["proxyprompt"]["config"]["support"]) <= {"auto", "a"}


def test_folders_that_are_none_stop_the_start(tmp_path, weights):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(MONAILabelException) as caught:
        build_app(tmp_path / "file", weights)
    assert "file" in str(caught.value)


def test_missing_weights_stop_the_start_with_what_to_do(studies, tmp_path):
    app = build_app(studies, tmp_path, foundation="sam_vit_b")
    with pytest.raises(MONAILabelException) as caught:
        app.on_init_complete()
    assert all(
        word in str(caught.value) for word in ("fetch_weights.py sam_vit_b", "sam_vit_b_01ec64.pth", str(tmp_path))
    )


def test_nothing_is_fetched_from_the_internet(studies, weights, monkeypatch):
    def no_network(*_, **__):
        raise AssertionError("the start opened a connection")

    monkeypatch.setattr("socket.socket.connect", no_network)
    app = build_app(studies, weights)
    app._download_dcmqi_tools()
    assert app.info()["datastore"]["total"] == 3


def test_the_servers_settings_suit_the_app(studies, weights):
    build_app(studies, weights)
    assert server_settings.MONAI_LABEL_AUTO_UPDATE_SCORING is False
    assert server_settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER == {}  # everything with pixels
    assert server_settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY <= 60
    assert "*.mha" in server_settings.MONAI_LABEL_DATASTORE_FILE_EXT
    # and those of the processes that it starts
    assert json.loads(os.environ["MONAI_LABEL_AUTO_UPDATE_SCORING"]) is False
    assert json.loads(os.environ["MONAI_LABEL_DICOMWEB_SEARCH_FILTER"]) == {}


def test_what_the_operator_set_stays(monkeypatch):
    from proxyprompt.requests import defaults

    given = server_settings.model_copy(update={"MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": 77})
    monkeypatch.setattr(defaults, "settings", given)
    given.__pydantic_fields_set__.add("MONAI_LABEL_DICOMWEB_CACHE_EXPIRY")
    for name in defaults.DEFAULTS:
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    defaults.set_defaults()
    assert given.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY == 77


def test_the_next_sample_is_an_unlabelled_one(studies, weights):
    app = build_app(studies, weights)
    assert app.next_sample({"strategy": "first"})["id"] == "b"
    assert app.next_sample({"strategy": "random"})["id"] in ("b", "c")


def test_a_session_file_is_segmented_wherever_the_request_says_it_lies(studies, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(server_settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "sessions"))
    app = build_app(studies, weights)
    upload = tmp_path / "upload.png"
    upload.write_bytes((studies / "c.png").read_bytes())
    name, session = app.sessions().add_session(str(upload))
    request = {"model": "proxyprompt", "image": "/etc/passwd", "session": {**session.to_json(), "image": "/etc/passwd"}}
    result = app.infer(request)
    assert np.asarray(Image.open(result["file"])).shape == (48, 64)
    for bad in ("../sessions", "nobody"):
        with pytest.raises(MONAILabelException):
            app.infer({"model": "proxyprompt", "image": "c", "session": {"name": bad}})
    with pytest.raises(MONAILabelException):
        app.sessions().remove_session("../studies")
    assert studies.exists() and app.sessions().get_session(name)


def test_the_model_file_is_the_version_that_serves(studies, weights):
    app = build_app(studies, weights)
    assert app.model_file("proxyprompt") is None and app.model_file("spleen") is None
    store = app.adapters
    version = write_version(store.folder, foundation=store.foundation, sha256=store.foundation_sha256)
    assert app.model_file("proxyprompt") == str(version)
    assert app.model_file("spleen") is None


def test_a_strategy_that_does_not_exist_is_refused(studies, weights):
    with pytest.raises(MONAILabelException) as caught:
        build_app(studies, weights).next_sample({"strategy": "best"})
    assert "best" in caught.value.msg and "random" in caught.value.msg


def test_whole_slide_requests_are_refused(studies, weights):
    with pytest.raises(MONAILabelException) as caught:
        build_app(studies, weights).infer_wsi({"model": "proxyprompt", "image": str(studies / "a.png")})
    assert "whole-slide" in caught.value.msg


def test_the_registry_outlives_the_app(studies, weights):
    build_app(studies, weights, labels="square=1").info()
    labels = studies / "labels" / "final"
    mask = np.asarray(Image.open(labels / "a.png"))
    Image.fromarray(mask * 2).save(labels / "a.png")
    app = build_app(studies, weights, labels="other=2")
    assert app.info()["models"]["proxyprompt"]["labels"] == {"square": 1, "other": 2}
    assert app.info()["models"]["proxyprompt"]["config"]["structure"] == ["all", "other"]
