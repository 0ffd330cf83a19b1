"""A real MONAI Label server, started by its own command on the sample studies, asked over HTTP."""

import gzip
import io
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest
import requests
from PIL import Image
from requests_toolbelt import MultipartDecoder
from tiny_atto import weights

from proxyprompt.benchmark.server import running_server

pytestmark = pytest.mark.e2e

LABELS_SECONDS = 300


class Server:
    """The address of a running server, and the folder it serves."""

    def __init__(self, url: str, studies: Path, process: subprocess.Popen):
        self.url, self.studies, self.process = url, studies, process

    def info(self) -> dict:
        response = requests.get(f"{self.url}/info/", timeout=60)
        assert response.status_code == 200
        return response.json()

    def supports(self) -> list[str]:
        return self.info()["models"]["proxyprompt"]["config"]["support"][1:]

    def wait_for_labels(self) -> None:
        """A server that meets an archive for the first time fetches its labels in the background."""
        end = time.monotonic() + LABELS_SECONDS
        while len(self.supports()) < self.info()["datastore"]["completed"]:
            assert time.monotonic() < end, f"{len(self.supports())} labels after {LABELS_SECONDS} s"
            time.sleep(1)

    def infer(self, image: str, output: str = "all", /, **params) -> requests.Response:
        fields = {"params": (None, json.dumps(params))}
        address = f"{self.url}/infer/proxyprompt"
        return requests.post(address, params={"image": image, "output": output}, files=fields, timeout=300)

    def segment(self, image: str, /, **params) -> tuple[bytes, dict]:
        """The label file's bytes and the answer of a request that must succeed."""
        response = self.infer(image, **params)
        assert response.status_code == 200, response.text
        parts = MultipartDecoder.from_response(response).parts
        by_name = {p.headers[b"Content-Disposition"].split(b'name="')[1].split(b'"')[0]: p.content for p in parts}
        return by_name[b"image"], json.loads(by_name[b"params"])

    def refused(self, image: str, status: int = 400, /, **params) -> str:
        """The message of a request that must fail with ``status``, after which the server still answers."""
        response = self.infer(image, **params)
        assert response.status_code == status, response.text
        assert self.alive()
        return response.json()["detail"]

    def alive(self) -> bool:
        return self.process.poll() is None and requests.get(f"{self.url}/datastore/", timeout=60).status_code == 200


def spoil(studies: Path) -> None:
    """Studies that cannot be segmented, and a label that does not fit its image."""
    (studies / "truncated.png").write_bytes((studies / "us_09.png").read_bytes()[:300])
    (studies / "text.nii.gz").write_bytes(b"not an image")
    Image.fromarray(np.full((32, 32), 7, np.uint8)).save(studies / "constant.png")
    Image.fromarray(np.full((1, 1), 7, np.uint8)).save(studies / "pixel.png")
    affine, rng = np.eye(4), np.random.default_rng(0)
    nibabel.save(nibabel.Nifti1Image(np.full((16, 16, 4), np.nan, np.float32), affine), studies / "nan.nii.gz")
    nibabel.save(nibabel.Nifti1Image(rng.normal(size=(8, 8, 4, 2, 2)), affine), studies / "five.nii.gz")
    shutil.copy(studies / "us_01.png", studies / "misfit.png")
    Image.fromarray(np.ones((5, 5), np.uint8)).save(studies / "labels" / "final" / "misfit.png")


@pytest.fixture(scope="module")
def server(tmp_path_factory, drawn_samples):
    folder = tmp_path_factory.mktemp("e2e")
    shutil.copytree(drawn_samples, folder / "studies")
    spoil(folder / "studies")
    with running_server(folder / "studies", log=folder / "server.log", conf=weights(folder)) as running:
        yield Server(running.url, running.studies, running.process)


def test_the_panel_shows_what_there_is(server):
    info = server.info()
    assert "Research use only" in info["description"]
    task = info["models"]["proxyprompt"]
    assert task["type"] == "segmentation"
    labelled = {f"us_{n:02d}" for n in range(1, 7)} | {f"rgb_{n:02d}" for n in range(1, 7)}
    labelled |= {f"mr_{n:02d}" for n in range(1, 5)}
    assert task["config"]["support"][0] == "auto"
    assert set(task["config"]["support"][1:]) == labelled
    assert task["config"]["structure"] == ["all", *task["labels"]]
    assert task["config"]["supports"][0] == "4"
    assert len(task["config"]["adapter"]) == 1


@pytest.mark.parametrize(("image", "names"), [("rgb_09", {"lesion", "disc"}), ("us_09", {"head", "symphysis"})])
def test_an_image_comes_back_as_a_label_image(server, image, names):
    content, answer = server.segment(image)
    result = np.asarray(Image.open(io.BytesIO(content)))
    assert result.shape == np.asarray(Image.open(server.studies / f"{image}.png")).shape[:2]
    labels = server.info()["models"]["proxyprompt"]["labels"]
    assert answer["label_names"] == {name: labels[name] for name in names}
    assert set(np.unique(result)) <= {0, *answer["label_names"].values()}
    assert {s["id"][:2] for s in answer["supports"]} == {image[:2]}


def test_a_volume_comes_back_on_its_own_grid(server):
    content, answer = server.segment("mr_06")
    result = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
    image = nibabel.load(server.studies / "mr_06.nii.gz")
    assert result.shape == image.shape
    np.testing.assert_array_equal(result.affine, image.affine)
    assert set(answer["label_names"]) == {"organ", "nodule"}
    assert set(np.unique(np.asarray(result.dataobj))) <= {0, *answer["label_names"].values()}


