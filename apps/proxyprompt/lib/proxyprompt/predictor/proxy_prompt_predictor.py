"""The method in a few lines of Python: labelled images show what to segment in others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from proxyprompt.extensions import ALL, PAPER
from proxyprompt.foundation.base import Points
from proxyprompt.foundation.loading import EMBEDDED_WEIGHTS, weights_identity
from proxyprompt.io.cache import ContentCache
from proxyprompt.io.study import Study, StudyError, read_clip, read_study, study_of
from proxyprompt.settings import AUTO, MODES, SLICE_BY_SLICE
from proxyprompt.supports.corrections import Corrections
from proxyprompt.supports.selection import Selection, SupportError, SupportSlice
from proxyprompt.supports.slice_positions import SlicePresence

from .adapters import AdapterStore
from .latency import Latencies
from .masks import Masks
from .pipeline import Pipeline
from .segmenter import Segmenter, build_segmenter

if TYPE_CHECKING:
    import SimpleITK as sitk

    Mask = str | PathLike[str] | NDArray[np.generic] | torch.Tensor
    Image = Mask | sitk.Image

Item = TypeVar("Item")
CACHE_BYTES = 1 << 30
PER_VOLUME = 4


@dataclass(frozen=True)
class Prediction:
    """What was found in an image or a volume.

    Arrays are laid out as the image that was given: an array's own axes; of a file nibabel's (i, j, k) for NIfTI,
    (slices, rows, columns) for NRRD, MetaImage and DICOM, (rows, columns) for an image.

    Attributes:
        names: of N structures.
        masks: (N, ...) bool.
        logits: (N, ...) float16, what the masks were cut from at 0; not gated by ``presence``.
        presence: (Z, N), probability that a structure is on a slice; Z is 1 for an image.
        agreement: of each structure, mean Dice between what single supports draw of it; None for fewer than two
            supports that show it.
        warnings: about the image, in words.
    """

    names: tuple[str, ...]
    masks: NDArray[np.bool_]
    logits: NDArray[np.float16]
    presence: NDArray[np.float32]
    agreement: tuple[float | None, ...]
    warnings: tuple[str, ...]
    _study: Study
    _labels: NDArray[np.uint8]

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        """The mask of one structure.

        Args:
            name: of the structure.

        Returns:
            (...) bool, laid out as the image.

        Raises:
            KeyError: when there is no structure of that name.
        """
        if name not in self.names:
            raise KeyError(f"no structure {name!r}; there are: {', '.join(self.names)}")
        return self.masks[self.names.index(name)]

    @property
    def label_map(self) -> NDArray[np.uint8]:
        """(...) uint8: 0, or 1 + the index of the structure with the highest logit."""
        return self._study.to_grid(self._labels)

    def save(self, path: str | PathLike[str]) -> Path:
        """Write :attr:`label_map` on the grid of the image that was given.

        Args:
            path: its suffix says what is written: .nii.gz, .nii, .nrrd, .mha; for one slice also .png, .tif, .bmp.

        Returns:
            The path.

        Raises:
            StudyError: for another suffix.
        """
        return self._study.write_label(self._labels, Path(path))


class ProxyPromptPredictor:
    """A foundation that is prompted by labelled images.

    Example:
        >>> predictor = ProxyPromptPredictor.from_pretrained("atto")
        >>> predictor.set_support(images, masks, names=["disc", "cup"])
        >>> prediction = predictor.predict(image)
        >>> prediction["disc"].sum()

    Args:
        segmenter: foundation and generator; :meth:`from_pretrained` loads them.
        paper: whether to leave out what the paper does not have (fine structures piece by piece, the say of
            neighbouring slices, and what labelled volumes say of the place of a slice).
        cache_bytes: memory for what was computed of supports and images; the least recently used goes first.
    """

    def __init__(self, segmenter: Segmenter, *, paper: bool = False, cache_bytes: int = CACHE_BYTES) -> None:
        self.segmenter, self.paper = segmenter, paper
        self._cache = ContentCache(None, memory_bytes=cache_bytes, disk_bytes=0)
        self._selection = Selection.empty(())

    @classmethod
    def from_pretrained(
        cls,
        foundation: str = "atto",
        *,
        weights_dir: str | PathLike[str] | None = None,
        adapter: str | PathLike[str] | None = None,
        image_size: int | None = None,
        device: str | torch.device | None = None,
        paper: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> ProxyPromptPredictor:
        """Load a foundation and its generator.

        Args:
            foundation: a name, as ``scripts/fetch_weights.py --list`` shows them; ``atto`` is embedded and trained.
            weights_dir: folder of the weights; None for the app's own.
            adapter: a version that Train or ``scripts/train.py`` made, as a file; None for what is shipped.
            image_size: side of the network's input in pixels; None for what the weights were made for.
            device: None for a GPU where there is one.
            paper: as for the class.
            cache_bytes: as for the class.

        Returns:
            The predictor, without supports.

        Raises:
            ValueError: for an unknown foundation or a size that it cannot take.
            CheckpointError: for missing or unfit weights.
            AdapterError: for an adapter that is damaged or was made for other weights.
        """
        weights = EMBEDDED_WEIGHTS if weights_dir is None else Path(weights_dir)
        store = None
        if adapter is not None:
            name, sha256 = weights_identity(foundation, weights)
            store = AdapterStore(Path(adapter).parent, foundation=name, foundation_sha256=sha256)
        return cls(
            build_segmenter(
                foundation=foundation,
                weights_dir=weights,
                image_size=image_size,
                adapter=None if adapter is None else Path(adapter).stem,
                adapters=store,
                device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            ),
            paper=paper,
            cache_bytes=cache_bytes,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the structures that the supports show."""
        return self._selection.structures

    def set_support(
        self,
        images: Image | Sequence[Image],
        masks: Mask | Sequence[Mask],
        names: Sequence[str],
        *,
        slices_per_volume: int = PER_VOLUME,
    ) -> None:
        """Say by examples what to segment; replaces what was said before.

        Args:
            images: one or several. A file (NIfTI, NRRD, MetaImage, DICOM file or folder, PNG, JPEG, TIFF, ...), a
                SimpleITK image, or an array: numpy (h, w), (h, w, 3) or (Z, h, w); torch also (3, h, w). Any sizes.
            masks: of each image a label map or masks: a file on its grid, or an array of its axes whose value n is the
                n-th name (0 is background), or bool with one axis more in front, one mask for each name.
            names: of N structures, in the order of the values.
            slices_per_volume: of a volume or clip so many slices become supports, spread over those that show most.

        Raises:
            StudyError: for an image or a mask that cannot be used, which it names.
            ValueError: for another number of masks than images, no image, or names that are not unique.
        """
        images, masks = _several(images), _several(masks)
        names = (names,) if isinstance(names, str) else tuple(names)
        if not images or len(images) != len(masks):
            raise ValueError(f"{len(images)} images and {len(masks)} masks are given; expected one mask for each image")
        if not names or len(set(names)) != len(names):
            raise ValueError(f"names are {names}; expected one name for each structure, each once")
        slices, arrays, laid, slice_presence = [], [], [], {}
        for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
            study = _study(image)
            shown = _masks_on(study, mask, len(names), number)
            name = f"support {number}"
            if study.kind == "volume":
                slice_presence[name] = SlicePresence(shown.any((2, 3)), np.ones(len(names), bool), study.length)
            for index in _chosen(shown, slices_per_volume):
                key = study.slice_hash(index)
                slices.append(SupportSlice(name, index, 0.0, False, key, frozenset({study.content_hash})))
                arrays.append(study.image(index))
                laid.append(shown[index])
        valid = np.ones((len(slices), len(names)), bool)
        self._selection = Selection(tuple(slices), names, arrays, laid, valid, slice_presence)

    def predict(
        self, image: Image, *, points: Mapping[str, Sequence[Sequence[float]]] | None = None, agreement: bool = False
    ) -> Prediction:
        """Segment one image.

        Args:
            image: as for :meth:`set_support`, of one slice.
            points: name of a structure -> clicks (x, y, label) in pixels, x along the columns; label 1 is inside, 0
                outside.
            agreement: whether to compare what each support draws by itself, at the cost of as many decodings.

        Returns:
            The prediction.

        Raises:
            StudyError: for an image that cannot be used, or a volume.
            SupportError: when there is no support, and no points either.
            ValueError: for points of a structure that the supports do not show, or of another form.
        """
        return self._predict(_single(image), points or {}, agreement)

    def predict_volume(
        self,
        volume: Image | Sequence[str | PathLike[str]],
        *,
        points: Mapping[str, Sequence[Sequence[float]]] | None = None,
        corrected: Mask | None = None,
        corrected_slices: Sequence[int] = (),
        agreement: bool = False,
        mode: str = AUTO,
        clean: bool = False,
    ) -> Prediction:
        """Segment every slice of a volume, or every frame of a clip.

        Args:
            volume: as for :meth:`set_support`; a list of files is a clip, whose frames they are.
            points: as for :meth:`predict`, as (x, y, z, label); z counts the third axis of the file, of an array the
                slices.
            corrected: masks of the volume, as for :meth:`set_support`, of which ``corrected_slices`` are right.
            corrected_slices: these slices, counted as the prediction's ``presence`` counts them, show the others what
                is wanted, and stay as they are.
            agreement: as for :meth:`predict`; on the slice that shows most.
            mode: what is done about the neighbours of a slice: ``slice by slice`` (nothing), ``neighbours`` (a
                weighted mean), ``propagate`` (through the foundation's memory), ``auto`` (what won).
            clean: whether small parts and holes are removed, by what the supports show.

        Returns:
            The prediction.

        Raises:
            StudyError: for a volume that cannot be used.
            SupportError: as for :meth:`predict`, and for a corrected slice that the volume does not have.
            ValueError: as for :meth:`predict`, and for corrected slices without masks, and for another mode.
        """
        if isinstance(volume, list | tuple):
            study = read_clip([Path(path) for path in volume])
        else:
            study = _study(cast("Image", volume))
        if corrected is None:
            if len(corrected_slices):
                raise ValueError(f"slices {list(corrected_slices)} are said to be corrected; expected their masks, too")
            return self._predict(study, points or {}, agreement, mode=mode, clean=clean)
        masks = _masks_on(study, corrected, len(self.names), 0)
        if wrong := [index for index in corrected_slices if not 0 <= index < len(study)]:
            raise SupportError(f"slices {wrong} are said to be corrected; the volume has slices 0 to {len(study) - 1}")
        corrections = {index: dict(zip(self.names, masks[index], strict=True)) for index in corrected_slices}
        return self._predict(study, points or {}, agreement, corrections, mode, clean)

    def stream(self, *, mode: str = AUTO) -> Callable[[Image], Prediction]:
        """Get ready for frames that come one after the other, as in an examination.

        All that the supports have to give is made at once; then nothing is kept of a frame but what the next one needs.

        Example:
            >>> segment = predictor.stream()
            >>> for frame in camera:
            ...     show(frame, segment(frame).masks)

        Args:
            mode: ``slice by slice``: every frame by itself; any other: the frames before count a third.

        Returns:
            What takes a frame, as :meth:`predict` takes an image, and gives its prediction. It is one examination's:
            frames must come in order, from one thread. It raises StudyError for a frame that cannot be used, and goes
            on with the next.

        Raises:
            SupportError: when there is no support.
            ValueError: for an unknown mode.
        """
        if not len(self._selection):
            raise SupportError("there is no support: call set_support before stream")
        if mode not in MODES:
            raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
        names = self._selection.structures
        stream = self._pipeline().stream(
            self._selection, smooth=mode != SLICE_BY_SLICE and not (self.paper and mode == AUTO)
        )

        def segment(frame: Image) -> Prediction:
            study = _single(frame)
            found = stream.segment(study)
            return _prediction(study, names, found, found.present())

        return segment

    def _pipeline(self) -> Pipeline:
        return Pipeline(self.segmenter, self._cache, Latencies(), extensions=PAPER if self.paper else ALL)

    def _predict(
        self,
        study: Study,
        points: Mapping[str, Sequence[Sequence[float]]],
        agreement: bool,
        corrections: Corrections = MappingProxyType({}),
        mode: str = AUTO,
        clean: bool = False,
    ) -> Prediction:
        selection = self._selection
        if not len(selection):
            if not points:
                raise SupportError("there is no support: call set_support first, or give points")
            selection = Selection.empty(tuple(points))
        if unknown := sorted(set(points) - set(selection.structures)):
            raise ValueError(
                f"points are given for {', '.join(unknown)}; the supports show {', '.join(selection.structures)}"
            )
        pipeline = self._pipeline()
        found = pipeline.run(
            study,
            selection,
            agreement=agreement,
            everywhere=self.paper,
            corrections=corrections,
            mode=SLICE_BY_SLICE if self.paper and mode == AUTO else mode,
            clean=clean,
        )
        logits, drawn = found.logits, found.present()
        for name, clicks in points.items():
            structure = selection.structures.index(name)
            for index, on_slice in _by_slice(study, name, clicks).items():
                logits[index, structure] = pipeline.click(
                    study, selection, index, structure, on_slice, corrections=corrections
                )
                drawn[index, structure] = True
        return _prediction(study, selection.structures, found, drawn)


