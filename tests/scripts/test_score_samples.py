"""Scoring over real HTTP: an answerer that knows the truth must score 1, and one that is wrong must be seen to be."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
import score_samples
import torch
from requests_toolbelt import MultipartEncoder
from torch.nn import functional as F

from proxyprompt.datasets.samples import truth_folder
from proxyprompt.datasets.samples.folder import SampleFolder
from proxyprompt.evaluation.baselines import copy_support_mask
from proxyprompt.evaluation.sample_scores import Answer, score_study, summarise
from proxyprompt.foundation.base import Features, Foundation, Geometry
from proxyprompt.io.errors import StudyError
from proxyprompt.metrics.segmentation import overlap

REGISTRY = {"lesion": 11, "disc": 12, "head": 13, "symphysis": 14, "organ": 15, "nodule": 16}


class Oracle:
    """Answers from the truth, with ids of its own; with unrelated supports it segments nothing."""

    def __init__(self, folder, out):
        self.samples, self.out, self.asked = SampleFolder(folder), out, []

    def ask(self, study_id, options):
        self.asked.append((study_id, options))
        study = self.samples.study(study_id)
        truth, own = self.samples.labels(study_id, study), self.samples.structures(study_id)
        supports = options.get("support") or [n for n in self.samples.labelled if n[:2] == study_id[:2]][:2]
        offered = self.samples.structures(supports[0])
        wanted = [options["structure"]] if "structure" in options else list(offered)
        result = np.zeros_like(truth)
        for name in wanted:
            result[truth == own.get(name, 255)] = REGISTRY[name]
        used = []
        for name in supports:
            support = self.samples.study(name)
            area = (self.samples.labels(name, support) > 0).sum(axis=(1, 2))
            used.append((name, int(area.argmax())))
        path = study.write_label(result, self.out / f"{study_id}-{len(self.asked)}.nii.gz")
        return Answer(path, {name: REGISTRY[name] for name in wanted}, used, 0.1)


class Stretched(Foundation):
    """Features are colours of 4 x 4 pixels after a stretch to 64 x 64."""

    name, image_size, dim, stride = "stretched", 64, 3, 4

    def preprocess(self, images):
        side = (self.image_size, self.image_size)
        return F.interpolate(images, size=side, mode="area"), Geometry(tuple(images.shape[-2:]), side, self.image_size)

    def preprocess_masks(self, masks, geometry):
        return self.preprocess(masks)[0]

    def postprocess(self, mask_logits, geometry):
        return F.interpolate(mask_logits, size=geometry.original, mode="bilinear", align_corners=False)

    def encode(self, images):
        return Features(F.avg_pool2d(images, self.stride))


@pytest.fixture
def oracle(samples, tmp_path):
    return Oracle(samples, tmp_path)


@pytest.fixture
def server(oracle):
    """The oracle behind MONAI Label's addresses and answers; `refuse` makes it refuse requests that name a support."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send(200, "application/json", json.dumps({"models": handler_state["models"]}).encode())

        def do_POST(self):
            address = urlparse(self.path)
            query = parse_qs(address.query)
            form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            options = json.loads(form["params"][0])
            assert address.path == "/infer/proxyprompt" and query["output"] == ["all"]
            if handler_state["refuse"](options):
                self.send(400, "application/json", b'{"detail": "no such support"}')
                return
            answer = oracle.ask(query["image"][0], options)
            supports = [{"id": name, "slice": index, "similarity": 0.5} for name, index in answer.supports]
            parameters = json.dumps({"label_names": answer.names, "supports": supports})
            body = MultipartEncoder(
                {
                    "params": (None, parameters, "application/json"),
                    "image": (answer.path.name, answer.path.read_bytes(), "application/octet-stream"),
                }
            )
            self.send(200, body.content_type, body.to_string())

        def send(self, status, kind, body):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    handler_state = {"models": {"proxyprompt": {}}, "refuse": lambda options: False}
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    running.state, running.url = handler_state, f"http://127.0.0.1:{running.server_address[1]}"
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