def test_the_answer_tells_the_whole_story(server):
    _, answer = server.segment("us_10", supports="2", structure="head", support=["us_01", "us_02"])
    assert {s["id"] for s in answer["supports"]} == {"us_01", "us_02"}
    assert set(answer["structures"]) == {"head"}
    assert {"presence_max", "presence_mean", "agreement"} <= set(answer["structures"]["head"])
    assert len(answer["weights_sha256"]) == 64 and answer["adapter"]
    assert answer["latencies"]["total"] >= answer["latencies"]["decode"] > 0
    assert "Research use only" in answer["disclaimer"]


def test_what_ohif_sends_gets_bare_raw_nrrd(server):
    options = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    response = server.infer("mr_05", "image", **options, restore_label_idx=False)
    assert response.status_code == 200
    header, _, voxels = response.content.partition(b"\n\n")
    assert header.startswith(b"NRRD") and b"encoding: raw" in header
    assert len(voxels) == np.prod(nibabel.load(server.studies / "mr_05.nii.gz").shape)


def test_json_alone(server):
    response = server.infer("us_08", "json")
    assert response.status_code == 200
    assert set(response.json()["label_names"]) == {"head", "symphysis"}


def test_two_requests_at_once_each_get_their_own_answer(server):
    with ThreadPoolExecutor(2) as pool:
        (one, first), (other, second) = pool.map(server.segment, ["us_07", "mr_05"])
    assert set(first["label_names"]) == {"head", "symphysis"}
    assert set(second["label_names"]) == {"organ", "nodule"}
    assert one == server.segment("us_07")[0]
    assert gzip.decompress(other) == gzip.decompress(server.segment("mr_05")[0])


@pytest.mark.parametrize("image", ["truncated", "text", "constant", "pixel", "nan", "five"])
def test_a_file_that_cannot_be_segmented(server, image):
    assert image in server.refused(image)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"support": "nobody"}, ["nobody", "us_01"]),
        ({"support": "us_10"}, ["us_10", "no final label"]),
        ({"support": "misfit"}, ["misfit", "5"]),
        ({"support": "rgb_01", "structure": "head"}, ["rgb_01", "empty", "head"]),
        ({"structure": "kidney"}, ["kidney", "head"]),
        ({"supports": 0}, ["1 to 64"]),
        ({"adapter": "atto-99"}, ["atto-99", "valid"]),
        ({"suport": "us_01"}, ["suport", "support"]),
        ({"result_extension": ".exe"}, [".exe", ".nrrd"]),
    ],
)
def test_an_option_or_value_that_does_not_exist(server, params, words):
    message = server.refused("us_09", **params)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("image", ["../studies/us_09", "..", "/etc/passwd", "a/../us_09", "us_09\0"])
def test_an_image_id_that_is_a_path(server, image):
    server.refused(image)


def test_an_image_given_by_its_file(server):
    server.refused(str(server.studies / "us_09.png"))
    server.refused("us_09", image=str(server.studies / "us_08.png"))
    assert "us_99" in server.refused("us_99", 404)


def test_params_that_are_no_json_and_a_model_that_does_not_exist(server):
    address = f"{server.url}/infer/"
    response = requests.post(f"{address}proxyprompt?image=us_09", files={"params": (None, "{broken")}, timeout=60)
    assert response.status_code == 400 and "JSON" in response.json()["detail"]
    response = requests.post(f"{address}spleen?image=us_09", timeout=60)
    assert response.status_code == 400 and "proxyprompt" in response.json()["detail"]
    assert server.alive()


def test_nothing_is_written_outside_the_studies(server):
    outside = server.studies.parent
    before = set(outside.iterdir())
    content = (server.studies / "us_09.png").read_bytes()
    address = f"{server.url}/datastore"
    for method, path, query, field in [
        ("put", "label", {"image": "us_09", "tag": "../../../escaped"}, "label"),
        ("put", "label", {"image": "../us_09", "tag": "final"}, "label"),
        ("put", "image", {"image": "../evil"}, "file"),
    ]:
        response = requests.request(
            method, f"{address}/{path}", params=query, files={field: ("x.png", content)}, timeout=60
        )
        assert response.status_code == 400, response.text
    assert requests.get(f"{address}/image", params={"image": "../server.log"}, timeout=60).status_code == 400
    assert set(outside.iterdir()) == before
    assert server.alive()


def test_a_submitted_label_is_a_support_of_the_next_request(server):
    _, answer = server.segment("us_07")
    names = [{"name": name, "idx": id} for name, id in answer["label_names"].items()]
    response = requests.put(
        f"{server.url}/datastore/label",
        params={"image": "us_07", "tag": "final"},
        files={"label": ("us_07.png", (server.studies / "labels/final/us_01.png").read_bytes())},
        data={"params": json.dumps({"label_info": names})},
        timeout=60,
    )
    assert response.status_code == 200, response.text
    assert "us_07" in server.info()["models"]["proxyprompt"]["config"]["support"]
    _, answer = server.segment("us_08", support="us_07")
    assert {s["id"] for s in answer["supports"]} == {"us_07"}


def test_the_next_sample_is_proposed(server):
    response = requests.post(f"{server.url}/activelearning/random", json={}, timeout=60)
    assert response.status_code == 200
    assert response.json()["id"] not in server.info()["models"]["proxyprompt"]["config"]["support"]


def test_the_log_is_plain_text_that_asks_nothing_of_other_sites(server):
    for query in ("", "?lines=0", "?html=true"):
        answer = requests.get(f"{server.url}/logs/{query}", timeout=60)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain")
        assert "googleapis" not in answer.text
