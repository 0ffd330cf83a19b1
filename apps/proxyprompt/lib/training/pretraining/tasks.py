"""The kinds of pretraining steps: from a group of images to decoded masks, one function for each kind of prompt.

Stage "foundation": ``box``, ``points``, ``mask`` (a rough one, to be made exact), ``correction`` (a click, then its
mask as a prompt and a click on what is wrong), ``clip`` (the members of a group as frames: the first is prompted by a
box, the others by what is remembered). Stage "proxy": ``proxy`` (other members of the group are the supports),
``proxy_points``, ``proxy_clip``.
Axes: ``G`` groups of ``M`` members, ``N`` objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib.foundation.base import Decoded, Features, FrameMemory, MemoryBank, Prompts
from lib.prompt.generator import ProxyPrompt
from lib.segmenter import Segmenter, as_prompts, pyramid
from lib.training.pretraining.prompts import (
    boxes_of,
    draw_clicks,
    draw_correction,
    draw_supports,
    jitter_boxes,
    join,
    no_clicks,
    rough_logits,
    sloppy,
)
from lib.training.procedural import Groups


@dataclass(frozen=True)
class Graded:
    """What one step has to answer for.

    answers: what was decoded, and the (B, N, S, S) masks it should be. proxy: of all images of the episode, where there
    was one.
    """

    answers: list[tuple[Decoded, Tensor]]
    proxy: ProxyPrompt | None = None


@dataclass(frozen=True)
class Episode:
    """Encoded images of G groups.

    images: (G*M, 3, S, S), normalised. masks: (G*M, N, S, S) in {0, 1}. choices: what prompts are drawn with.
    supports: (G, M, M) bool, who supports whom; drawn where it is None. sloppy: share of support masks drawn badly.
    blunt: share of episodes in which the fine readout has to do without many of its features.
    """

    segmenter: Segmenter
    features: Features
    images: Tensor
    masks: Tensor
    groups: int
    members: int
    choices: torch.Generator
    supports: Tensor | None = None
    sloppy: float = 0.0
    blunt: float = 0.0

    def decode(self, prompts: Prompts) -> Decoded:
        return self.segmenter.foundation.decode(self.features, prompts)


def begin(
    segmenter: Segmenter,
    data: Groups,
    choices: torch.Generator,
    *,
    supports: Tensor | None = None,
    sloppy: float = 0.0,
    blunt: float = 0.0,
) -> Episode:
    """Encode every image of the groups once."""
    foundation = segmenter.foundation
    groups, members = data.images.shape[:2]
    images = (data.images.flatten(0, 1) - foundation.mean) / foundation.std
    masks = data.masks.flatten(0, 1).float()
    features = foundation.encode(images)
    return Episode(segmenter, features, images, masks, groups, members, choices, supports, sloppy, blunt)


def box(episode: Episode) -> Graded:
    boxes = jitter_boxes(boxes_of(episode.masks), episode.masks.shape[-1], episode.choices)
    return Graded([(episode.decode(Prompts(boxes=boxes)), episode.masks)])


def points(episode: Episode) -> Graded:
    return Graded([(episode.decode(Prompts(points=draw_clicks(episode.masks, episode.choices))), episode.masks)])


def mask(episode: Episode) -> Graded:
    return Graded([(episode.decode(Prompts(masks=rough_logits(episode.masks, episode.choices))), episode.masks)])


def correction(episode: Episode) -> Graded:
    clicks = draw_clicks(episode.masks, episode.choices, most=1)
    first = episode.decode(Prompts(points=clicks))
    logits = first.mask_logits.detach()
    clicks = join(clicks, draw_correction(logits, episode.masks, episode.choices))
    second = episode.decode(Prompts(points=clicks, masks=logits.float().clamp(-10, 10)))
    return Graded([(first, episode.masks), (second, episode.masks)])


def clip(episode: Episode) -> Graded:
    boxes = boxes_of(episode.masks).unflatten(0, (episode.groups, episode.members))
    return Graded(_track(episode, lambda frame: Prompts(boxes=boxes[:, frame])))


def proxy(episode: Episode) -> Graded:
    made = _proxy(episode)
    decoded = episode.decode(as_prompts(made))
    return Graded([(decoded, episode.masks)], made)


def proxy_points(episode: Episode) -> Graded:
    """The proxy, then the proxy and clicks, of which the last lies where the proxy alone was wrong."""
    made = _proxy(episode)
    first = episode.decode(as_prompts(made))
    clicks = draw_correction(first.mask_logits.detach(), episode.masks, episode.choices)
    if torch.rand(1, generator=episode.choices).item() < 0.5:
        clicks = join(draw_clicks(episode.masks, episode.choices, most=2), clicks)
    second = episode.decode(as_prompts(made, clicks))
    return Graded([(first, episode.masks), (second, episode.masks)], made)


def proxy_clip(episode: Episode) -> Graded:
    made = _proxy(episode)
    rows = torch.arange(episode.groups) * episode.members

    def prompt(frame: int) -> Prompts:
        return as_prompts(ProxyPrompt(*(None if part is None else part[rows + frame] for part in made)))

    return Graded(_track(episode, prompt, every=True), made)


KINDS: dict[str, Callable[[Episode], Graded]] = {
    function.__name__: function for function in (box, points, mask, correction, clip, proxy, proxy_points, proxy_clip)
}


def _proxy(episode: Episode) -> ProxyPrompt:
    """The proxy prompt of every member, made of the members that support it."""
    readout = episode.segmenter.generator.readout
    if readout is None or not episode.blunt or torch.rand(1, generator=episode.choices).item() >= episode.blunt:
        return _sharp_proxy(episode)
    left = 1 - torch.rand(1, generator=episode.choices).item()
    hidden = torch.rand(readout.width - 1, generator=episode.choices) >= left**2
    with readout.hiding(hidden.to(episode.masks.device)):
        return _sharp_proxy(episode)


def _sharp_proxy(episode: Episode) -> ProxyPrompt:
    generator, (groups, members) = episode.segmenter.generator, (episode.groups, episode.members)
    supports = episode.supports
    if supports is None:
        supports = draw_supports(groups, members, episode.choices)
    shown = sloppy(episode.masks, episode.sloppy, episode.choices) if episode.sloppy else episode.masks
    contexts = generator.encode_pair(episode.images, shown).unflatten(0, (groups, members))
    declared = torch.ones(groups, members, shown.shape[1], dtype=torch.bool, device=shown.device)
    maps = moments = None
    if generator.readout is not None:
        maps = pyramid(episode.features)
        moments = generator.readout.moments(maps, shown).unflatten(0, (groups, members))
    embedding = episode.features.embedding.unflatten(0, (groups, members))
    memory = generator.remember(embedding, contexts, declared, moments=moments)
    each = memory.valid.unflatten(2, (members, -1))[:, None]  # (G, 1, N, M, HW)
    valid = (each & supports.to(shown.device)[:, :, None, :, None]).flatten(3).flatten(0, 1)
    memory = replace(memory.repeated(members), valid=valid)
    return generator(episode.features.embedding, memory, maps)


def _track(episode: Episode, prompt: Callable[[int], Prompts], *, every: bool = False) -> list[tuple[Decoded, Tensor]]:
    """The M members as frames of G clips, forwards or backwards. ``every`` frame is prompted, or only the first."""
    foundation, (groups, members) = episode.segmenter.foundation, (episode.groups, episode.members)
    masks = episode.masks.unflatten(0, (groups, members))
    embedding = episode.features.embedding.unflatten(0, (groups, members))
    fine = [x.unflatten(0, (groups, members)) for x in episode.features.high_res]
    frames = torch.randperm(members, generator=episode.choices).tolist()
    answers: list[tuple[Decoded, Tensor]] = []
    remembered: list[tuple[int, FrameMemory]] = []
    backwards = bool(torch.rand(1, generator=episode.choices) < 0.5)
    for place, frame in enumerate(frames):
        features = Features(embedding=embedding[:, frame], high_res=tuple(x[:, frame] for x in fine))
        bank = MemoryBank(
            frames=tuple(memory for _, memory in remembered),
            distances=tuple((before - place) if backwards else (place - before) for before, _ in remembered),
            conditioning=tuple(before == 0 for before, _ in remembered),
        )
        prompted = every or place == 0
        prompts = prompt(frame) if prompted else Prompts(points=no_clicks(groups, masks.shape[2], masks.device))
        decoded = foundation.decode(features, prompts, bank)
        answers.append((decoded, masks[:, frame]))
        remembered.append((place, foundation.remember_frame(features, decoded.mask_logits, decoded)))
    return answers
