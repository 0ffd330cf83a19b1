"""MONAI Label's own Python client runs the whole loop on a local folder."""

import json
import shutil

import client_example
import numpy as np
import pytest
from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException
from PIL import Image
from tiny_atto import write_tiny_atto

from proxyprompt.benchmark.server import running_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(tmp_path_factory, drawn_samples):
    folder = tmp_path_factory.mktemp("client")
    studies, weights = folder / "studies", write_tiny_atto(folder).parent
    shutil.copytree(drawn_samples, studies)
    for volume in studies.rglob("mr_*"):
        volume.unlink()
    conf = {"weights_dir": weights, "background_scoring": "false"}
    with running_server(studies, log=folder / "server.log", conf=conf) as server:
        yield server


@pytest.fixture
def client(server, tmp_path):
    return MONAILabelClient(server.url, tmpdir=str(tmp_path))


def supports(client):
    return set(client.info()["models"]["proxyprompt"]["config"]["support"]) - {"auto"}


def test_info(client):
    info = client.info()
    assert {name: task["type"] for name, task in info["models"].items()} == {
        "proxyprompt": "segmentation",
        "proxyprompt_edit": "deepedit",
    }
    assert {"random", "first", "disagreement"} == set(info["strategies"])
    assert {"support_disagreement", "support_quality"} == set(info["scoring"])


def test_infer_edit_submit(client, server):
    mask, answer = client.infer("proxyprompt", "us_07", {"structure": "head"})
    before, id = np.asarray(Image.open(mask)), answer["label_names"]["head"]
    y, x = (int(n) for n in np.argwhere(before == 0)[3])
    mask, answer = client.infer("proxyprompt_edit", "us_07", {"label": "head", "foreground": [[x, y, 0]]})
    after = np.asarray(Image.open(mask))
    assert before.shape == after.shape and after[y, x] == id
    assert answer["latencies"]["encode"] < answer["latencies"]["total"] and answer["latencies"]["click"] > 0
    saved = client.save_label("us_07", mask, tag="final", params={"label_info": [{"name": "head", "idx": id}]})
    assert saved["label"] == "us_07" and "us_07" in supports(client)
    index = json.loads((server.studies / "datastore_v2.json").read_text())
    assert index["objects"]["us_07"]["labels"]["final"]["info"]["label_info"] == [{"name": "head", "idx": id}]
    _, answer = client.infer("proxyprompt", "us_08", {"support": "us_07"})
    assert {used["id"] for used in answer["supports"]} == {"us_07"} and set(answer["label_names"]) == {"head"}


def test_next_sample_follows_the_scores(client, server):
    address = "/scoring/support_disagreement?run_sync=true"
    status, *_ = client_example.MONAILabelUtils.http_method("POST", server.url, address, {})
    assert status == 200
    proposed = [client.next_sample("random", {}) for _ in range(3)]
    assert len({sample["id"] for sample in proposed}) == 3
    assert all(sample["id"] not in supports(client) for sample in proposed)
    assert all("score" in sample["support_disagreement"] for sample in proposed)  # the image's info, as clients get it


def test_errors_reach_the_client(client):
    with pytest.raises(MONAILabelClientException) as caught:
        client.infer("proxyprompt_edit", "us_08", {"label": "heart", "foreground": [[1, 1, 0]]})
    assert "400" in caught.value.msg and "heart" in caught.value.msg and "head" in caught.value.msg


def test_the_example_labels_what_is_proposed_and_segments_the_rest(client, server, capsys):
    labelled = supports(client)
    assert client_example.main(["--server", server.url, "--rounds", "2"]) == 0
    said = capsys.readouterr().out
    assert "one click" in said and "is a support now" in said
    assert len(supports(client)) == len(labelled) + 2
    rest = set(client.datastore()["objects"]) - supports(client)
    assert f"proposals for {len(rest)} more" in said
    assert all((server.studies / "labels" / "original" / f"{name}.png").is_file() for name in rest)
