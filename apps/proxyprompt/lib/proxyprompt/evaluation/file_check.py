"""Do files as people really have them go the whole way through a server? Upload, info, inference, label.

Every image is uploaded under its own name (a series is copied into the folder of studies), asked about, segmented with
the image before it as its one support, and labelled, so that its label becomes a support; what comes back must lie on
the image's grid. An image without a label gets a stand-in, its brighter half. What the server refuses is noted with its
words: whether it is right to do so, a person decides. A failure is what must never be: an answer of 500 and more, none,
or a mask that does not fit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from proxyprompt.io.errors import StudyError
from proxyprompt.io.study import read_study

from .client import TASK, Client, ServerError
from .file_groups import FINAL, FileGroup, ImageFile

LISTED_SECONDS = 60.0  # in which a copied folder must be listed
SAID_EVERY = 20  # images


@dataclass(frozen=True)
class Complaint:
    """What did not go through.

    Attributes:
        file: of which file.
        step: upload, info, infer, label, listing or removal.
        status: HTTP's; None without one.
        reason: in the server's words.
    """

    file: str
    step: str
    status: int | None
    reason: str

    @property
    def is_failure(self) -> bool:
        """Whether it must never be, whatever the file."""
        return self.status is None or self.status >= 500

    def __str__(self) -> str:
        return f"{'FAILED' if self.is_failure else 'refused'} {self.step} of {self.file}: {self.reason}"


@dataclass
class Checked:
    """What went through of one group, what did not, and how long it took.

    Attributes:
        size: images that there are.
        images: how many of them are known to the server.
        labels: how many were taken.
        stand_ins: labels made for images that have none.
        inferences: how many came back with a mask that fits.
        seconds: wall clock.
        complaints: what did not go through.
    """

    size: int
    images: int = 0
    labels: int = 0
    stand_ins: int = 0
    inferences: int = 0
    seconds: float = 0.0
    complaints: list[Complaint] = field(default_factory=list)

    @property
    def failures(self) -> list[Complaint]:
        """What must never be."""
        return [each for each in self.complaints if each.is_failure]

    def __str__(self) -> str:
        refused = len(self.complaints) - len(self.failures)
        return (
            f"{self.images} of {self.size} images, {self.labels} labels, {self.stand_ins} stand-ins, {self.inferences} "
            f"inferences; {refused} refused, {len(self.failures)} failed; {self.seconds:.0f} s"
        )

    def to_json(self) -> dict[str, Any]:
        """For a record; :meth:`from_json` takes it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Checked:
        """What :meth:`to_json` gave."""
        return cls(**{**content, "complaints": [Complaint(**each) for each in content["complaints"]]})


