"""Ways to break a program at every point where it can break: killed at each step, killed within a write, disk full."""

import os
import resource
import signal
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest

STEPS = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime"})
STEPS |= {"shutil.copyfile", "shutil.rmtree", "tempfile.mkstemp", "os.symlink"}
MOST_STEPS = 200
SIZES = (0, 1, 7, 64, 200, 1000, 5000)
"""Bytes of a file after which the system kills who writes on."""


def killed_at_every_step(folder: Path, prepare, act):
    """Runs ``act(prepare())`` in processes that are killed before the first, second, ... change of a file in a folder.

    Yields the number of the step after each one that was killed, and ends when one has come through.
    """
    for step in range(1, MOST_STEPS):
        status = _forked(lambda step=step: _kill_at(folder, step), prepare, act)
        if status == 0:
            assert step > 1, "nothing was changed, so nothing was tried"
            return
        assert status == -signal.SIGKILL, f"ended by itself, with {status}"
        yield step
    raise AssertionError(f"more than {MOST_STEPS} steps")


def killed_within_writes(prepare, act):
    """The same, killed in the middle of writing a file, at several lengths."""
    for size in SIZES:
        status = _forked(lambda size=size: _kill_beyond(size), prepare, act)
        assert status in (0, -signal.SIGXFSZ), status
        if status:
            yield size


def _forked(arm, prepare, act) -> int:
    child = os.fork()
    if child == 0:
        try:
            made = prepare()
            arm()
            act(made)
        except BaseException:
            traceback.print_exc()
            os._exit(9)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _kill_at(folder: Path, step: int) -> None:
    left = step

    def hook(event, arguments):
        nonlocal left
        writes = event == "open" and len(arguments) > 2 and isinstance(arguments[2], int) and arguments[2] & 3
        if (writes or event in STEPS) and any(_inside(each, folder) for each in arguments):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _inside(argument, folder: Path) -> bool:
    return isinstance(argument, str | bytes | os.PathLike) and os.fsdecode(argument).startswith(str(folder))


def _kill_beyond(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@contextmanager
def small_disk(folder: Path, megabytes: int = 4):
    """A file system of its own, in memory; skips where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(folder)], check=True)


@contextmanager
def filled(folder: Path, *, free_pages: int):
    """The file system of a folder with room for a few pages of 4096 bytes only."""
    filler = folder / "filler"
    status = os.statvfs(folder)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, status.f_bavail - free_pages) * status.f_frsize)
    try:
        yield
    finally:
        filler.unlink()
