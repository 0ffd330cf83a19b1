"""Labels that the archive could not take, on this machine's disk until it does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from pydicom import dcmread
from pydicom.dataset import Dataset

from proxyprompt.io.files import replacing, stamp

logger = logging.getLogger(__name__)

AGAIN = 10.0
"""Seconds between two attempts to hand over what waits."""
_REFUSED = ".refused"


class Outbox:
    """DICOM SEGs that wait for the archive, one file each. Thread safe; what waits outlives the server.

    Args:
        folder: of the files; made when needed.
        store: sends one to the archive; raises MONAILabelException, of the kind INVALID_INPUT where the archive refuses
            it for good.
        handed_over: called with the image's id when one has been taken.
    """

    def __init__(
        self,
        folder: Path,
        store: Callable[[Dataset], object],
        handed_over: Callable[[str], object] = lambda image: None,
    ) -> None:
        self._folder, self._store, self._handed_over = folder, store, handed_over
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, image_id: str, seg: Dataset) -> Path:
        """Keep a label until the archive takes it.

        Args:
            image_id: of the series that it was drawn on.
            seg: the label.

        Returns:
            Its file.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{image_id}.{stamp()}.dcm"
        with replacing(path) as beside:
            seg.save_as(beside, write_like_original=False)
        self.begin()
        return path

    def waiting(self) -> dict[str, Path]:
        """The newest label that waits, by image."""
        return {_image_of(path): path for path in self._files()}

    def refused(self) -> dict[str, str]:
        """Why the archive refused labels for good, by the name of the file in the folder that they stay in."""
        return {path.name: path.read_text() for path in sorted(self._folder.glob(f"*{_REFUSED}.txt"))}

    def begin(self) -> None:
        """Try to hand over what waits, in the background, until nothing does."""
        with self._lock:
            if self._files() and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
                self._thread.start()

    def hand_over(self) -> bool:
        """Try once, the oldest first.

        Returns:
            Whether nothing waits any more.
        """
        for path in self._files():
            try:
                self._store(dcmread(path))
            except FileNotFoundError:
                continue
            except MONAILabelException as error:
                if error.error is not MONAILabelError.INVALID_INPUT:
                    return False
                logger.error("%s: the archive refuses this label: %s", path, error.msg)
                aside = path.with_suffix(_REFUSED)
                aside.with_suffix(f"{_REFUSED}.txt").write_text(error.msg)
                path.rename(aside)
                continue
            path.unlink(missing_ok=True)
            logger.info("the label of %s was handed over to the archive", _image_of(path))
            self._handed_over(_image_of(path))
        return True

    def _run(self) -> None:
        while not self._attempt():
            time.sleep(AGAIN)

    def _attempt(self) -> bool:
        try:
            return self.hand_over()
        except Exception:  # the next attempt may do better; the labels stay
            logger.exception("labels could not be handed over")
            return False

    def _files(self) -> list[Path]:
        """Oldest first: by the time in their names."""
        return sorted(self._folder.glob("*.dcm"), key=lambda path: path.stem.rpartition(".")[2])


def _image_of(path: Path) -> str:
    return path.stem.rpartition(".")[0]