class FileCheck:
    """Sends groups of files to a server, one after the other; each is taken away again when it is done.

    Args:
        client: of a server that serves nothing else.
        studies: the folder that it serves, for DICOM series, which are not uploaded.
        scratch: for temporary files.
        say: for what does not go through, and for progress.
    """

    def __init__(self, client: Client, *, studies: Path, scratch: Path, say: Callable[[str], None]) -> None:
        self._client, self._studies, self._scratch, self._say = client, studies, scratch, say

    def run(self, group: FileGroup, *, inferences: int | None = None) -> Checked:
        """Checks one group.

        Args:
            group: of images.
            inferences: at most so many, evenly spread over the group; None for one of each image.

        Returns:
            What went through and what did not.
        """
        start, checked = time.perf_counter(), Checked(len(group.items))
        chosen = _spread(len(group.items), inferences)
        sent: list[str] = []
        support: str | None = None  # the last labelled image
        waiting: tuple[str, ImageFile] | None = None  # the first image, for its support
        for n, item in enumerate(group.items):
            image_id = self._send(item, checked)
            if image_id is None:
                continue
            sent.append(image_id)
            if n in chosen and support is not None:
                self._infer(image_id, item, support, checked)
            elif n in chosen:
                waiting = image_id, item
            if self._label(image_id, item, checked):
                support = image_id
                if waiting is not None and waiting[0] != image_id:
                    self._infer(*waiting, support, checked)
                    waiting = None
            if (n + 1) % SAID_EVERY == 0:
                self._say(f"  {group.name}: {n + 1} of {len(group.items)}, {time.perf_counter() - start:.0f} s")
        with self._noting(checked, group.name, "listing"):
            self._check_listing(len(sent))
        for image_id in sent:
            with self._noting(checked, image_id, "removal"):
                self._client.remove_image(image_id)
        checked.seconds = time.perf_counter() - start
        return checked

    # inside

    def _send(self, item: ImageFile, checked: Checked) -> str | None:
        """The image's id, once the server knows it."""
        with self._noting(checked, item.image, "upload"):
            image_id = self._copy(item.image) if item.image.is_dir() else self._client.add_image(item.image)
            with self._noting(checked, item.image, "info"):
                self._client.image_info(image_id)
                checked.images += 1
                return image_id
        return None

    def _copy(self, series: Path) -> str:
        """As people bring a series: by copying its folder. The id is the folder's name."""
        shutil.copytree(series, self._studies / series.name)
        end = time.monotonic() + LISTED_SECONDS
        while True:
            try:
                self._client.image_info(series.name)
                return series.name
            except ServerError as error:
                if error.status != 404 or time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def _infer(self, image_id: str, item: ImageFile, support: str, checked: Checked) -> None:
        with self._noting(checked, item.image, "infer"):
            content, suffix, _ = self._client.segment(image_id, support=[support], agreement=False)
            answer = self._scratch / f"answer{suffix}"
            answer.write_bytes(content)
            try:
                read_study(item.image).read_label(answer)
            except StudyError as error:
                raise ServerError(f"the mask does not fit its image: {error}") from error
            checked.inferences += 1

    def _label(self, image_id: str, item: ImageFile, checked: Checked) -> bool:
        """Whether the image has a final label now that can be a support."""
        final = None
        for tag, path in item.labels.items():
            with self._noting(checked, path, "label"):
                self._client.submit(image_id, path, tag=tag)
                checked.labels += 1
                final = path if tag == FINAL else final
        if FINAL not in item.labels and (label := self._stand_in(item.image)) is not None:
            with self._noting(checked, item.image, "label"):
                self._client.submit(image_id, label, {"brighter": (1,)})
                checked.stand_ins += 1
                final = item.image
        if final is None:
            return False
        with self._noting(checked, final, "label"):
            if image_id in self._client.info()["models"][TASK]["config"]["support"]:
                return True
            self._client.segment(image_id, support=[image_id])  # which is refused with the reason
            raise ServerError("its study is no support, and nothing says why")
        return False

    def _stand_in(self, image: Path) -> Path | None:
        """The brighter half of an image as a label; None where the image cannot be read, which inference says."""
        try:
            study = read_study(image)
            gray = study.images(range(len(study))).mean(axis=1)
            return study.write_label(gray > np.median(gray), self._scratch / "stand-in.nrrd")
        except StudyError:
            return None

    def _check_listing(self, sent: int) -> None:
        """Whether the server shows all that was sent, and nothing else."""
        store = self._client.info()["datastore"]
        if store["total"] != sent or store.get("not_listed"):
            raise ServerError(f"{sent} images were sent; /info/ shows {store}")

    @contextmanager
    def _noting(self, checked: Checked, file: Path | str, step: str) -> Iterator[None]:
        """What the server refuses within is noted, and the check goes on behind it."""
        try:
            yield
        except ServerError as error:
            name = file if isinstance(file, str) else f"{file.parent.name}/{file.name}"
            checked.complaints.append(Complaint(name, step, error.status, str(error)))
            self._say(f"  {checked.complaints[-1]}")


def _spread(count: int, most: int | None) -> set[int]:
    """Which of ``count`` are chosen, evenly."""
    if most is None or most >= count:
        return set(range(count))
    return {round(each) for each in np.linspace(0, count - 1, most)} if most > 0 else set()
