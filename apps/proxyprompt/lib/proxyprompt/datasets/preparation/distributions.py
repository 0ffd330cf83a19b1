"""How each of the paper's data sets is distributed: where its files lie, what its mask values mean, how many there are.

Layouts as their makers publish them, unpacked anywhere below one folder; what is beside them is passed over.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from os.path import commonpath
from pathlib import Path

import numpy as np

from proxyprompt.io.errors import StudyError


@dataclass(frozen=True)
class Item:
    """One labelled image. masks: folder of the result ("masks") -> file; a second observer has a folder of its own."""

    id: str
    group: str
    image: Path
    masks: Mapping[str, Path]


@dataclass(frozen=True)
class Distribution:
    """How a collection is distributed, and what becomes of it.

    Attributes:
        find: folder -> items; StudyError where they do not go together.
        recode: mask values as distributed -> label values; ValueError for others.
        structures: name -> label values.
        counts: how many images a whole set has (any of them).
        groups: how many groups it has (any of them).
        volumes: MetaImage with millimetres; else images.
        keep: the image file is taken as it is.
        indices: a mask with a palette means its indices, not its colours.
    """

    find: Callable[[Path], list[Item]]
    recode: Callable[[np.ndarray], np.ndarray]
    structures: Mapping[str, tuple[int, ...]]
    counts: tuple[int, ...]
    groups: tuple[int, ...] = field(default=())
    volumes: bool = False
    keep: bool = False
    indices: bool = False


def recode_values(values: np.ndarray, *, meaning: Mapping[int, int]) -> np.ndarray:
    """uint8 labels; ValueError when there are values besides those of ``meaning``."""
    found = np.unique(values)
    if unknown := sorted(set(found.tolist()) - set(meaning)):
        shown = ", ".join(f"{value:g}" for value in unknown[:5])
        raise ValueError(f"holds the values {shown}; expected only {', '.join(map(str, meaning))}")
    labels = np.zeros(values.shape, np.uint8)
    for value in found:
        labels[values == value] = meaning[int(value)]
    return labels


def recode_by_threshold(values: np.ndarray, *, least: int) -> np.ndarray:
    """1 from ``least`` on, else 0."""
    return (values >= least).astype(np.uint8)


def find_refuge(source: Path) -> list[Item]:
    """JPEG images and BMP masks of the same name, whatever the folders of the parts.

    The nearest image counts where parts use a name twice. No patients are published: each image is a group.
    """
    images: dict[str, list[Path]] = {}
    for path in _files(source, ".jpg", ".jpeg"):
        if "illustration" not in path.as_posix().lower():
            images.setdefault(path.stem, []).append(path)
    masks = [path for path in _files(source, ".bmp") if "illustration" not in path.as_posix().lower()]
    often, items, owner = Counter(mask.stem for mask in masks), [], {}
    for mask in masks:
        image = _nearest(mask, images.get(mask.stem, []))
        if image in owner:
            raise StudyError(f"{mask} and {owner[image]} are both masks of {image}; prepare the parts one by one")
        owner[image] = mask
        once = often[mask.stem] == 1
        id = mask.stem if once else "_".join(image.relative_to(source).with_suffix("").parts)
        items.append(Item(id, id, image, {"masks": mask}))
    return items


def find_stare(source: Path) -> list[Item]:
    """``im0001.ppm`` with ``im0001.ah.ppm`` and, where there is one, ``im0001.vk.ppm``, each gzipped or not.

    Images that nobody labelled are left out.
    """
    named: dict[str, Path] = {}
    for path in _files(source, ".ppm", ".ppm.gz"):
        named[path.name.lower().removesuffix(".gz").removesuffix(".ppm")] = path
    items = []
    for name in named:
        if not name.endswith(".ah"):
            continue
        id = name.removesuffix(".ah")
        if id not in named:
            raise StudyError(f"{named[name]}: no image {id}.ppm below {source}; unpack stare-images.tar there too")
        masks = {"masks": named[name]} | ({"masks_vk": named[f"{id}.vk"]} if f"{id}.vk" in named else {})
        items.append(Item(id, id, named[id], masks))
    return items


def find_fh_ps_aop(source: Path) -> list[Item]:
    """``image_mha`` (three equal planes) and ``label_mha`` with the same names.

    No patients are published, neighbours look alike: a hundred consecutive numbers are a group.
    """
    items = []
    for image in _files(source, ".mha"):
        if image.parent.name != "image_mha":
            continue
        label = image.parent.with_name("label_mha") / image.name
        if not label.is_file():
            raise StudyError(f"{image}: there is no {label}; unpack the set again")
        if not image.stem.isdigit():
            raise StudyError(f"{image}: expected a number as the name, such as 00001.mha")
        items.append(Item(image.stem, f"block_{int(image.stem) // 100:02}", image, {"masks": label}))
    return items


def find_promise12(source: Path) -> list[Item]:
    """``CaseNN.mhd`` with ``CaseNN_segmentation.mhd``, each with its ``.raw``; a case is a patient.

    Cases of the test part have no segmentation and are left out.
    """
    items = []
    for label in _files(source, ".mhd"):
        if not label.stem.lower().endswith("_segmentation"):
            continue
        image = label.with_name(label.name[: -len("_segmentation.mhd")] + label.suffix)
        if not image.is_file():
            raise StudyError(f"{label}: there is no {image.name} beside it; unpack the set again")
        items.append(Item(image.stem, image.stem, image, {"masks": label}))
    return items


def find_jnu_ifm(source: Path) -> list[Item]:
    """A folder for each video, which is a group.

    It holds ``image/<video>_<frame>.png``, ``mask/<video>_<frame>_mask.png`` and ``frame_label.csv``, which lists its
    frames.
    """
    items = []
    for folder in sorted(path.parent for path in source.rglob("mask") if path.is_dir()):
        masks = sorted((folder / "mask").glob("*_mask.png"))
        for mask in masks:
            id = mask.name.removesuffix("_mask.png")
            image = folder / "image" / f"{id}.png"
            if not image.is_file():
                raise StudyError(f"{mask}: there is no {image}; unpack the set again")
            items.append(Item(id, folder.name, image, {"masks": mask}))
        table = folder / "frame_label.csv"
        listed = _rows(table) if table.is_file() else len(masks)
        if listed != len(masks):
            raise StudyError(f"{table}: lists {listed} frames, {len(masks)} have a mask; unpack the set again")
    return items


def _files(source: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.name.lower().endswith(suffixes) and path.is_file())


def _nearest(mask: Path, images: Iterable[Path]) -> Path:
    """The image whose folder has most in common with the mask's."""
    ranked = sorted(images, key=lambda image: -_shared_folders(mask, image))
    if not ranked:
        raise StudyError(f"{mask}: no image {mask.stem}.jpg; unpack the images below the same folder")
    if len(ranked) > 1 and _shared_folders(mask, ranked[0]) == _shared_folders(mask, ranked[1]):
        raise StudyError(f"{mask}: its image may be {ranked[0]} or {ranked[1]}; prepare the parts one by one")
    return ranked[0]