def test_the_truth_scores_one_and_its_controls_zero(samples, server, oracle, tmp_path, capsys):
    report = tmp_path / "scores.json"
    arguments = ["--server", server.url, "--samples", str(samples), "--json", str(report), "--no-nearest"]
    assert score_samples.main(arguments) == 0
    content = json.loads(report.read_text())
    assert content["mean"]["dice"] == content["mean"]["iou"] == 1.0
    assert content["mean"]["swapped"] == content["mean"]["unrelated"] == 0.0
    assert content["mean"]["nearest"] is None
    assert set(content["mean_by_set"]) == {"rgb", "us", "mr"}
    assert set(content["mean_by_structure"]) == set(REGISTRY)
    assert len(content["studies"]) == 20
    assert content["mean"]["copy"] < 0.35
    gain = content["gain"]["copy"]
    assert 0 < gain["low"] <= gain["mean"] <= gain["high"] <= 1
    printed = capsys.readouterr().out
    assert "rgb_07" in printed and "mean" in printed
    proper = {study for study, options in oracle.asked if not options}
    assert proper == set(SampleFolder(samples).targets)


def test_a_refused_control_is_told_and_a_refused_request_scores_zero(samples, server, tmp_path, capsys):
    arguments = ["--server", server.url, "--samples", str(samples), "--only", "us", "--no-nearest", "--json"]
    server.state["refuse"] = lambda options: options.get("support", ["us"])[0][:2] != "us"
    assert score_samples.main([*arguments, str(tmp_path / "a.json")]) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["mean"]["dice"] == 1.0 and content["mean"]["unrelated"] is None
    assert "no such support" in capsys.readouterr().out
    server.state["refuse"] = lambda options: True
    assert score_samples.main([*arguments, str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["mean"]["dice"] == 0.0


def test_what_is_missing_is_named(samples, server, tmp_path, capsys):
    assert score_samples.main(["--server", server.url, "--samples", str(tmp_path), "--no-nearest"]) == 2
    assert "make_samples.py" in capsys.readouterr().err
    server.state["models"] = {"deepedit": {}}
    assert score_samples.main(["--server", server.url, "--samples", str(samples), "--no-nearest"]) == 2
    assert "deepedit" in capsys.readouterr().err
    gone = ["--server", "http://127.0.0.1:9", "--samples", str(samples), "--no-nearest"]
    assert score_samples.main(gone) == 2
    assert "is it running" in capsys.readouterr().err


def test_baselines_use_the_supports_of_the_answer(oracle, samples):
    folder = SampleFolder(samples)
    scores = score_study(folder, "rgb_08", oracle.ask, foundation=Stretched(), controls=False)
    answer = oracle.ask("rgb_08", {})
    study = folder.study("rgb_08")
    truth = folder.labels("rgb_08", study)[0]
    for score in scores:
        assert score.supports == answer.supports and score.swapped is None
        value = folder.structures("rgb_08")[score.structure]
        masks = []
        for name, index in answer.supports:
            labels = folder.labels(name, folder.study(name))[index]
            masks.append(torch.from_numpy(labels == value)[None])
        copied = [copy_support_mask(some, study.slice_shape)[0].numpy() for some in (masks, masks[:1])]
        assert score.copy == pytest.approx(max(overlap(mask, truth == value).dice for mask in copied))
    bright = next(score for score in scores if score.structure == "disc")
    assert bright.nearest > bright.copy + 0.2


def test_controls_ask_for_the_other_structure_of_the_same_supports_and_for_another_set(oracle, samples):
    score_study(SampleFolder(samples), "us_09", oracle.ask)
    (_, proper), *controls = oracle.asked
    assert proper == {}
    assert [options.get("structure") for _, options in controls] == ["symphysis", "head", None]
    assert all(name.startswith("us_") for _, options in controls[:2] for name in options["support"])
    assert not any(name.startswith("us_") for name in controls[2][1]["support"])
    assert all(len(options["support"]) == options["supports"] for _, options in controls)


def test_a_wrong_answer_is_seen(oracle, samples):
    def swap_names(study_id, options):
        answer = oracle.ask(study_id, options)
        names = dict(zip(answer.names, reversed(answer.names.values()), strict=True))
        return answer._replace(names=names)

    scores = score_study(SampleFolder(samples), "rgb_07", swap_names, controls=False)
    assert [score.dice for score in scores] == [0.0, 0.0]
    assert summarise(scores)["mean"]["dice"] == 0.0


def test_labels_of_samples_are_found_by_id(samples):
    folder = SampleFolder(samples)
    assert not set(folder.targets) & set(folder.labelled)
    with pytest.raises(StudyError, match="rgb_01"):
        folder.structures("rgb_99")
    assert (truth_folder(samples) / "truth.json").is_file()