def _several(given: Item | Sequence[Item]) -> list[Item]:
    """One thing or a list of them, as a list."""
    return list(given) if isinstance(given, list | tuple) else [cast("Item", given)]


def _study(image: Image) -> Study:
    if isinstance(image, str | PathLike):
        return read_study(Path(image))
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] == 3:
            image = image.transpose(1, 2, 0)
    return study_of(image)


def _single(image: Image) -> Study:
    study = _study(image)
    if len(study) > 1:
        raise StudyError(f"{study.path} has {len(study)} slices; use predict_volume, or give one slice")
    return study


def _masks_on(study: Study, mask: Mask, count: int, number: int) -> NDArray[np.bool_]:
    """(Z, N, h, w) bool."""
    if isinstance(mask, str | PathLike):
        labels = study.read_label(Path(mask))
        return np.stack([labels == value for value in range(1, count + 1)], 1)
    array = mask.detach().cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    shape = study.grid_shape
    if array.shape == shape and (array.dtype.kind in "ui" or (array.dtype == bool and count == 1)):
        if array.max(initial=0) > count:
            raise StudyError(f"mask {number} holds the value {array.max()}; there are {count} names, so 0 to {count}")
        array = np.stack([array == value for value in range(1, count + 1)])
    if array.shape != (count, *shape) or array.dtype.kind not in "bui" or array.max(initial=0) > 1:
        raise StudyError(
            f"mask {number} is {array.dtype} {array.shape}; expected whole numbers {shape}, as the image, whose value "
            f"n is the n-th of {count} names, or masks {(count, *shape)}"
        )
    return np.stack([study.grid_to_slices(one) != 0 for one in array], 1)


