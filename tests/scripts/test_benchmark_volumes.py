"""The figures of streams and volumes, on tiny ones."""

import json

import benchmark_volumes


def test_it_measures_a_stream_and_a_volume(weights, tmp_path):
    sizes = ["--frames", "12", "--slices", "8", "--side", "32", "--image-size", "128", "--threads", "1"]
    options = [*sizes, "--mode", "propagate", "--weights-dir", str(weights), "--json", str(tmp_path / "found.json")]
    assert benchmark_volumes.main(options) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    stream, volume = found["stream"], found["volume"]
    assert stream["frames"] == 12 and stream["frames_per_second"] > 0
    assert len(stream["megabytes"]) >= 10 and stream["megabytes"][-1] - stream["megabytes"][1] < 50
    assert volume["last_step"] == [16, 16] and volume["progress_steps"] > 8 and 0 < volume["peak_megabytes"] < 6000