def _shared_folders(one: Path, other: Path) -> int:
    return len(Path(commonpath([one.parent, other.parent])).parts)


def _rows(table: Path) -> int:
    """Lines of a table besides its header."""
    with table.open(newline="", encoding="utf-8-sig") as stream:
        return sum(1 for _ in csv.DictReader(stream))


_FETAL = {"symphysis": (1,), "head": (2,)}

DISTRIBUTIONS: Mapping[str, Distribution] = {
    "REFUGE2": Distribution(
        find=find_refuge,
        recode=partial(recode_values, meaning={0: 2, 128: 1, 255: 0}),
        structures={"disc": (1, 2), "cup": (2,)},
        counts=(2000, 1600, 1200, 800, 400),  # of each part of 400 the masks became public at another time
        keep=True,
    ),
    "STARE": Distribution(
        find=find_stare,
        recode=partial(recode_by_threshold, least=128),
        structures={"vessels": (1,)},
        counts=(20,),
    ),
    "FH-PS-AOP": Distribution(
        find=find_fh_ps_aop,
        recode=partial(recode_values, meaning={0: 0, 1: 1, 2: 2}),
        structures=_FETAL,
        counts=(4000,),
    ),
    "PROMISE12": Distribution(
        find=find_promise12,
        recode=partial(recode_values, meaning={0: 0, 1: 1}),
        structures={"prostate": (1,)},
        counts=(50,),
        volumes=True,
    ),
    "JNU-IFM": Distribution(
        find=find_jnu_ifm,
        recode=partial(recode_values, meaning={0: 0, 7: 1, 8: 2}),
        structures=_FETAL,
        counts=(6224,),
        groups=(78,),
        keep=True,
        indices=True,
    ),
}
