"""What workers of the tests do; a module of its own, so that other processes can import it."""

import os
import signal
import time
from pathlib import Path

from proxyprompt.io.errors import StudyError


class Doing:
    """Follows the item's options: "refuse", "fail", "die", "die once", or nothing; notes in a file that it was here."""

    def __init__(self, notes: str):
        self._notes = Path(notes)
        self._note("prepared")

    def __call__(self, item):
        self._note(item.id)
        what = (item.options or {}).get("do")
        if what == "refuse":
            raise StudyError(f"{item.id} is cut short")
        if what == "fail":
            raise ZeroDivisionError("by nothing")
        if what == "die" or (what == "die once" and self._count(item.id) == 1):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep((item.options or {}).get("seconds", 0))
        return f"{item.id}!"

    def _note(self, what: str) -> None:
        with self._notes.open("a") as file:
            file.write(f"{what}\n")

    def _count(self, what: str) -> int:
        return self._notes.read_text().splitlines().count(what)


class Make:
    """Makes :class:`Doing` in a worker; ``problem`` is why it cannot."""

    def __init__(self, notes: Path, problem: str = ""):
        self._notes, self._problem = str(notes), problem

    def __call__(self):
        if self._problem == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self._problem:
            raise StudyError(self._problem)
        return Doing(self._notes)
