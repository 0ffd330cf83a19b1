"""A folder of studies: which there are, which label each has, and what else lies there.

MONAI Label's local datastore lists files of certain names only, without a word about the others, takes any of several
files of one name for the image or the label, and looks again only when a file of such a name comes. Here what lies in
the folder is listed by one rule (:mod:`proxyprompt.datastores.listing`), which requests go by too
(:mod:`proxyprompt.io.names`); what is left out is said, in the log and in :attr:`StudyFolder.left_out`; and what
arrives is listed once it is whole (:mod:`proxyprompt.datastores.arrivals`).
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import LabelNotFoundException

from proxyprompt.io.files import FULL, UNWRITABLE
from proxyprompt.io.names import why_unusable

from .arrivals import Arrivals
from .label_versions import current_version, earlier_name, earlier_version, kept_info, kept_suffix
from .listing import Found, StudyListing, is_dicom_folder
from .noted import fitting
from .shared import SharedDatastore, dated
from .versions import LabelVersion, moment, names_in, writer_of

__all__ = ["StudyFolder", "is_dicom_folder"]

logger = logging.getLogger(__name__)

FINAL = DefaultLabelTag.FINAL.value
SAID = 20
"""Files that are left out are named in the log, and in the status, up to this number; the rest is counted."""
_ON_THE_WAY = "is still being written; it is listed as soon as it is whole"


class StudyFolder(SharedDatastore):
    """A datastore on this machine that lists DICOM series too, and whose list follows what lies in the folder.

    A study whose file is not named by its id (a series in a folder in a folder) has "/" and the path in the place of
    the suffix.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._arrivals: Arrivals | None = None
        self._listing: StudyListing | None = None
        self._left_out: dict[str, str] = {}
        super().__init__(*arguments, **options)
        if self._auto_reload:
            self._watch()

    @property
    def left_out(self) -> Mapping[str, str]:
        """Relative path -> why it is not listed, for all that lies in the folder and is not."""
        with self._turn:
            return dict(self._left_out)

    def status(self) -> dict[str, Any]:
        """As MONAI Label has it, and ``not_listed``: how many files were left out, and of the first ones why."""
        status, left_out = super().status(), self.left_out
        if left_out:
            named = dict(sorted(left_out.items())[:SAID])
            status["not_listed"] = {"count": len(left_out), "files": named}
        return status

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known of an image, without the entries that nobody could use."""
        return fitting(super().get_image_info(image_id))

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A ZIP file of the labelled studies: image/, label/ and metadata.json. It belongs to the caller.

        Args:
            limit_cases: at most so many studies; None or 0 for all.

        Raises:
            LabelNotFoundException: when no study is labelled.
        """
        cases = self.datalist()[: limit_cases if limit_cases and limit_cases > 0 else None]
        if not cases:
            raise LabelNotFoundException("no study has a final label yet, so there is no data set to download")
        handle, path = tempfile.mkstemp(suffix=".zip")
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
            for kind, source in ((kind, Path(path)) for case in cases for kind, path in case.items()):
                for each in sorted(source.iterdir()) if source.is_dir() else [source]:
                    if each.is_file():
                        archive.write(each, f"{kind}/{each.relative_to(source.parent)}")
            with self._turn:
                archive.writestr("metadata.json", self._datastore.model_dump_json(exclude={"base_path"}))
        return path

    # versions of labels

    def label_versions(self, image_id: str) -> list[LabelVersion]:
        """All labels of a study, the newest first.

        Args:
            image_id: of the study.

        Returns:
            The one that counts, and those that it took the place of.
        """
        current = self.current_label(image_id)
        with self._turn:
            earlier = [earlier_version(path) for path in self._earlier_labels(image_id, FINAL)]
        return [*([current] if current else []), *earlier]

    def current_label(self, image_id: str) -> LabelVersion | None:
        """The label that counts, as this machine knows it; None where there is none.

        Args:
            image_id: of the study.

        Returns:
            What is known of it.
        """
        with self._turn:
            found = self._current_label(image_id, FINAL)
        return current_version(*found) if found else None

    def last_labels(self) -> dict[str, LabelVersion]:
        """The label that counts of each study that has one, without its version: no file is read."""
        with self._turn:
            noted = {i: s.labels[FINAL].info for i, s in self._datastore.objects.items() if FINAL in s.labels}
        return {
            image_id: LabelVersion("", writer_of(info), _moment(info.get("ts")), names_in(info), current=True)
            for image_id, info in noted.items()
        }

    def version_file(self, image_id: str, version: str) -> str:
        """The file of a label, which may be an earlier one.

        Args:
            image_id: of the study.
            version: of the label, see :meth:`label_versions`.

        Returns:
            Its path.

        Raises:
            LabelNotFoundException: where there is none of this version.
        """
        with self._turn:
            current = self._current_label(image_id, FINAL)
            if current is not None and current_version(*current).version == version:
                return str(current[0])
            for path in self._earlier_labels(image_id, FINAL):
                if earlier_name(path) == version:
                    return str(path)
        raise LabelNotFoundException(f"{image_id} has no label of version {version!r}")

    def restore_label(self, image_id: str, version: str, by: str) -> str:
        """Make an earlier label the one that counts, which goes to the history itself.

        Args:
            image_id: of the study.
            version: of the label, see :meth:`label_versions`.
            by: who asks for it.

        Returns:
            The label's id.

        Raises:
            LabelNotFoundException: where there is none of this version.
        """
        kept = Path(self.version_file(image_id, version))
        info = {**kept_info(kept), "restored": version}
        if by:
            info["user"] = by
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{image_id}{kept_suffix(kept, image_id)}"
            shutil.copy2(kept, file)
            return self.save_label(image_id, str(file), FINAL, info)

    # inside

    def _filename(self, id: str, ext: str) -> str:
        return ext[1:] if ext.startswith("/") else id + ext

    def _watch(self) -> None:
        """In the place of the base class's watcher, which looks at the names of files only."""
        observer = getattr(self, "_observer", None)
        if observer is not None:
            observer.unschedule_all()
            observer.stop()
        self._arrivals = Arrivals(
            self._datastore_path,
            self.refresh,
            list_name=os.path.basename(self._datastore_config_path),
            listed=self._init_from_datastore_file,
        )
        self._arrivals.start(type(observer)() if observer is not None else None)

    def _reconcile_datastore(self) -> None:
        with self._changing():
            left_out: dict[str, str] = {}
            changed = self._follow_images(left_out)
            for tag in self._tags(left_out):
                changed |= self._follow_labels(tag, left_out)
            self._say(left_out)
            if changed:
                self._note_found()

    def _note_found(self) -> None:
        """A disk that takes no more does not hide what lies there: the next start finds it again."""
        try:
            self._update_datastore_file()
        except OSError as error:
            if error.errno not in (*UNWRITABLE, *FULL):
                raise
            logger.warning("the list of studies is kept in memory: it cannot be written (%s)", error)

    def _follow_images(self, left_out: dict[str, str]) -> bool:
        """Takes new images into the list, and those that are gone out of it; whether there were any."""
        folder, objects = self._datastore.image_path(), self._datastore.objects
        if self._listing is None:
            self._listing = StudyListing(folder, self._extensions, labels=self._datastore.label_path(None))
        look = self._listing.look()
        left_out |= look.left_out
        gone = [i for i, s in objects.items() if not os.path.exists(Path(folder) / self._filename(i, s.image.ext))]
        for image_id in gone:
            logger.info("the study %s is gone", image_id)
            del objects[image_id]
        known = {self._filename(image_id, study.image.ext) for image_id, study in objects.items()}
        new = [found for found in look.images if found.path not in known]
        added = [found for found in new if self._add(found, left_out)]
        return bool(gone or added)

    def _add(self, found: Found, left_out: dict[str, str]) -> bool:
        objects = self._datastore.objects
        if self._on_the_way(str(Path(self._datastore.image_path(), found.path))):
            left_out[found.path] = _ON_THE_WAY
            return False
        free = [each for each in found.ids if not why_unusable(each) and each not in objects]
        if not free:
            reason = why_unusable(found.ids[0])
            left_out[found.path] = f"{reason}: rename it" if reason else f"another study is called {found.ids[0]!r}"
            return False
        logger.info("new study %s: %s", free[0], found.path)
        suffix = f"/{found.path}" if "/" in found.path else found.path.removeprefix(free[0])
        objects[free[0]] = ImageLabelModel(image=DataModel(info=dated({}, found.path), ext=suffix))
        return True

    def _tags(self, left_out: dict[str, str]) -> list[str]:
        """The folders of labels."""
        labels = Path(self._datastore.label_path(None))
        with os.scandir(labels) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        left_out |= {f"{labels.name}/{name}": f"{why}: rename it" for name in folders if (why := why_unusable(name))}
        return [name for name in folders if not why_unusable(name)]

    def _follow_labels(self, tag: str, left_out: dict[str, str]) -> bool:
        """Of several files of one study the newest is the label, also when the list has to be made anew."""
        folder, objects = Path(self._datastore.label_path(tag)), self._datastore.objects
        listing = self._listing
        assert listing is not None  # made by the first look at the folder
        files: dict[str, list[os.DirEntry[str]]] = defaultdict(list)
        with os.scandir(folder) as entries:
            for entry in entries:
                place = f"{folder.parent.name}/{tag}/{entry.name}"
                if not listing.is_image_name(entry.name) or not entry.is_file():
                    continue
                if entry.name.startswith("."):
                    left_out[place] = why_unusable(entry.name) or ""
                elif (image_id := self._label_id(entry.name)) not in objects:
                    left_out[place] = f"is a label, but no study is called {image_id!r}"
                else:
                    files[image_id].append(entry)
        changed = False
        for image_id, study in objects.items():
            known = study.labels.get(tag)
            name = self._filename(image_id, known.ext) if known else None
            there = [name] if name is not None and os.path.exists(folder / name) else []
            whole = [e.name for e in files[image_id] if e.name == name or not self._on_the_way(e.path)]
            whole += [each for each in there if each not in whole]
            if not whole:
                changed |= study.labels.pop(tag, None) is not None
                continue
            newest = max(whole, key=lambda each: (_changed(folder / each), each)) if len(whole) > 1 else whole[0]
            for other in set(whole) - {newest}:
                left_out[f"{folder.parent.name}/{tag}/{other}"] = f"is an older label of {image_id!r} than {newest}"
            if newest != name:
                logger.info("new label %s of %s: %s", tag, image_id, newest)
                study.labels[tag] = DataModel(info=dated({}, newest), ext=newest.removeprefix(image_id))
                changed = True
        return changed

    def _on_the_way(self, path: str) -> bool:
        if self._arrivals is None:
            return False
        return self._arrivals.on_the_way(os.path.relpath(path, self._datastore_path))

    def _say(self, left_out: dict[str, str]) -> None:
        """Once about each."""
        news = {path: why for path, why in left_out.items() if why != self._left_out.get(path) and why != _ON_THE_WAY}
        for path, why in sorted(news.items())[:SAID]:
            logger.warning("%s is not listed: it %s", os.fsencode(path).decode(errors="replace"), why)
        if len(news) > SAID:
            logger.warning("%d more files are not listed; GET /info/ counts them", len(news) - SAID)
        self._left_out = left_out


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _moment(seconds: Any) -> str:
    return moment(float(seconds)) if isinstance(seconds, int | float) else ""
