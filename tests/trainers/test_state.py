"""The progress of a training, as others see it, whatever became of its process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from proxyprompt.trainers.state import TrainingState, expected_epochs
from proxyprompt.training.errors import TrainingError
from proxyprompt.training.finetune import Progress

APP = Path(__file__).resolve().parents[2] / "apps" / "proxyprompt"
HOLD = """
import sys
from proxyprompt.trainers.state import TrainingState
state = TrainingState(sys.argv[1])
with state.exclusive():
    state.start(epochs=4)
    print("held", flush=True)
    sys.stdin.read()
"""


def progress(step, seconds=10.0, best=0.5):
    return Progress(step, 100, step // 25, 4, 0.3, 0.6, {"head": 0.51234}, best, seconds, 1e-4)


@pytest.fixture
def other(tmp_path):
    """Another process that trains."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=APP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_there_is_nothing_before_the_first_training(tmp_path):
    assert TrainingState(tmp_path / "none").stats() == {}


def test_viewers_find_what_they_look_for(tmp_path):
    state = TrainingState(tmp_path)
    with state.exclusive():
        state.start(epochs=4)
        assert state.stats()["epoch"] == 0 and state.stats()["total_epochs"] == 4
        state.progress(progress(50), minutes=None)
        stats = state.stats()
        assert (stats["epoch"], stats["total_epochs"], stats["best_metric"]) == (2, 4, 0.5)
        assert stats["validation"] == {"head": 0.5123}
        state.progress(progress(51), minutes=None)
        assert state.stats()["step"] == 50  # no file is written at every step
        state.progress(progress(75), minutes=None)
        assert (state.stats()["step"], state.stats()["epoch"]) == (75, 3)
        assert stats["status"] == "running" and "total_time" not in stats
        assert stats["resumed_from"] == 49 and "49" in stats["message"]
        state.finish("published", "better", best_metric=0.7)
    stats = state.stats()
    assert stats["total_time"] == "0:00:10" and stats["best_metric"] == 0.7
    assert (stats["status"], stats["message"]) == ("published", "better")
    with state.exclusive():
        state.start(epochs=8)
        state.progress(progress(1), minutes=None)
        assert state.stats()["resumed_from"] == 0
        assert "total_time" not in state.stats()


def test_a_second_training_is_refused_and_leaves_the_progress_of_the_first(tmp_path, other):
    state = TrainingState(tmp_path)
    with pytest.raises(TrainingError, match="running already"), state.exclusive():
        pytest.fail("two trainings at once")
    assert state.stats()["status"] == "running"


def test_a_killed_training_leaves_no_lock_and_is_shown_as_interrupted(tmp_path, other):
    other.kill()
    other.wait()
    state = TrainingState(tmp_path)
    stats = state.stats()
    assert stats["status"] == "interrupted"
    assert stats["total_time"] == "0:00:00"  # viewers take a training without one for running
    with state.exclusive():
        state.start(epochs=4)
        assert state.stats()["status"] == "running"
        state.progress(progress(1), minutes=None)
        assert "began anew" in state.stats()["message"]  # since the checkpoint was not gone on from


def test_a_failure_before_anything_began_is_told(tmp_path):
    state = TrainingState(tmp_path)
    with state.exclusive():
        state.finish("failed", "too few studies")
    assert state.stats()["message"] == "too few studies"


def test_the_log_of_a_training_is_kept_under_the_name_of_its_version(tmp_path):
    state = TrainingState(tmp_path)
    state.run_folder.mkdir()
    (state.run_folder / "events.1").write_text("log")
    state.put_away("adapter-1")
    assert (tmp_path / "logs" / "adapter-1" / "events.1").read_text() == "log"
    assert not list(state.run_folder.iterdir())


def test_a_damaged_file_is_no_statistics(tmp_path):
    (tmp_path / "stats.json").write_text('{"epoch": 3')
    assert TrainingState(tmp_path).stats() == {}
    json.dumps(TrainingState(tmp_path).stats())


@pytest.mark.parametrize(
    ("step", "seconds", "minutes", "epochs"),
    [
        (50, 10, None, 4),
        (50, 30, 1, 4),  # half of the steps in half of the time
        (25, 30, 1, 2),  # a quarter of the steps in half of the time
        (1, 59, 1, 1),
        (0, 0, 1, 4),
    ],
)
def test_the_epochs_to_expect_when_the_minutes_end_first(step, seconds, minutes, epochs):
    assert expected_epochs(progress(step, seconds), minutes) == epochs
