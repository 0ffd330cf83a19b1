"""Machine code of the colorization on a CPU, without gradients: see :mod:`lib.prompt.cpu_tiles`.

Factors of products are words (:mod:`lib.prompt.cpu_sums`); sums, norms and softmax are float32. A small grid is one
call for each object, without Python's lock; the tiles of a large one are shared among threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lib.cpu_threads import flat, run_blocks
from lib.prompt.cpu_lanes import (
    LANES,
    compiled,
    gelu,
    larger,
    load,
    number,
    power_of_two,
    quotient,
    root,
    spread,
    store,
    unit,
    zero,
)
from lib.prompt.cpu_sums import (
    SUMS,
    add_products,
    as_words,
    join_lanes,
    join_rows,
    largest,
    numbers_in,
    scaled,
    stores,
    zeros,
)
from lib.prompt.cpu_tiles import LOG2_E, positions_of, project, tiled, tiles_of

_SHARE = 4  # tiles of a large grid that a thread takes at a time
_SMALL = 1024  # positions of the grid: of no more, an object is one thread's work
_EPS = 1e-5  # of nn.LayerNorm


def in_words(weights: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """What compiled code takes of a block's weights: matrices as words, vectors as they are."""
    return tuple(as_words(weight) if weight.ndim > 1 else weight.detach().numpy() for weight in weights)


