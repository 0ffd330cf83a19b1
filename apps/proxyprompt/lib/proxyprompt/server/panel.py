"""What the viewer's panel asks beside MONAI Label's own interface: supports as images, and stored labels as voxels."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from monailabel.config import RBAC_USER, settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException
from numpy.typing import NDArray
from PIL import Image

from proxyprompt.supports.candidates import best_slices
from proxyprompt.supports.support import SupportLibrary

SMALLEST, LARGEST = 16, 1024
"""Pixels of the longer side of an image for the panel."""
_GOLDEN_ANGLE = 137.5
_OPACITY = 0.45


def color_of(number: int) -> tuple[int, int, int]:
    """The colour of a structure: the same everywhere, and far from those of its neighbours in the list of all.

    Args:
        number: of the structure in the registry, from 1.

    Returns:
        Red, green and blue, from 0 to 255.
    """
    hue = number * _GOLDEN_ANGLE % 360

    def channel(n: int) -> int:
        k = (n + hue / 30) % 12
        return round(255 * (0.6 - 0.35 * max(-1.0, min(k - 3, 9 - k, 1.0))))

    return channel(0), channel(8), channel(4)


Disagreement = Callable[[Mapping[str, Any], int], bytes]
"""Of a request for a segmentation and a slice, one byte a pixel, see :meth:`ProxyPromptInfer.disagreement`."""


def panel_router(library: SupportLibrary, disagreement: Disagreement) -> APIRouter:
    """Routes of the panel.

    Args:
        library: the labelled studies.
        disagreement: where the supports of a request draw different things.

    Returns:
        The router.
    """
    router = APIRouter(
        prefix="/proxyprompt",
        tags=["ProxyPrompt"],
        dependencies=[Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))],
    )

    @router.get("/supports", summary=f"{RBAC_USER}Labelled studies with what they show, and the colours of structures")
    async def supports() -> dict[str, Any]:
        return await run_in_threadpool(list_supports, library)

    @router.get("/image", summary=f"{RBAC_USER}A slice of a study as PNG, with its label over it")
    async def image(
        image: str,
        slice: int = 0,
        size: Annotated[int, Query(ge=SMALLEST, le=LARGEST)] = 160,
        mask: bool = True,
    ) -> Response:
        made = await run_in_threadpool(draw_slice, library, image, slice, size, mask=mask)
        return Response(made, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @router.get("/label/voxels", summary=f"{RBAC_USER}The stored label of a study, one byte a voxel")
    async def voxels(image: str) -> Response:
        made = await run_in_threadpool(label_voxels, library, image)
        return Response(made, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @router.post("/disagreement", summary=f"{RBAC_USER}Where on a slice the supports of a request disagree")
    async def uncertain(image: str, slice: int, params: Annotated[dict[str, Any], Body()]) -> Response:
        request = {**params, "image": _known(library, image)}
        made = await run_in_threadpool(disagreement, request, slice)
        return Response(made, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @router.get("/slices", summary=f"{RBAC_USER}The order of a study's slices, and what the bytes of its label mean")
    async def slices(image: str) -> dict[str, Any]:
        return await run_in_threadpool(list_slices, library, image)

    return router


def list_supports(library: SupportLibrary) -> dict[str, Any]:
    """The labelled studies, for people to choose from.

    Args:
        library: of them.

    Returns:
        ``supports``: of each its id, name, structures, and ``slice``, which shows most of them; ``names`` of all
        labelled studies, also of those that cannot be used; ``colors`` and ``numbers`` of all structures.
    """
    registry = library.catalogue.registry
    names = library.names()
    found = []
    for study in library.studies().values():
        slices = best_slices(study)
        found.append(
            {
                "id": study.id,
                "name": names.get(study.id, study.id),
                "structures": list(study.structures),
                "modality": study.modality,
                "plane": study.plane,
                "slice": max(slices, key=lambda n: int(study.areas[n].sum()), default=0),
                "slices": len(study),
                "flagged": list(library.flagged(study.id)),
                "left_out": library.left_out(study.id),
                "unchanged": study.accepted_unchanged,
                "notes": list(study.notes),
                "version": study.label_hash[:16],
            }
        )
    structures = registry.structures()
    return {
        "supports": found,
        "names": names | {i: library.catalogue.name_of(i) or i for i in library.catalogue.problems()},
        "colors": {s.name: color_of(s.id) for s in structures},
        "numbers": {s.name: s.id for s in structures},
    }


def draw_slice(library: SupportLibrary, image_id: str, index: int, size: int, *, mask: bool = True) -> bytes:
    """A slice as PNG, with the structures of the study's label over it.

    Args:
        library: the labelled studies.
        image_id: of any study.
        index: of the slice; the last one for those beyond the end.
        size: of its longer side in pixels.
        mask: whether the label is drawn.

    Returns:
        The file.

    Raises:
        ImageNotFoundException: for another id.
        StudyError: for an image or a label that cannot be read.
    """
    study = library.open(_known(library, image_id))
    index = min(max(index, 0), len(study) - 1)
    rgb = study.image(index).transpose(1, 2, 0) * np.float32(255)
    labelled = library.studies().get(image_id)
    if mask and labelled is not None:
        values = study.read_label(labelled.label_path)[index]
        for name in labelled.structures:
            where = labelled.mask(values, name)
            color = np.array(color_of(library.catalogue.registry.id_of(name)), np.float32)
            rgb[where] += _OPACITY * (color - rgb[where])
    drawn = Image.fromarray(rgb.round().clip(0, 255).astype(np.uint8))
    height, width = (n * step for n, step in zip(study.slice_shape, study.pixel_spacing, strict=True))
    scale = size / max(height, width)
    shown = max(1, round(width * scale)), max(1, round(height * scale))
    out = io.BytesIO()
    drawn.resize(shown, Image.Resampling.BILINEAR).save(out, format="PNG")
    return out.getvalue()


def list_slices(library: SupportLibrary, image_id: str) -> dict[str, Any]:
    """The grid of a study, which voxels of labels and points refer to.

    Args:
        library: the labelled studies.
        image_id: of any study.

    Returns:
        ``shape`` of the file's own grid; ``instances``: SOPInstanceUID and frame of each slice, none for files that are
        not DICOM; ``numbers``: structure -> value in :func:`label_voxels`, empty for a study without a label.

    Raises:
        ImageNotFoundException: for another id.
    """
    opened, registry = library.open(_known(library, image_id)), library.catalogue.registry
    study = library.studies().get(image_id)
    return {
        "shape": opened.grid_shape,
        "instances": opened.instances,
        "numbers": {} if study is None else {name: registry.id_of(name) for name in study.structures},
    }


def label_voxels(library: SupportLibrary, image_id: str) -> bytes:
    """The stored label of a study on its file's own grid.

    Args:
        library: the labelled studies.
        image_id: of one of them.

    Returns:
        One byte a voxel: the number of a structure in the registry, or 0.

    Raises:
        LabelNotFoundException: for a study without a label.
        StudyError: for a label that cannot be read.
    """
    study = _labelled(library, image_id)
    opened, registry = library.open(image_id), library.catalogue.registry
    values = opened.read_label(study.label_path)
    out: NDArray[np.uint8] = np.zeros(values.shape, np.uint8)
    for name in study.structures:
        out[study.mask(values, name)] = registry.id_of(name)
    return opened.to_grid(out).tobytes()


def _labelled(library: SupportLibrary, image_id: str) -> Any:
    study = library.studies().get(_known(library, image_id))
    if study is None:
        why = library.catalogue.problems().get(image_id, "nobody has labelled it yet")
        raise LabelNotFoundException(f"the study {image_id!r} has no label that can be used: {why}")
    return study


def _known(library: SupportLibrary, image_id: str) -> str:
    if image_id not in library.catalogue.datastore.list_images():
        raise ImageNotFoundException(f"there is no image {image_id!r}")
    return image_id
