"""What may be noted with an image or a label: everybody reads it from then on, so nothing in it may stop anybody."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from proxyprompt.errors import refuse

from .notes import DISAGREEMENT, QUALITY

_DEEPEST = 20
_FORMS = {
    "label_info": '[{"name": "spleen", "idx": 1}]',
    "label_names": '{"spleen": 1}',
    "params": '{"label_names": {"spleen": 1}}',
    "strategy": '{"random": {"ts": 1700000000}}',
    DISAGREEMENT: '{"score": 0.5, "content": "..."}',
    QUALITY: '{"dice": {"spleen": 0.9}, "flagged": []}',
}


def check_info(info: object) -> None:
    """Refuse what could not be shown, or not be understood, later on.

    Args:
        info: what a request wants to have noted with an image or a label.

    Raises:
        MONAILabelException: bad input, with the form that is expected.
    """
    if not isinstance(info, Mapping):
        raise refuse(f"info {info!r} is not a JSON object; send one such as {{}}")
    check_json(info)
    for key, form in _FORMS.items():
        if key in info and not _FITS[key](info[key]):
            raise refuse(f"{key} {info[key]!r} is not as expected; send it as {form}")


def fitting(info: Mapping[str, Any]) -> dict[str, Any]:
    """What was noted, without the entries that nobody could use: a list of studies may have been edited by hand.

    Args:
        info: of an image.

    Returns:
        A copy of it.
    """
    return {key: value for key, value in info.items() if key not in _FITS or _FITS[key](value)}


def check_json(value: object, depth: int = 0) -> None:
    """Refuse what Python's JSON reader takes and other readers do not.

    Args:
        value: read from JSON.
        depth: of ``value`` in what was read.

    Raises:
        MONAILabelException: bad input, for numbers without a value (NaN, Infinity, 1e999), halves of characters, and
            lists in lists without an end.
    """
    if depth > _DEEPEST:
        raise refuse(f"more than {_DEEPEST} lists or objects in each other; send fewer")
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse(f"{value!r} is no number in JSON; send a finite one, or null")
    if isinstance(value, str) and not _is_unicode(value):
        raise refuse(f"{value!r} is not Unicode text; send it as UTF-8")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            check_json(key, depth + 1)
            check_json(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_json(inner, depth + 1)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_label_info(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value))


def _is_label_names(value: Any) -> bool:
    """Name -> value or values, or value -> name, as :func:`proxyprompt.io.labels.declared_structures` takes them."""
    if not isinstance(value, Mapping):
        return value is None
    return all(_is_label_value(key) or _are_label_values(given) for key, given in value.items())


def _is_label_value(value: Any) -> bool:
    return str(value).strip().isdecimal() and not isinstance(value, bool) and int(value) <= 255


def _are_label_values(given: Any) -> bool:
    members = given if isinstance(given, list) else [given]
    return bool(members) and all(map(_is_label_value, members))


def _are_params(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return value is None
    return _is_label_info(value.get("label_info")) and _is_label_names(value.get("label_names"))


def _is_strategy(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(entry, Mapping) and _is_number(entry.get("ts", 0)) for entry in value.values()
    )


def _is_disagreement(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return "score" not in value or (_is_number(value["score"]) and isinstance(value.get("content"), str))


def _is_quality(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    dice, flags = value.get("dice", {}), value.get("flagged", [])
    if not isinstance(dice, Mapping) or not isinstance(flags, list):
        return False
    return all(map(_is_number, dice.values())) and all(isinstance(name, str) for name in flags)


_FITS = {
    "label_info": _is_label_info,
    "label_names": _is_label_names,
    "params": _are_params,
    "strategy": _is_strategy,
    DISAGREEMENT: _is_disagreement,
    QUALITY: _is_quality,
}
