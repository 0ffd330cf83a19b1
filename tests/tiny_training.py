"""Everything that a fine-tuning needs, tiny: weights, labelled samples of rings and cores, a store, a segmenter."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from labelled_folders import write_plain_images
from PIL import Image
from tiny_atto import write_tiny_atto

from proxyprompt.datasets.collections import read_collection
from proxyprompt.foundation import weights_identity
from proxyprompt.predictor.adapters import AdapterStore
from proxyprompt.predictor.segmenter import Segmenter, build_segmenter
from proxyprompt.training.cases import Cases
from proxyprompt.training.finetune_config import FinetuneConfig

STRUCTURES = {"ring": (1, 2), "core": (2,)}
SIDE = 64
QUICK = FinetuneConfig(
    trainable="all",
    learning_rate=1e-3,
    warmup=2,
    members=3,
    steps_per_epoch=3,
    max_epochs=2,
    objects=1,
    augment=False,
)


@dataclass(frozen=True)
class Bench:
    """``folder``: with the weights; samples lie in ``data``, versions in ``adapters``, runs in ``run``."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def store(self) -> AdapterStore:
        name, sha256 = weights_identity("atto", self.folder)
        return AdapterStore(self.folder / "adapters", foundation=name, foundation_sha256=sha256)

    def cases(self) -> Cases:
        return Cases.from_collection(read_collection(self.data, structures=STRUCTURES))

    def segmenter(self, version: str | None = None) -> Segmenter:
        """The parent of a training: ``version``, or the newest one."""
        return build_segmenter(
            weights_dir=self.folder, adapters=self.store, adapter=version, image_size=SIDE, merge=False
        )

    def relabel(self, case: str, labels: np.ndarray) -> None:
        Image.fromarray(labels.astype(np.uint8)).save(self.data / "masks" / f"{case}.png")


def make_bench(folder: Path, *, groups: int = 12) -> Bench:
    write_tiny_atto(folder)
    write_plain_images(folder / "data", groups=groups, size=(SIDE, SIDE))
    return Bench(folder)
