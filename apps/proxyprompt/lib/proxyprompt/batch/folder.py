"""The folder of a batch's results, which is also all that is known of how far it is.

A study is done when its result is there: written beside, then put in place by a link, which never replaces a file. So
it does not matter which worker of which program wrote it, nor what was killed meanwhile; a second program on the same
folder waits for none, it is refused.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from proxyprompt.io.files import write_json
from proxyprompt.io.label_files import WRITABLE
from proxyprompt.session.journal import Journal

from .queue import DONE, BatchAnswer, BatchError, BatchItem

_PLAN, _FAILED, _JOURNAL, _LOCK, _WORK = "batch.json", "failed.json", "batch.jsonl", ".lock", ".work"


class BatchFolder:
    """Results by study, the plan that they follow, what failed, and a line for each study that was done or given up.

    Args:
        folder: made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal(folder / _JOURNAL)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """One program at a time; what a killed one left half written goes.

        Raises:
            BatchError: when another program works on this folder, or it cannot be written to.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK)
            lock.acquire(timeout=0.5)
        except Timeout:
            raise BatchError(
                f"another batch writes to {self.folder}: wait for its end, or name another folder"
            ) from None
        except OSError as error:
            raise BatchError(f"{self.folder} cannot be written to ({error.strerror}); name another folder") from error
        try:
            shutil.rmtree(self.folder / _WORK, ignore_errors=True)
            yield
        finally:
            lock.release()

    def claim(self, plan: Mapping[str, Any]) -> None:
        """Note what the results come from, or check that those that are there come from the same.

        Args:
            plan: what decides the results, as JSON.

        Raises:
            BatchError: when the folder holds results of another plan.
        """
        wanted = json.loads(json.dumps(plan))
        path = self.folder / _PLAN
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_json(path, wanted, indent=2)
            return
        except ValueError as error:
            raise BatchError(f"{path} cannot be understood ({error}); name another folder for the results") from error
        if there != wanted:
            keys = there.keys() | wanted.keys() if isinstance(there, dict) else {"everything"}
            different = sorted(key for key in keys if not isinstance(there, dict) or there.get(key) != wanted.get(key))
            raise BatchError(
                f"{self.folder} holds results of other options ({', '.join(different)} differ): name another folder, "
                "or give the options that they were made with"
            )

    def result(self, id: str) -> Path | None:
        """The result of a study.

        Args:
            id: of the study.

        Returns:
            Its file; None where there is none yet.
        """
        paths = (self.folder / f"{id}{suffix}" for suffix in WRITABLE)
        return next((path for path in paths if path.is_file()), None)

    def missing(self, items: Sequence[BatchItem]) -> list[BatchItem]:
        """Those that have no result yet.

        Args:
            items: the studies of a batch.

        Returns:
            In the same order.
        """
        return [item for item in items if self.result(item.id) is None]

    def put(self, id: str, suffix: str, write: Callable[[Path], object]) -> Path:
        """Put the result of a study in its place, unless it has one.

        Args:
            id: of the study.
            suffix: of the file.
            write: writes it to the path that it is given, which has that suffix.

        Returns:
            The path of the result.
        """
        path = self.folder / f"{id}{suffix}"
        scratch = self.folder / _WORK / secrets.token_hex(8)
        scratch.mkdir(parents=True)
        try:
            written = scratch / path.name
            write(written)
            with contextlib.suppress(FileExistsError):  # a worker of a program that was killed has finished it
                _place(written, path)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return path

    def note(self, answer: BatchAnswer) -> None:
        """Add a line about a study to the journal.

        Args:
            answer: what came of it.
        """
        facts = {"seconds": round(answer.seconds, 3), "worker": answer.worker, "attempts": answer.attempts}
        if answer.status != DONE:
            facts["message"] = answer.message
        self.journal.write(answer.status, image=answer.item.id, **facts)

    def list_failed(self, failed: Mapping[str, str]) -> Path | None:
        """Write down which studies have no result, and why; a list of an earlier run goes.

        Args:
            failed: id -> why.

        Returns:
            The list's file; None where nothing failed.
        """
        path = self.folder / _FAILED
        if not failed:
            path.unlink(missing_ok=True)
            return None
        write_json(path, dict(sorted(failed.items())), indent=2, ensure_ascii=False)
        return path


def _place(written: Path, path: Path) -> None:
    """FileExistsError where there is a file already."""
    try:
        path.hardlink_to(written)
    except FileExistsError:
        raise
    except OSError:  # not every file system has links
        if path.exists():
            raise FileExistsError(path) from None
        written.rename(path)
