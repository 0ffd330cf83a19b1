"""From a data set as it is distributed to a folder that every command of the project reads."""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from proxyprompt.io.cache import content_key
from proxyprompt.io.errors import StudyError
from proxyprompt.io.groups import GROUPS
from proxyprompt.io.readers import read_raster

from .distributions import DISTRIBUTIONS, Distribution, Item


def prepare(
    name: str,
    source: str | Path,
    out: str | Path,
    *,
    any_count: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Brings the set ``name``, one of DISTRIBUTIONS, from ``source`` to ``out``, which must not exist yet.

    ``out`` appears when it is whole; until then the files are collected in a hidden folder beside it, from which an
    interrupted preparation of the same files goes on. any_count: a part of the set will do. report: after each image.

    StudyError when files are missing, damaged or hold other values than the set's, and when their number is not the
    set's; ValueError for another name.
    """
    if name not in DISTRIBUTIONS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(DISTRIBUTIONS)}")
    distribution, source, out = DISTRIBUTIONS[name], Path(source), Path(out)
    if not source.is_dir():
        raise StudyError(f"{source}: no such folder; expected the unpacked files of {name}")
    if out.exists():
        raise StudyError(f"{out} is there already; take it away to prepare it anew, or name another folder")
    items = sorted(distribution.find(source), key=lambda item: item.id)
    _check(name, distribution, items, source, any_count=any_count)
    files = [file for item in items for file in (item.image, *item.masks.values())]
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    part = out.with_name(f".{out.name}.{content_key(name, stamps)[:12]}.part")
    for done, item in enumerate(items, 1):
        _prepare_item(item, distribution, part)
        report(done, len(items))
    with (part / GROUPS).open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(
            [("case", "group"), *((item.id, item.group) for item in items)]
        )
    labels = {"background": 0, **{name: list(values) for name, values in distribution.structures.items()}}
    (part / "dataset.json").write_text(json.dumps({"name": name, "labels": labels}, indent=1) + "\n", encoding="utf-8")
    part.replace(out)
    return out


def _check(name: str, distribution: Distribution, items: Sequence[Item], source: Path, *, any_count: bool) -> None:
    if not items:
        raise StudyError(f"{source}: no labelled image of {name} in it; expected: {_layout(distribution)}")
    ((id, often),) = Counter(item.id for item in items).most_common(1)
    if often > 1:
        raise StudyError(f"{source}: {id!r} is there more than once; leave only one copy of the set in the folder")
    for what, found, whole in (
        ("labelled images", len(items), distribution.counts),
        ("groups", len({item.group for item in items}), distribution.groups),
    ):
        if whole and found not in whole and not any_count:
            raise StudyError(
                f"{source}: holds {found} {what} of {name}; the whole set has {' or '.join(map(str, whole))}: "
                "unpack the rest, or allow any number (--any-count)"
            )


def _layout(distribution: Distribution) -> str:
    return " ".join((distribution.find.__doc__ or "").split())


def _prepare_item(item: Item, distribution: Distribution, out: Path) -> None:
    """Masks first, so that an item whose image is there is done."""
    suffix = ".mha" if distribution.volumes else ".png"
    image = out / "images" / f"{item.id}{item.image.suffix if distribution.keep else suffix}"
    if image.exists():
        return
    raster = read_raster(item.image)
    planes = raster.voxels[:, :, 0] if raster.colour else raster.voxels  # (columns, rows, colours), or a volume
    if not distribution.volumes and (planes.shape[2] not in (1, 3) or planes.min() < 0 or planes.max() > 255):
        raise StudyError(f"{item.image}: is {planes.dtype} of {_by(planes.shape)}; expected an image of 8 bits")
    size = planes.shape if distribution.volumes else (*planes.shape[:2], 1)
    for folder, file in item.masks.items():
        labels = _labels(file, distribution)
        if labels.shape != size:
            raise StudyError(f"{file}: has {_by(labels.shape)} pixels, the image {item.image} {_by(size)}")
        write = (
            partial(_write_volume, labels, like=file) if distribution.volumes else partial(_write_plain_image, labels)
        )
        _write(out / folder / f"{item.id}{suffix}", write)
    if distribution.keep:
        write = partial(shutil.copyfile, item.image)
    elif distribution.volumes:
        write = partial(_write_volume, planes, like=item.image)
    else:
        write = partial(_write_plain_image, planes)
    _write(image, write)


def _labels(file: Path, distribution: Distribution) -> np.ndarray:
    """(ni, nj, nk) uint8."""
    mask = read_raster(file, indices=distribution.indices)
    values = mask.voxels[..., 0] if mask.colour else mask.voxels
    if mask.colour and (mask.voxels != values[..., None]).any():
        raise StudyError(f"{file}: is coloured; expected one number per pixel")
    try:
        return distribution.recode(values)
    except ValueError as error:
        raise StudyError(f"{file}: {error}") from None


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Beside, then renamed; under the same suffix, because ITK goes by it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".part{path.suffix}")
    write(beside)
    beside.replace(path)


def _write_plain_image(planes: np.ndarray, path: Path) -> None:
    """planes: (columns, rows, 1 or 3), 0 to 255; three that are equal become gray."""
    gray = bool((planes == planes[..., :1]).all())
    pixels = planes.astype(np.uint8).swapaxes(0, 1)
    Image.fromarray(np.ascontiguousarray(pixels[..., 0] if gray else pixels)).save(path)


def _write_volume(voxels: np.ndarray, path: Path, *, like: Path) -> None:
    """voxels: (ni, nj, nk). like: the file whose place in space they have."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.CopyInformation(sitk.ReadImage(str(like)))
    sitk.WriteImage(image, str(path), useCompression=True)


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
