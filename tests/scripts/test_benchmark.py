"""The benchmark runs, measures what it says, and writes what it promises. Its numbers are of no interest here."""

import json
import math
import time

import benchmark
import pytest
import torch

from proxyprompt.benchmark.measure import BenchmarkRow, compare, peak_bytes


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    files = {name: folder / f"b.{name}" for name in ("json", "png", "md")}
    arguments = ["--quick", "--json", files["json"], "--plot", files["png"], "--page", files["md"]]
    assert benchmark.main([str(a) for a in arguments]) == 0
    return files


def test_every_ratio_is_measured(quick):
    rows = {(row["part"], row["name"]): row for row in json.loads(quick["json"].read_text())["rows"]}
    for kind in ("forward", "forward and backward"):
        assert ("scan", f"numba over the loop, {kind}") in rows
    assert rows["vision mamba", "forward over its matrix products"]["aim"] == 2.5
    for objects in (1, 3):
        for what in ("2-D", "a volume's slice"):
            assert rows["atto at 64", f"cached request over floor, N={objects}, {what}"]["aim"] == 1.35
    assert {part for part, _ in rows} >= {f"growth with {what}" for what in ("K", "N", "slices", "pixels")}
    assert all(math.isfinite(row["value"]) for row in rows.values())


def test_page_shows_plot_and_machine_but_no_host(quick):
    import platform

    page = quick["md"].read_text()
    assert "![Benchmark](b.png)" in page and "cores" in page
    assert platform.node() not in page
    assert quick["png"].read_bytes().startswith(b"\x89PNG")


def test_comparison_takes_turns_and_keeps_the_least():
    calls = []

    def work(name, pause):
        calls.append(name)
        time.sleep(pause if len(calls) > 2 else 0.05)

    fast, slow = compare(lambda: work("fast", 0.001), lambda: work("slow", 0.02), budget=0.0, rounds=2)
    assert calls == ["fast", "slow"] * 3
    assert fast < slow < 0.05


def test_the_first_call_of_what_takes_long_counts_as_a_round():
    calls = []
    compare(lambda: calls.append("a"), lambda: (calls.append("b"), time.sleep(0.05)), budget=0.001, rounds=3)
    assert calls == ["a", "b"] * 3


def test_peak_memory_sees_what_is_freed_again():
    assert peak_bytes(lambda: torch.ones(64 * 2**20 // 4).sum()) > 32 * 2**20


def test_aims_go_both_ways():
    assert BenchmarkRow("p", "n", 25, "x", 20, at_least=True).reached
    assert not BenchmarkRow("p", "n", 1.3, "x", 1.2).reached
    assert BenchmarkRow("p", "n", 1.3, "x").reached is None


def test_what_cannot_be_measured_is_refused(capsys):
    assert benchmark.main(["--foundation", "sam3"]) == 2
    assert "unknown foundation sam3; valid: atto" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert benchmark.main(["--device", "cuda"]) == 2
    with pytest.raises(SystemExit):
        benchmark.main(["--page", "x.md"])
