"""Scoring waits for requests, survives failures, and runs again when woken."""

import threading
import time

from monailabel.interfaces.tasks.scoring import ScoringMethod

from proxyprompt.activelearning import idle as module
from proxyprompt.activelearning.idle import BackgroundScoring, Idle


class Counted(ScoringMethod):
    def __init__(self, fails=False):
        super().__init__("counted")
        self.fails, self.runs, self.ran = fails, 0, threading.Event()

    def __call__(self, request, datastore):
        self.runs += 1
        self.ran.set()
        if self.fails:
            raise RuntimeError("no")
        return {}


def test_it_runs_when_woken_whatever_failed_before():
    bad, good = Counted(fails=True), Counted()
    scoring = BackgroundScoring([bad, good], None)
    for n in (1, 2):
        good.ran.clear()
        scoring.wake()
        assert good.ran.wait(20)
        assert bad.runs == good.runs == n


def test_an_idle_server_keeps_nobody_waiting():
    start = time.monotonic()
    Idle().wait()
    assert time.monotonic() - start < 0.5


def test_it_waits_until_requests_are_answered(monkeypatch):
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.2)
    idle, went_on = Idle(), threading.Event()
    with idle.request():
        threading.Thread(target=lambda: (idle.wait(), went_on.set()), daemon=True).start()
        assert not went_on.wait(0.5)
        with idle.request():
            pass
        assert not went_on.wait(0.3)
    with idle.request():  # another one before it was quiet for long enough
        assert not went_on.wait(0.4)
    assert went_on.wait(20)