def _chosen(shown: NDArray[np.bool_], count: int) -> list[int]:
    """Slices of (Z, N, h, w) masks: the only one, or up to ``count``, spread over those that show anything."""
    if len(shown) == 1:
        return [0]
    any_shown = np.flatnonzero(shown.any((1, 2, 3)))
    if len(any_shown) <= count:
        return any_shown.tolist()
    at = (np.arange(count) + 0.5) / count * len(any_shown)
    return any_shown[at.astype(int)].tolist()


def _by_slice(study: Study, name: str, clicks: Sequence[Sequence[float]]) -> dict[int, Points]:
    form = "(x, y, label)" if len(study) == 1 else "(x, y, z, label)"
    found: dict[int, list[tuple[int, int, int]]] = {}
    for click in clicks:
        *voxel, label = click
        if len(voxel) not in ((2, 3) if len(study) == 1 else (3,)) or label not in (0, 1):
            raise ValueError(f"a point of {name} is {list(click)}; expected {form}, with label 1 inside or 0 outside")
        index, row, column = study.locate(voxel)
        found.setdefault(index, []).append((column, row, int(label)))
    made = {}
    for index, rows in found.items():
        array = torch.tensor(rows)
        made[index] = Points(array[None, None, :, :2].float(), array[None, None, :, 2].int())
    return made


def _prediction(study: Study, names: tuple[str, ...], found: Masks, drawn: NDArray[np.bool_]) -> Prediction:
    """drawn: (Z, N) bool, on which slices a structure is."""
    inside = (found.logits > 0) & drawn[..., None, None]
    highest = np.where(inside, found.logits, -np.inf).argmax(1) + 1
    labels = np.where(inside.any(1), highest, 0).astype(np.uint8)
    per_structure = range(len(names))
    return Prediction(
        names,
        np.stack([study.values_to_grid(inside[:, n]) for n in per_structure]),
        np.stack([study.values_to_grid(found.logits[:, n]) for n in per_structure]),
        found.presence,
        found.agreement,
        study.warnings,
        study,
        labels,
    )
