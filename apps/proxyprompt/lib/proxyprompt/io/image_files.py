"""The pages of an image file, at their full depth: PNG, JPEG, TIFF, BMP, PPM and PGM.

Pillow cuts 16-bit colour to 8 bits and turns some TIFFs wrongly, so TIFF is read by tifffile, PPM and PGM by
netpbmfile, deep PNG by imagecodecs. For an image white is bright, whatever the file calls zero; for a label the stored
numbers count.
"""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import netpbmfile
import numpy as np
import tifffile
from PIL import Image, ImageSequence
from tifffile import PHOTOMETRIC

from .errors import StudyError

TIFF = (".tif", ".tiff")
NETPBM = (".ppm", ".pgm")
ORIENTATION = 0x0112  # the tag of EXIF and TIFF: how to turn an image
UPRIGHT = 1
SHOWN = {2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}
"""Orientation -> whether rows and columns run backwards, after rows and columns are exchanged for 5 to 8."""
SAME_ASPECT = 0.02


@dataclass(frozen=True)
class Pages:
    """What an image file holds.

    Attributes:
        array: (pages, rows, columns) or (pages, rows, columns, channels).
        orientation: how viewers turn it further, as in EXIF.
        notes: texts for the user.
    """

    array: np.ndarray
    orientation: int = UPRIGHT
    notes: tuple[str, ...] = ()


def read_pages(path: Path, *, indices: bool = False) -> Pages:
    """All pages of an image file but its thumbnails.

    A TIFF is turned as its orientation says, as Pillow, ITK and viewers do; what other formats say (EXIF) is only
    reported, since those read their pixels as stored.

    Args:
        path: the file; PPM and PGM may be gzipped.
        indices: for labels: palette indices, and the numbers as they are stored.

    Returns:
        The pages.

    Raises:
        StudyError: pages that do not belong together, or pixels that nothing here decodes.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(TIFF):
        return _tiff(path, indices)
    if name.endswith(NETPBM):
        content = path.read_bytes()
        return Pages(_netpbm(gzip.decompress(content) if path.name.lower().endswith(".gz") else content, indices))
    with Image.open(path) as image:
        many = len(image.getbands()) > 1 and any(";16" in str(tile[3]) for tile in image.tile)
        orientation = int(image.getexif().get(ORIENTATION, UPRIGHT))  # reads the image, which forgets its tiles
        orientation = orientation if orientation in SHOWN else UPRIGHT
        if many:
            deep = imagecodecs.png_decode(path.read_bytes())
            pages = [deep[..., 0] if deep.shape[-1] == 2 else deep]
        elif image.format == "MPO":  # a camera's photograph, and its previews
            pages = [_by_pillow(image, indices)]
        else:
            pages = [_by_pillow(frame, indices) for frame in ImageSequence.Iterator(image)]
    notes = [] if orientation == UPRIGHT else [_TURNED.format(orientation=orientation)]
    return Pages(_stacked(path, pages, notes), orientation, tuple(notes))


_TURNED = (
    "its EXIF orientation is {orientation}: it is looked at upright, and masks lie on the pixels as they are stored"
)


def turn(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pages upright.

    Args:
        array: (pages, rows, columns, ...) as stored.
        orientation: as in EXIF; any other number turns nothing.

    Returns:
        The same pages, upright.
    """
    if orientation not in SHOWN:
        return array
    array = array.swapaxes(1, 2) if orientation >= 5 else array
    rows, columns = (slice(None, None, -1 if back else 1) for back in SHOWN[orientation])
    return array[:, rows, columns]


def _stacked(path: Path, pages: list[np.ndarray], notes: list[str]) -> np.ndarray:
    """Pages of one size. Smaller copies of the one largest page are left out, with a note."""
    if len({page.shape for page in pages}) > 1:
        sizes = [page.shape[0] * page.shape[1] for page in pages]
        largest = pages[int(np.argmax(sizes))]
        ratio = largest.shape[0] / largest.shape[1]
        copies = [abs(page.shape[0] / page.shape[1] / ratio - 1) <= SAME_ASPECT for page in pages]
        if sizes.count(max(sizes)) > 1 or not all(copies):
            raise StudyError(f"{path}: its {len(pages)} pages differ in size or colour; save each as its own file")
        notes.append(f"of its {len(pages)} pages the largest is read; the others are smaller copies of it")
        pages = [largest]
    return np.stack(pages)


