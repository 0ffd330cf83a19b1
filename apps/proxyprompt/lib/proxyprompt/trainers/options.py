"""What a request for training may say: the viewers' dialog, and what comes back from it, parsed and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyprompt.errors import refuse
from proxyprompt.requests.options import ALL, AUTO, first, flag, names_of
from proxyprompt.training.finetune_config import FinetuneConfig
from proxyprompt.training.strategies import STRATEGIES

PROVEN = "if proven"
ALWAYS = "even if unproven"
NO_LIMIT = "no limit"
MINUTES = 30.0
"""Limit of a training from a viewer, unless it is set there."""
NUMBERS = ("max_epochs", "max_minutes", "learning_rate", "rank", "processes")
OURS = (
    *("max_epochs", "max_minutes", "learning_rate", "trainable", "structures", "parent", "publish", "rank"),
    *("train_unchanged", "processes"),
)
# What MONAI Label's server and clients add on their own account.
FOREIGN = ("model", "description", "device", "gpus", "multi_gpu", "local_rank", "client_id", "user")


@dataclass(frozen=True)
class TrainOptions:
    """One request. structures: None for all there are. parent: the version to start from, None for the one that serves.

    publish_unproven: serve the new version also when too few groups could be held out to prove anything. publish: the
    name of a kept version that is to be served from now on; nothing is trained then. train_unchanged: also on labels
    that were accepted as they had been proposed. processes: that train together; None for what suits the machine.
    """

    config: FinetuneConfig
    structures: tuple[str, ...] | None = None
    parent: str | None = None
    publish_unproven: bool = False
    publish: str | None = None
    train_unchanged: bool = False
    processes: int | None = None


def train_drop_downs(
    defaults: FinetuneConfig, *, structures: Sequence[str], parents: Sequence[str], unproven: Sequence[str]
) -> dict[str, Any]:
    """The task's ``config``. defaults: of the served foundation. parents: published versions, the served one first.

    unproven: kept versions that are not served yet.
    """
    return {
        "max_epochs": str(defaults.max_epochs),
        "max_minutes": f"{defaults.max_minutes or MINUTES:g}",
        "learning_rate": AUTO if defaults.learning_rate is None else f"{defaults.learning_rate:g}",
        "rank": str(defaults.rank),
        "trainable": [defaults.trainable, *(t for t in STRATEGIES if t != defaults.trainable)],
        "structures": [ALL, *structures],
        "parent": list(parents),
        "publish": [PROVEN, ALWAYS, *unproven],
        "train_unchanged": False,
        "processes": AUTO,
    }


def parse_train_options(
    request: Mapping[str, Any],
    *,
    task: str,
    defaults: FinetuneConfig,
    parents: Sequence[str],
    unproven: Sequence[str],
) -> TrainOptions:
    """task: the trainer's name, under which MONAI Label sends the options once more when it trains all.

    Raises MONAILabelException (bad input) for an option or a value that does not exist, listing the valid ones.
    """
    unknown = sorted(set(request) - set(OURS) - set(FOREIGN) - {task})
    if unknown:
        raise refuse(f"unknown training option {', '.join(map(repr, unknown))}; the options are: {', '.join(OURS)}")
    given = {name: first(request.get(name)) for name in (*NUMBERS, "trainable")}
    values = {name: value for name, value in given.items() if value not in (None, "")}
    for name in ("learning_rate", "processes"):
        if values.get(name) == AUTO:  # what suits what trains, and the machine
            del values[name]
    values = {name: _number(name, value) if name in NUMBERS else value for name, value in values.items()}
    processes = values.pop("processes", None if flag("multi_gpu", request.get("multi_gpu"), True) else 1)
    try:
        config = defaults.with_options(**{"max_minutes": defaults.max_minutes or MINUTES, **values})
    except ValueError as error:
        raise refuse(f"training option {error}") from None
    publish = first(request.get("publish")) or PROVEN
    return TrainOptions(
        config=config,
        structures=names_of("structures", request.get("structures"), ALL),
        parent=_one_of("parent", first(request.get("parent")) or None, parents),
        publish_unproven=publish == ALWAYS,
        publish=None if publish in (PROVEN, ALWAYS) else _one_of("publish", publish, (PROVEN, ALWAYS, *unproven)),
        train_unchanged=flag("train_unchanged", request.get("train_unchanged"), False),
        processes=processes,
    )


def _number(name: str, value: Any) -> float | int | None:
    if name == "max_minutes" and value == NO_LIMIT:
        return None
    whole = name in ("max_epochs", "rank", "processes")
    try:
        number = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf") or (whole and number != int(number)):
        other = {"max_minutes": NO_LIMIT, "learning_rate": AUTO, "processes": AUTO}.get(name)
        hint = f", or {other!r}" if other else ""
        raise refuse(f"{name} {value!r} is not a {'whole ' if whole else ''}number above 0{hint}")
    return int(number) if whole else number


def _one_of(name: str, value: Any, valid: Sequence[str]) -> str | None:
    if value is not None and value not in valid:
        raise refuse(f"there is no {name} {value!r}; valid: {', '.join(valid)}")
    return value
