"""What the numbers in a label mean, and several masks as one label map.

A label file holds numbers; their names come from the first of these that has any:

1. the segments of a DICOM SEG or a Segmentation NRRD, whose numbers mean nothing beyond it;
2. the label info saved with the label;
3. ``dataset.json`` (nnU-Net: name -> value or values; Medical Segmentation Decathlon: value -> name);
4. the option ``labels``: ``disc=1+2,cup=2``, or a JSON file of the same content;
5. none: ``label_<value>``, with a warning.

A value that the chosen source does not name is ``label_<value>`` too. Whatever the source, the option may define
structures out of named ones (``disc=rim+cup``). A structure may be declared without a voxel of it in the label: then
it is known to be absent there, which is more than not knowing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .dicom_seg import segment_names
from .errors import StudyError
from .registry import StructureRegistry, name_key

__all__ = ["StructureRegistry", "declared_structures", "find_dataset_json", "merge", "parse_labels", "segment_names"]

logger = logging.getLogger(__name__)

NOT_STRUCTURES = ("background", "ignore")  # the second is nnU-Net's mark for voxels to leave out
NESTED = 0.8  # of a structure inside a larger one: it is part of it, and shown on top

Names = dict[str, set[int]]


def declared_structures(
    label_path: str | Path,
    *,
    label_info: list[Any] | Mapping[str, Any] | None = None,
    segment_names: Mapping[int, str] | Mapping[str, Iterable[int]] | None = None,
    dataset_json: Mapping[str, Any] | str | Path | None = None,
    conf_labels: str | Mapping[str, Any] | None = None,
    values: Iterable[int],
) -> Names:
    """The structures that a label declares.

    Args:
        label_path: for messages.
        label_info: MONAI Label's list of {"name", "idx"}, or the whole info that was saved with the label.
        segment_names: what the label file itself says, number -> name, or name -> numbers where segments lie in each
            other (see ``LabelMap``).
        dataset_json: its content, or the path of the file.
        conf_labels: the option ``labels``.
        values: the label's own values (0 is left out).

    Returns:
        Name -> its values, which need not occur in the label.

    Raises:
        StudyError: for a source that cannot be understood.
    """
    values = sorted({int(v) for v in values} - {0})
    option, compounds = parse_labels(conf_labels)
    sources = (
        _from_segments(segment_names),
        _from_label_info(label_info, values),
        _from_mapping(_loaded(dataset_json), "dataset.json"),
        option,
    )
    names: Names = next((source for source in sources if source), {})
    unnamed = [v for v in values if not any(v in members for members in names.values())]
    names = {**names, **{f"label_{v}": {v} for v in unnamed}}
    if unnamed:
        logger.warning(
            "%s: no name for label value %s; it is offered as %s: name it with --conf labels or a dataset.json",
            label_path,
            ", ".join(map(str, unnamed)),
            ", ".join(f"label_{v}" for v in unnamed),
        )
    return _compounded(names, compounds)


def parse_labels(given: str | Mapping[str, Any] | None) -> tuple[Names, dict[str, list[str]]]:
    """Read the option ``labels``.

    Args:
        given: ``disc=1+2,cup=2`` or ``disc=rim+cup``; or the path of a JSON file, or its content: {name: value, list of
            values, or text as in the option}, {value: name}, or either of them under "labels".

    Returns:
        Structures out of values, and structures out of other structures.

    Raises:
        StudyError: when it is neither.
    """
    if not given:
        return {}, {}
    if isinstance(given, str):
        if given.strip().lower().endswith(".json"):
            given = _loaded(given.strip())
        else:
            parts = [part.split("=") for part in given.split(",") if part.strip()]
            if any(len(part) != 2 for part in parts):
                raise StudyError(
                    f"labels {given!r}: expected name=value+value,name=value (as in disc=1+2,cup=2), or a .json file"
                )
            given = {name.strip(): text.strip() for name, text in parts}
    given = given.get("labels", given)
    plain, compounds = {}, {}
    for name, text in given.items():
        members = [m.strip() for m in text.split("+")] if isinstance(text, str) and not _is_number(name) else None
        if members is None or all(_is_number(m) for m in members):
            plain[name] = text if members is None else [int(m) for m in members]
        elif any(_is_number(m) for m in members) or not all(map(name_key, members)):
            raise StudyError(f"labels: {name}={text}: expected label values (1+2) or structure names (rim+cup)")
        else:
            compounds[name] = members
    return _from_mapping(plain, "labels"), compounds


def find_dataset_json(label_path: str | Path, root: str | Path) -> Path | None:
    """The ``dataset.json`` that belongs to a label.

    Args:
        label_path: of the label.
        root: the uppermost folder to look in.

    Returns:
        The nearest one from the label's folder upwards; None where there is none.
    """
    root = Path(root).resolve()
    for folder in Path(label_path).resolve().parents:
        if root != folder and root not in folder.parents:
            return None
        if (folder / "dataset.json").is_file():
            return folder / "dataset.json"
    return None


def merge(masks: Mapping[str, np.ndarray], registry: StructureRegistry) -> np.ndarray:
    """Merge masks into one label map.

    Where masks overlap the highest logit wins; but a structure that lies mostly inside a larger one is laid on top of
    it.

    Args:
        masks: name -> logits (positive inside) or bool, all of one shape.
        registry: gives the ids.

    Returns:
        uint8 map of registry ids, of that shape.

    Raises:
        StudyError: when a name is not registered, when shapes differ, and when there is no mask.
    """
    if not masks:
        raise StudyError("no mask to merge: expected at least one structure")
    shapes = {name: np.shape(mask) for name, mask in masks.items()}
    if len(set(shapes.values())) > 1:
        raise StudyError(f"masks to merge differ in shape: {shapes}")
    ids = {name: registry.id_of(name) for name in masks}
    inside = {name: np.asarray(mask) > 0 for name, mask in masks.items()}
    sizes = {name: int(m.sum()) for name, m in inside.items()}
    order = sorted(masks, key=lambda name: (-sizes[name], ids[name]))  # the largest first
    result = np.zeros(next(iter(shapes.values())), dtype=np.uint8)
    best = np.full(result.shape, -np.inf, dtype=np.float32)
    for rank, name in enumerate(order):
        logits = np.asarray(masks[name], dtype=np.float32)
        wins = logits > best
        for larger in order[:rank]:
            if sizes[name] < sizes[larger] and (inside[name] & inside[larger]).sum() >= NESTED * sizes[name]:
                wins |= result == ids[larger]
        wins &= inside[name]
        result[wins] = ids[name]
        best[wins] = logits[wins]
    return result


def _from_label_info(info: list[Any] | Mapping[str, Any] | None, values: list[int]) -> Names:
    """Names by MONAI Label's list.

    Indices count if every entry has one and any of them occurs; else the i-th entry names the i-th value, as MONAI
    Label itself pairs them.
    """
    if isinstance(info, Mapping):
        params = info.get("params") or {}
        found = info.get("label_info") or params.get("label_info")
        if not found:
            return _from_mapping(info.get("label_names") or params.get("label_names"), "the label info")
        info = found
    entries = [e for e in info or () if isinstance(e, Mapping) and _is_structure(e.get("name"))]
    if not entries:
        return {}
    indices = [int(e["idx"]) if _is_number(e.get("idx")) else 0 for e in entries]
    if min(indices) < 1 or (values and not set(values) & set(indices)):
        indices = [values[i] if i < len(values) else 0 for i in range(len(entries))]
    names: Names = {}
    for entry, value in zip(entries, indices, strict=True):
        names.setdefault(str(entry["name"]).strip(), set()).update({value} - {0})
    return names


def _from_segments(segments: Mapping[int, str] | Mapping[str, Iterable[int]] | None) -> Names:
    """A segment called background, or by nothing but spaces, is none."""
    names: Names = {}
    for key, given in (segments or {}).items():
        name, members = (given, {key}) if isinstance(given, str) else (str(key), given)
        if _is_structure(name):
            names.setdefault(name.strip(), set()).update(int(v) for v in members)
    return names


def _from_mapping(mapping: Mapping[str, Any] | None, source: str) -> Names:
    """{name: value or values} or {value: name}; a content under "labels" is taken out of it first."""
    mapping = (mapping or {}).get("labels", mapping) or {}
    names: Names = {}
    for key, given in mapping.items():
        pair = (given, [key]) if _is_number(key) and isinstance(given, str) else (key, given)
        name, members = str(pair[0]).strip(), pair[1] if isinstance(pair[1], list | tuple | set) else [pair[1]]
        if not all(_is_number(m) for m in members) or not name_key(name):
            raise StudyError(f"{source}: {key!r}: {given!r} names no label value; expected a name and whole numbers")
        if _is_structure(name) and any(not 0 <= int(m) <= 255 for m in members):
            raise StudyError(f"{source}: {key!r}: {given!r}: label values run from 0 to 255")
        if _is_structure(name):
            names.setdefault(name, set()).update({int(m) for m in members} - {0})
    return {name: members for name, members in names.items() if members}


def _compounded(names: Names, compounds: Mapping[str, list[str]]) -> Names:
    """Adds structures made of others, where this label declares all the parts."""
    names = dict(names)
    for name, members in compounds.items():
        known = {name_key(n): n for n in names}
        if all(name_key(m) in known for m in members):
            names[name] = set().union(*(names[known[name_key(m)]] for m in members))
    return names


def _loaded(source: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    if source is None or isinstance(source, Mapping):
        return source or {}
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise StudyError(f"{source}: label names cannot be read ({e}); expected a JSON file") from e
    if not isinstance(content, Mapping) or not isinstance(content.get("labels", {}), Mapping):
        raise StudyError(f"{source}: expected a JSON object of names and label values")
    return content


def _is_structure(name: Any) -> bool:
    return bool(isinstance(name, str) and name_key(name) and name_key(name) not in NOT_STRUCTURES)


def _is_number(value: Any) -> bool:
    return str(value).strip().isdecimal() and not isinstance(value, bool)
