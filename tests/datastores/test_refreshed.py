"""A value from elsewhere that nobody queues for."""

import threading
import time

import pytest

from proxyprompt.datastores.refreshed import Refreshed


class Elsewhere:
    """Counts how often it is asked; hangs while ``goes_on`` is not set, fails while ``broken``."""

    def __init__(self):
        self.asked, self.broken, self.goes_on = 0, False, threading.Event()
        self.goes_on.set()

    def __call__(self):
        self.asked += 1
        self.goes_on.wait(60)
        if self.broken:
            raise ConnectionError("away")
        return self.asked


@pytest.fixture
def elsewhere():
    made = Elsewhere()
    yield made
    made.goes_on.set()


def seconds(function):
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


def test_a_value_holds_until_it_expires_or_is_forgotten(elsewhere):
    value = Refreshed(elsewhere, expiry=1000)
    assert [value.get(), value.get()] == [1, 1]
    value.forget()
    assert value.get() == 2 and value.newer() == 3


def test_of_many_who_wait_for_a_machine_that_hangs_none_waits_longer_than_one(elsewhere):
    value = Refreshed(elsewhere, expiry=0, patience=0.4)
    assert value.get() == 1
    elsewhere.goes_on.clear()
    waited = []
    threads = [threading.Thread(target=lambda: waited.append(seconds(value.get))) for _ in range(12)]
    total = seconds(lambda: [*map(threading.Thread.start, threads), *map(threading.Thread.join, threads)])
    assert total < 1.5 and max(waited) < 1.2
    assert seconds(value.get) < 0.3  # that it hangs is known by now
    assert value.get() == 1 and elsewhere.asked == 2


def test_what_is_away_is_said_at_once_and_not_asked_again_for_a_moment(elsewhere):
    elsewhere.broken = True
    value = Refreshed(elsewhere, expiry=0)
    for _ in range(3):
        with pytest.raises(ConnectionError, match="away"):
            value.get()
    assert elsewhere.asked == 1 and isinstance(value.failure, ConnectionError)
    elsewhere.broken = False
    value.forget()
    assert value.get() == 2 and value.failure is None


def test_the_last_value_serves_while_the_other_is_away_but_not_as_a_newer_one(elsewhere):
    value = Refreshed(elsewhere, expiry=0)
    value.get()
    elsewhere.broken = True
    assert value.get() == 1
    with pytest.raises(ConnectionError):
        value.newer()


def test_a_first_value_that_takes_too_long(elsewhere):
    elsewhere.goes_on.clear()
    value = Refreshed(elsewhere, expiry=0, first_patience=0.3)
    with pytest.raises(TimeoutError):
        value.get()
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        value.get()
    assert time.monotonic() - begun < 0.2  # that it takes long is known by now
    elsewhere.goes_on.set()
    assert value.newer() >= 1


def test_a_newer_value_is_one_that_was_asked_for_afterwards(elsewhere):
    elsewhere.goes_on.clear()
    value = Refreshed(elsewhere, expiry=0)
    early = threading.Thread(target=lambda: value.get())
    early.start()
    while not elsewhere.asked:
        time.sleep(0.01)
    threading.Timer(0.2, elsewhere.goes_on.set).start()
    assert value.newer() == 2
    early.join()


def test_a_first_value_is_waited_for_as_long_as_there_are_signs_of_life():
    def slowly():
        for _ in range(8):
            time.sleep(0.15)
            value.sign_of_life()
        return "here"

    value = Refreshed(slowly, expiry=1000, first_patience=0.6)
    assert value.get() == "here"