def _by_pillow(image: Image.Image, indices: bool) -> np.ndarray:
    """(rows, columns) or (rows, columns, 3 or 4) of one image."""
    if image.mode == "P":
        return np.asarray(image if indices else image.convert("RGB"))
    if image.mode == "1":
        return np.asarray(image, dtype=np.uint8)
    if image.mode in ("LA", "La"):
        return np.asarray(image.convert("L"))
    if image.mode in ("L", "RGB", "F", "I") or image.mode.startswith("I;16"):
        return np.asarray(image)
    return np.asarray(image.convert("RGB"))


def _netpbm(content: bytes, indices: bool) -> np.ndarray:
    """(1, rows, columns) or (1, rows, columns, 3)."""
    with netpbmfile.NetpbmFile(io.BytesIO(content)) as file:
        array, brightest = file.asarray(), int(file.maxval)
    if array.ndim == 3 and brightest < 255 and not indices:
        array = (array * (255.0 / brightest)).round().astype(np.uint8)
    return array[None]


def _tiff(path: Path, indices: bool) -> Pages:
    notes: list[str] = []
    with tifffile.TiffFile(path) as file:
        whole = [page for page in file.pages if not page.subfiletype & 5]  # 1: reduced, 4: a mask of another page
        read = [_tiff_page(path, page, indices) for page in (whole or file.pages)]
        tag = (whole or file.pages)[0].tags.get(ORIENTATION)
    orientation = int(tag.value) if tag is not None and tag.value in SHOWN else UPRIGHT
    array = turn(_stacked(path, read, notes), orientation)
    return Pages(np.ascontiguousarray(array), UPRIGHT, tuple(notes))


def _tiff_page(path: Path, page: tifffile.TiffPage, indices: bool) -> np.ndarray:
    """(rows, columns) or (rows, columns, channels) as stored, white bright."""
    kind = page.photometric
    ends = np.add(page.dataoffsets, page.databytecounts)
    if ends.max() > page.parent.filehandle.size:
        raise ValueError(f"it has {page.parent.filehandle.size} bytes, a page reaches to {ends.max()}")
    try:
        array = page.asarray()
    except (NotImplementedError, ImportError) as error:
        raise StudyError(_UNREADABLE.format(path=path, what=f"{error}")) from error
    if "S" in page.axes and page.axes[-1] != "S":  # planes of colour one after the other
        array = np.moveaxis(array, page.axes.index("S"), -1)
    array = array.reshape(*array.shape[-3:]) if "S" in page.axes else array.reshape(array.shape[-2:])
    if array.shape[:2] != (page.imagelength, page.imagewidth):
        raise StudyError(f"{path}: a page has shape {array.shape}; expected one image a page: save it so")
    if kind == PHOTOMETRIC.MINISWHITE and not (indices and page.bitspersample > 1):
        array = _inverted(array, page.bitspersample)
    if kind in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE):
        array = array[..., 0] if array.ndim == 3 and array.shape[2] == 2 else array  # with alpha
    elif kind == PHOTOMETRIC.PALETTE and not indices:
        array = (page.colormap[:, array] >> 8).astype(np.uint8).transpose(1, 2, 0)
    elif kind == PHOTOMETRIC.SEPARATED and array.dtype == np.uint8 and array.shape[-1] == 4:
        array = np.asarray(Image.fromarray(array, "CMYK").convert("RGB"))
    elif kind not in (PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR, PHOTOMETRIC.PALETTE) or (
        kind == PHOTOMETRIC.YCBCR and page.compression not in _JPEG
    ):
        what = f"colours of the kind {getattr(kind, 'name', kind)} packed as {page.compression.name}"
        raise StudyError(_UNREADABLE.format(path=path, what=what))
    return array.astype(np.uint8) if array.dtype == bool else array


_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.ALT_JPEG)
_UNREADABLE = "{path}: this TIFF cannot be decoded here ({what}); save it as RGB or gray, uncompressed or with LZW"


def _inverted(array: np.ndarray, bits: int) -> np.ndarray:
    if array.dtype == bool:
        return ~array
    if array.dtype.kind == "f":
        return array.max() - array + array.min()
    return ~array if array.dtype.kind == "i" else np.asarray(2**bits - 1, array.dtype) - array