def colour(
    target: Tensor, context: Tensor, blocks: Sequence[Sequence[np.ndarray]], places: Sequence[Tensor], heads: int
) -> Tensor:
    """target: (B, C, H, W). context: (B * N, C, H, W). blocks: of each, its weights :func:`in_words`; the first halves
    the rows, the second the columns, and so on. places: the encoded positions of each block's grid, :func:`tiled`.
    Returns (B * N, P, C), P = H * W / 16 for four blocks.
    """
    objects, dim, height, width = context.shape
    sharing = objects // len(target)
    x, y = tiled(target.flatten(2)), tiled(context.flatten(2))
    places = tuple(flat(*places))
    positions = height * width >> len(blocks)
    if height * width <= _SMALL:
        made = y.new_empty(objects, tiles_of(positions), dim, LANES)
        arguments = (*flat(x, y), sharing, height, width, tuple(blocks), places, dim, heads, *flat(made))
        run_blocks(_colour, arguments, objects, 1, 1)
        return positions_of(made, positions)
    for i, (weights, place) in enumerate(zip(blocks, places, strict=True)):
        x, y = _on_threads(x, y, sharing if i == 0 else 1, height, width, i % 2 == 0, weights, place, heads)
        height, width = (height // 2, width) if i % 2 == 0 else (height, width // 2)
    return positions_of(y, positions)


def _on_threads(
    x: Tensor,
    y: Tensor,
    sharing: int,
    height: int,
    width: int,
    over_rows: bool,
    weights: Sequence[np.ndarray],
    place: np.ndarray,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """One block, the tiles of all objects shared among threads: the steps of :func:`_colour`."""
    objects, dim, positions = len(y), y.shape[2], height * width // 2
    rows, columns = (2, 1) if over_rows else (1, 2)
    made = [y.new_empty(objects, tiles_of(positions), dim, LANES) for _ in range(4)]
    old_x, old_y, (merged_x, merged_y, new_x, new_y) = *flat(x, y), flat(*made)
    keys, values = (np.empty(len(new_x) // numbers_in(weights[0]), weights[0].dtype) for _ in range(2))

    def run(kernel, *arguments):
        run_blocks(kernel, (*arguments, _SHARE), objects, tiles_of(positions), _SHARE)

    run(_merge, old_x, sharing, height, width, rows, columns, *weights[0:2], dim, merged_x)
    run(_merge, old_y, 1, height, width, rows, columns, *weights[2:4], dim, merged_y)
    run(_read, merged_y, place, positions, weights[4:16], dim, keys, values)
    run(_refine, merged_x, place, positions, weights[4:16], dim, heads, keys, values, new_x)
    run(_read, new_x, place, positions, weights[16:28], dim, keys, values)
    run(_refine, merged_y, place, positions, weights[16:28], dim, heads, keys, values, new_y)
    return made[2], made[3]


@compiled
def _add(x, at, y, other, dim, made):
    for i in range(0, dim * LANES, LANES):
        store(made, i, load(x, at + i) + load(y, other + i))


@compiled
def _add_and_norm(x, at, y, weight, bias, dim, made, to):
    """LayerNorm of x + y; y is overwritten."""
    share, total, squares = number(np.float32(1 / dim)), zero(), zero()
    for c in range(dim):
        value = load(x, at + c * LANES) + load(y, c * LANES)
        store(y, c * LANES, value)
        total += value
    mean = total * share
    for c in range(dim):
        away = load(y, c * LANES) - mean
        store(y, c * LANES, away)
        squares += away * away
    factor = quotient(unit(), root(squares * share + number(np.float32(_EPS))))
    for c in range(dim):
        store(made, to + c * LANES, load(y, c * LANES) * factor * spread(weight, c) + spread(bias, c))


@compiled
def _attend(query, keys, values, start, positions, dim, heads, scores, weights, made):
    """A tile's attention to ``positions``, the tiles of whose keys and values begin at word ``start``.

    query: words, of numbers divided by the root of a head's channels, and by ln 2. scores, weights: as many vectors of
    numbers, and of words, as there are positions in those tiles.
    """
    several = numbers_in(keys)
    tiles, size, words, wide = tiles_of(positions), dim // heads, dim // heads // several, LANES // several
    for head in range(heads):
        highest, sum_of_weights = number(np.float32(-np.inf)), zero()
        for tile in range(tiles):
            place = start + (tile * dim // several + head * words) * LANES
            for lane in range(0, LANES, SUMS):
                sums = zeros()
                for k in range(0, words * LANES, LANES):
                    sums = add_products(sums, keys, place + k + lane, 1, load(query, head * words * LANES + k))
                stores(scores, (tile * LANES + lane) * LANES, sums)
                highest = larger(highest, largest(sums))
        for j in range(0, positions * LANES, LANES):
            weight = power_of_two(load(scores, j) - highest)
            store(scores, j, weight)
            sum_of_weights += weight
        for j in range(positions * LANES, tiles * LANES * LANES, LANES):
            store(scores, j, zero())
        join_rows(scores, 0, tiles * LANES, weights, 0)
        share = quotient(unit(), sum_of_weights)
        for channel in range(head * size, head * size + size, SUMS):
            sums = zeros()
            for tile in range(tiles):
                place = start + (tile * dim + channel) * wide
                for j in range(wide):
                    sums = add_products(sums, values, place + j, wide, load(weights, (tile * wide + j) * LANES))
            stores(made, channel * LANES, scaled(sums, share))


# Of one object ``n``, ``share`` tiles from ``first`` on. Arrays hold the tiles of all objects, one after the other.


@compiled
def _merge(x, sharing, height, width, rows, columns, weight, bias, dim, made, share, n, first):
    """A convolution whose stride is its kernel, over a grid of ``height`` by ``width``; ``sharing`` objects have the
    same x."""
    own, together = width // columns, rows * columns
    positions = height * width // together
    start, to = n // sharing * tiles_of(height * width), n * tiles_of(positions)
    gathered, places = np.empty(together * dim * LANES, np.float32), np.empty(together * LANES, np.int64)
    for tile in range(first, min(first + share, tiles_of(positions))):
        for lane in range(LANES):
            position = min(tile * LANES + lane, positions - 1)
            corner = position // own * rows * width + position % own * columns
            for part in range(together):
                old = corner + part // columns * width + part % columns
                places[part * LANES + lane] = (start + old // LANES) * dim * LANES + old % LANES
        for c in range(dim):
            for i in range(together * LANES):
                gathered[c * together * LANES + i] = x[places[i] + c * LANES]
        project(gathered, 0, weight, 0, bias, together * dim, dim, made, (to + tile) * dim * LANES)


@compiled
def _read(source, position, positions, weights, dim, keys, values, share, n, first):
    """Keys and values, as words."""
    tiles, size, words = tiles_of(positions), dim * LANES, dim * LANES // numbers_in(keys)
    placed, made = np.empty(size, np.float32), np.empty(size, np.float32)
    for tile in range(first, min(first + share, tiles)):
        at = n * tiles + tile
        _add(source, at * size, position, tile * size, dim, placed)
        project(placed, 0, weights[0], dim, weights[1], dim, dim, made, 0)
        join_rows(made, 0, dim, keys, at * words)
        project(source, at * size, weights[0], 2 * dim, weights[1], dim, dim, made, 0)
        join_lanes(made, 0, dim, values, at * words)


@compiled
def _refine(x, position, positions, weights, dim, heads, keys, values, made, share, n, first):
    """What :class:`lib.prompt.colorization.ReadAndRefine` does, with the keys and values of its source."""
    tiles, size, words = tiles_of(positions), dim * LANES, dim * LANES // numbers_in(keys)
    placed, found, wide = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(4 * size, np.float32)
    query, asked = np.empty(size, np.float32), np.empty(words, keys.dtype)
    scores = np.empty(tiles * LANES * LANES, np.float32)
    of_scores = np.empty(tiles * LANES * LANES // numbers_in(keys), keys.dtype)
    scale = number(np.float32(LOG2_E / np.sqrt(dim / heads)))
    for tile in range(first, min(first + share, tiles)):
        at = (n * tiles + tile) * size
        _add(x, at, position, tile * size, dim, placed)
        project(placed, 0, weights[0], 0, weights[1], dim, dim, query, 0)
        for c in range(0, size, LANES):
            store(query, c, load(query, c) * scale)
        join_rows(query, 0, dim, asked, 0)
        _attend(asked, keys, values, n * tiles * words, positions, dim, heads, scores, of_scores, found)
        project(found, 0, weights[2], 0, weights[3], dim, dim, query, 0)
        _add_and_norm(x, at, query, weights[4], weights[5], dim, placed, 0)
        project(placed, 0, weights[6], 0, weights[7], dim, 4 * dim, wide, 0)
        for c in range(0, 4 * size, LANES):
            store(wide, c, gelu(load(wide, c)))
        project(wide, 0, weights[8], 0, weights[9], 4 * dim, dim, query, 0)
        _add_and_norm(placed, 0, query, weights[10], weights[11], dim, made, at)


@compiled
def _colour(target, context, sharing, height, width, blocks, places, dim, heads, made, n, first):
    """All blocks, for one object."""
    whole = tiles_of(height * width) * dim * LANES
    x, y = target[n // sharing * whole :], context[n * whole :]
    for i in range(len(blocks)):
        weights, place = blocks[i], places[i]
        rows, columns = (2, 1) if i % 2 == 0 else (1, 2)
        positions = height // rows * (width // columns)
        tiles = tiles_of(positions)
        size = tiles * dim * LANES
        old_x, old_y, words = x, y, size // numbers_in(weights[0])
        keys, values = np.empty(words, weights[0].dtype), np.empty(words, weights[0].dtype)
        x, y, read = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
        _merge(old_x, 1, height, width, rows, columns, weights[0], weights[1], dim, x, tiles, 0, 0)
        _merge(old_y, 1, height, width, rows, columns, weights[2], weights[3], dim, y, tiles, 0, 0)
        _read(y, place, positions, weights[4:16], dim, keys, values, tiles, 0, 0)
        _refine(x, place, positions, weights[4:16], dim, heads, keys, values, read, tiles, 0, 0)
        _read(read, place, positions, weights[16:28], dim, keys, values, tiles, 0, 0)
        _refine(y, place, positions, weights[16:28], dim, heads, keys, values, x, tiles, 0, 0)
        x, y = read, x
        height, width = height // rows, width // columns
    for i in range(len(y)):
        made[n * len(y) + i] = y[i]
