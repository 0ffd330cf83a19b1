"""A clock that jumps: neither the order of versions nor what is listed depends on it."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from versions import NAME, write_version

from proxyprompt.datastores.arrivals import Arrivals
from proxyprompt.predictor.adapters import AdapterHeader, AdapterStore

pytestmark = pytest.mark.faults


def test_a_version_that_comes_after_the_clock_was_set_back_is_the_newest(tmp_path):
    write_version(tmp_path)
    store = AdapterStore(tmp_path, foundation="atto-1", foundation_sha256="a" * 64)
    header, state = store.load(NAME)
    earlier = (datetime.fromisoformat(header.created) - timedelta(days=400)).astimezone(UTC)
    told = json.loads(header.to_json()) | {"name": "adapter-second", "created": earlier.isoformat()}
    store.save(AdapterHeader.from_json(json.dumps(told)), state)
    assert store.versions() == ["adapter-second", NAME]


@pytest.mark.parametrize("days", [-400, 400])
def test_a_file_of_another_day_is_not_on_its_way_for_ever(tmp_path, days):
    """What was never seen to be closed, as on a network drive, with the time that a wrong clock gave it."""
    arrivals = Arrivals(tmp_path, lambda: None)
    arrivals._tells_of_closing = False
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    arrivals._touched["a.png"] = time.monotonic()
    assert arrivals.on_the_way("a.png")  # it has just come
    then = time.time() + days * 86_400
    os.utime(path, (then, then))
    assert not arrivals.on_the_way("a.png")
