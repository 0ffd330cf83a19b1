"""What is to be done with every study of a batch; plain, so that it can travel to the workers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BatchPlan:
    """Everything that a worker must know; plain, so that it can travel.

    Attributes:
        out: folder of the results.
        supports: (image, mask) files.
        names: of structures, in the order of the masks' values.
        archive: address of the DICOMweb server that the studies are on; "" for files.
        foundation: as for :meth:`ProxyPromptPredictor.from_pretrained`; so are the others.
        weights_dir: of the weights; None for the embedded ones.
        adapter: file of a trained version.
        image_size: side of the network's input in pixels.
        device: None for a GPU where there is one.
        paper: the paper's method and nothing else.
        suffix: of the results; "" for .png of a single image, .nii.gz of all else.
        threads: of PyTorch in each worker; 0 for its own choice.
    """

    out: str
    supports: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    archive: str = ""
    foundation: str = "atto"
    weights_dir: str | None = None
    adapter: str | None = None
    image_size: int | None = None
    device: str | None = None
    paper: bool = False
    suffix: str = ""
    threads: int = 0
