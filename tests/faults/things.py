"""What is written while a server works, each with what must be true of it whatever breaks."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from squares import write_squares
from versions import NAME, write_version

from proxyprompt.batch.folder import BatchFolder
from proxyprompt.datastores.folder import StudyFolder
from proxyprompt.io.cache import ContentCache, content_key
from proxyprompt.io.registry import StructureRegistry
from proxyprompt.predictor.adapters import AdapterStore
from proxyprompt.session.journal import LABEL, Journal

SHAPE = (48, 64)


def opened(studies: Path) -> StudyFolder:
    return StudyFolder(str(studies), extensions=["*.png"], auto_reload=False)


class Labels:
    """A label that takes the place of another one, as it is submitted."""

    def __init__(self, folder: Path):
        self.folder, self.studies = folder, folder / "studies"
        write_squares(self.studies, count=3, labelled=2)
        opened(self.studies).update_label_info("s0", "final", {"note": "old"})
        self.new = folder / "new.png"
        Image.fromarray(np.full(SHAPE, 7, np.uint8)).save(self.new)
        self.old = (self.studies / "labels/final/s0.png").read_bytes()

    def prepare(self):
        return opened(self.studies)

    def act(self, store):
        store.save_label("s0", str(self.new), "final", {"note": "new"})

    def check(self) -> bool:
        """Nothing is lost or half there; whether the new one is in its place."""
        store = opened(self.studies)
        assert sorted(store.list_images()) == ["s0", "s1", "s2"]
        assert sorted(store.get_labeled_images()) == ["s0", "s1"]
        label = Path(store.get_label_uri("s0", "final")).read_bytes()
        kept = [p.read_bytes() for p in (self.studies / "labels/.history").rglob("*") if p.is_file()]
        new = label == self.new.read_bytes()
        assert new or label == self.old
        assert label == self.old or self.old in kept
        note = store.get_label_info("s0", "final").get("note")
        assert note in (("new", "old", None) if new else ("old",)), note
        assert not list(self.studies.glob("*.damaged-*"))
        return new and note == "new"


class Images:
    """A new study, uploaded."""

    def __init__(self, folder: Path):
        self.folder, self.studies = folder, folder / "studies"
        write_squares(self.studies, count=2, labelled=1)
        self.new = folder / "n.png"
        Image.fromarray(np.full(SHAPE, 9, np.uint8)).save(self.new)

    def prepare(self):
        return opened(self.studies)

    def act(self, store):
        store.add_image("", str(self.new), {"who": "ann"})

    def check(self) -> bool:
        store = opened(self.studies)
        there = sorted(store.list_images())
        assert there in (["s0", "s1"], ["n", "s0", "s1"]) and store.get_labeled_images() == ["s0"]
        if "n" in there:
            assert Path(store.get_image_uri("n")).read_bytes() == self.new.read_bytes()
        return "n" in there


class Lines:
    """A line of the journal."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.path = folder / "journal.jsonl"
        Journal(self.path).write(LABEL, image="first", text="x" * 300)

    def prepare(self):
        return Journal(self.path)

    def act(self, journal):
        journal.write(LABEL, image="second", text="y" * 6000)

    def check(self) -> bool:
        images = [entry["image"] for entry in Journal(self.path)]
        assert images[0] == "first" and set(images[1:]) <= {"second"}
        return "second" in images


class Structures:
    """A name in the registry."""

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "structures.json"
        assert StructureRegistry(self.path).ensure("disc") == 1

    def prepare(self):
        return StructureRegistry(self.path)

    def act(self, registry):
        assert registry.ensure("cup") == 2

    def check(self) -> bool:
        names = StructureRegistry(self.path).names()
        assert names in (["disc"], ["disc", "cup"])
        return len(names) == 2


class Cached:
    """An entry of the cache."""

    KEY = content_key("faults")

    def __init__(self, folder: Path):
        self.folder = folder

    def _cache(self):
        return ContentCache(self.folder / "cache", memory_bytes=0, disk_bytes=1 << 20)

    def prepare(self):
        return self._cache()

    def act(self, cache):
        cache.put(self.KEY, {"x": torch.arange(3000.0)})

    def check(self) -> bool:
        cache = self._cache()
        entry = cache.get(self.KEY)
        assert entry is None or torch.equal(entry.tensors["x"], torch.arange(3000.0))
        assert cache.stats()["dropped"] == 0  # half a file never has the name of a whole one
        return entry is not None


class Versions:
    """A version that is published beside another one."""

    SECOND = "adapter-20260202T000000Z"

    def __init__(self, folder: Path):
        self.folder = folder / "adapters"
        self.folder.mkdir()
        write_version(self.folder)

    def prepare(self):
        return AdapterStore(self.folder, foundation="atto-1", foundation_sha256="a" * 64)

    def act(self, store):
        if store.path(self.SECOND).exists():  # it was killed after that
            return
        header, state = store.load(NAME)
        told = json.loads(header.to_json()) | {"name": self.SECOND, "created": datetime.now(UTC).isoformat()}
        store.save(type(header).from_json(json.dumps(told)), {"weight": state["weight"] * 2})

    def check(self) -> bool:
        store = self.prepare()
        versions = store.versions()
        assert versions in ([NAME], [self.SECOND, NAME])
        values = [float(store.load(name)[1]["weight"][0, 0]) for name in versions]
        assert values in ([1.0], [2.0, 1.0])
        return len(versions) == 2


class Results:
    """The result of a study of a batch."""

    def __init__(self, folder: Path):
        self.folder = folder / "out"

    def prepare(self):
        self.folder.mkdir(exist_ok=True)
        return BatchFolder(self.folder)

    def act(self, folder):
        folder.put("s0", ".png", lambda path: path.write_bytes(b"r" * 6000))

    def check(self) -> bool:
        result = BatchFolder(self.folder).result("s0")
        assert result is None or result.read_bytes() == b"r" * 6000
        return result is not None


THINGS = {
    "label": Labels,
    "image": Images,
    "journal": Lines,
    "registry": Structures,
    "cache": Cached,
    "version": Versions,
    "batch": Results,
}
