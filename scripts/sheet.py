"""Draws a contact sheet of procedural tasks: a group in a row, each member plain and with its objects outlined."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from proxyprompt.datasets.procedural import Groups, draw_groups

COLOURS = ((255, 230, 0), (0, 230, 255), (255, 60, 200), (80, 255, 80))


def outline(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """image (h, w, 3) uint8 with the inner borders of masks (N, h, w) bool drawn on it."""
    drawn = image.copy()
    for index, mask in enumerate(masks):
        padded = np.pad(mask, 1)
        inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        drawn[mask & ~inner] = COLOURS[index % len(COLOURS)]
    return drawn


def sheet(groups: Groups) -> Image.Image:
    """One row a group: every member plain, then outlined."""
    pixels = (groups.images * 255).round().byte().permute(0, 1, 3, 4, 2).numpy()
    masks = groups.masks.bool().numpy()
    rows = []
    for images, of_group in zip(pixels, masks, strict=True):
        pairs = [tile for image, mask in zip(images, of_group, strict=True) for tile in (image, outline(image, mask))]
        rows.append(np.concatenate(pairs, 1))
    return Image.fromarray(np.concatenate(rows, 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(options.seed)
    drawn = draw_groups(options.groups, options.members, options.size, objects=options.objects, generator=generator)
    sheet(drawn).save(options.out)


if __name__ == "__main__":
    main()
