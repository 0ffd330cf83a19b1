"""A thousand labelled studies, and ten thousand that are not: start, what the panel shows, the first request."""

import os
import time

import numpy as np
import pytest
from app_in_process import build_app
from PIL import Image
from tiny_atto import write_tiny_atto

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(3600)]

LABELLED, OTHERS = 1000, 10_000


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "studies"
    (folder / "labels" / "final").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(LABELLED):
        mask = np.zeros((32, 40), np.uint8)
        mask[4 + n % 20 : 12 + n % 20, 4 + n % 25 : 14 + n % 25] = 1
        image = np.clip(60 + 90 * mask + rng.normal(0, 9, mask.shape), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(folder / f"l{n:04d}.png")
        Image.fromarray(mask).save(folder / "labels" / "final" / f"l{n:04d}.png")
    for n in range(OTHERS):
        os.link(folder / f"l{n % LABELLED:04d}.png", folder / f"u{n:05d}.png")
    return folder


def test_start_info_and_the_first_request(studies, tmp_path):
    seconds = {}

    def timed(name, function, *arguments):
        started = time.monotonic()
        value = function(*arguments)
        seconds[name] = time.monotonic() - started
        return value

    weights = write_tiny_atto(tmp_path).parent
    app = timed("start", lambda: build_app(studies, weights, background_scoring="false"))
    timed("labels read", app.library.refresh)
    info = timed("info", app.info)
    again = timed("info again", app.info)
    assert len(info["models"]["proxyprompt"]["config"]["support"]) == 1 + LABELLED
    assert info["datastore"]["total"] == again["datastore"]["total"] == LABELLED + OTHERS
    alike = np.asarray(Image.open(studies / "l0007.png")).copy()  # one that looks like no other is not segmented
    alike[0, 0] += 1
    Image.fromarray(alike).save(studies / "new.png")
    app.datastore().refresh()
    request = {"model": "proxyprompt", "image": "new"}
    answer = timed("first request", app.infer, request)
    assert answer["params"]["supports"] and answer["params"]["still_indexing"] > 0
    timed("next request", app.infer, request)
    print({name: round(taken, 2) for name, taken in seconds.items()})
    assert seconds["info again"] < max(1.0, seconds["start"])
    assert seconds["next request"] < max(5.0, seconds["labels read"])
