"""Surfaces: a bank of textures per image, from which every structure mixes its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .randomness import Random, axis, spread

TEXTURES = 8


def draw_bank(random: Random, groups: int, members: int, size: int) -> Tensor:
    """(TEXTURES, G, M, h, w), each of mean about 0 and deviation about 1: octaves, spots, folds..."""
    lead = (groups, members)
    bank = torch.empty(TEXTURES, *lead, size, size, device=random.device)
    for index, cells in enumerate((5, 12, 28, min(64, size // 2))):
        random.noise(*lead, size=size, cells=cells, out=bank[index])
    torch.mul(bank[2], bank[2], out=bank[4]).sub_(1).mul_(0.7)  # spots
    torch.sub(bank[1].roll(max(1, size // 64), -2), bank[1], out=bank[5]).mul_(2)  # folds, lit from above
    line = axis(size, random.device)
    angle = random.uniform(groups, 1, high=math.pi) + random.normal(*lead, std=0.15)
    pitch = random.log_uniform(groups, 1, low=8, high=60) * random.uniform(*lead, low=0.9, high=1.1)
    across, down = spread(angle.cos() * pitch) * line[None, :], spread(angle.sin() * pitch) * line[:, None]
    stripes = torch.add(across, down, out=bank[6])
    stripes.addcmul_(bank[0], spread(random.uniform(groups, 1, low=0.3, high=2.5))).sin_().mul_(1.4)
    bank[7] = draw_speckle(random, groups, members, size)
    return bank


def draw_speckle(random: Random, groups: int, members: int, size: int) -> Tensor:
    """Rayleigh speckle (G, M, h, w), mean 0 and deviation 1, wider than high as under a probe."""
    rows = int(random.integers(40, 1).item()) + 40
    columns = rows // (1 + int(random.integers(3, 1).item()))
    rows, columns = min(rows, size // 2), min(columns, size // 2)
    first = random.noise(groups, members, size=size, cells=(rows, columns)).square_()
    second = random.noise(groups, members, size=size, cells=(rows, columns))
    return first.addcmul_(second, second).sqrt_().sub_(1.2533).mul_(1.5265)


def draw_weights(random: Random, groups: int, slots: int) -> Tensor:
    """(G, slots, TEXTURES): how each structure mixes the bank; from flat to strong, never a fixed recipe."""
    weights = random.normal(groups, slots, TEXTURES) * random.chance(0.45, groups, slots, TEXTURES)
    weights = weights / weights.square().sum(-1, keepdim=True).sqrt().clamp_min(1e-3)
    amplitude = random.log_uniform(groups, slots, 1, low=0.005, high=0.1)
    return weights * amplitude * random.log_uniform(groups, 1, 1, low=0.4, high=1.3)
