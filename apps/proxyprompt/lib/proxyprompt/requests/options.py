"""What a request may say, parsed and checked.

Viewers send an option only when their user changed it; a drop-down that was left alone may come as its whole list,
whose first entry then counts; numbers come as text. Anything else is an error that lists what is valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyprompt.errors import refuse
from proxyprompt.settings import MODES, SUPPORT_COUNTS

from .safety import check_id

AUTO = "auto"
ALL = "all"
MAX_SUPPORTS = 64
EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png")
OURS = (
    "support",
    "structure",
    "supports",
    "adapter",
    "agreement",
    "everywhere",
    "corrected",
    "mode",
    "clean",
    "result_extension",
    "result_dtype",
    "result_compress",
)
# What MONAI Label's server and clients put into a request on their own account. `image` and `path` are not among
# them: inside params they would replace the image that the address names.
FOREIGN = (
    *("model", "description", "device", "logging", "save_label", "label_tag", "label_info", "client_id", "user"),
    *(
        "session",
        "restore_label_idx",
        "timeout",
        "multi_gpu",
        "gpus",
        "max_workers",
        "max_batch_size",
        "images",
        "request_id",
    ),
    *("_id", "_image_id", "label", "result_write_to_file", "cache_transforms", "cache_transforms_ttl"),
)


@dataclass(frozen=True)
class Choices:
    """What is on offer at this moment: the drop-downs' entries, without "auto" and "all"."""

    supports: Sequence[str]
    structures: Sequence[str]
    adapters: Sequence[str]
    count: int


@dataclass(frozen=True)
class Options:
    """One request.

    support: "auto", or ids of labelled studies. structures: names, or None for those that suit the target; whether they
    exist is for the library to say, which knows their aliases. everywhere: also on slices of a volume where the
    supports' volumes do not show the structure. extension: the result's suffix; None for the usual one. corrected:
    indices of slices of the target that a person painted. mode: of :data:`proxyprompt.settings.MODES`.
    clean: whether small parts and holes are removed.
    """

    support: str | tuple[str, ...] = AUTO
    structures: tuple[str, ...] | None = None
    count: int = 4
    adapter: str | None = None
    agreement: bool = True
    everywhere: bool = False
    extension: str | None = None
    corrected: tuple[int, ...] = ()
    mode: str = AUTO
    clean: bool = False


def drop_downs(choices: Choices) -> dict[str, Any]:
    """The task's ``config``: every list's first entry is what an untouched drop-down means.

    Numbers are text, because 3D Slicer's drop-downs take nothing else.
    """
    counts = [str(k) for k in (choices.count, *(k for k in SUPPORT_COUNTS if k != choices.count))]
    return {
        "support": [AUTO, *choices.supports],
        "structure": [ALL, *choices.structures],
        "supports": counts,
        "adapter": list(choices.adapters),
        "agreement": True,
        "everywhere": False,
        "mode": list(MODES),
        "clean": False,
    }


def parse_options(
    request: Mapping[str, Any],
    *,
    adapters: Sequence[str],
    count: int,
    agreement: bool = True,
    everywhere: bool = False,
    mode: str = AUTO,
) -> Options:
    """One request's options. adapters: the versions there are. The others: what an unchanged request means.

    Raises MONAILabelException (bad input) for an option or a value that does not exist, listing the valid ones.
    """
    unknown = sorted(set(request) - set(OURS) - set(FOREIGN) - {"image"})
    if unknown:
        raise refuse(f"unknown option {', '.join(map(repr, unknown))}; the options are: {', '.join(OURS)}")
    return Options(
        support=_support(request.get("support")),
        structures=names_of("structure", request.get("structure"), ALL),
        count=_count(request.get("supports"), count),
        adapter=_adapter(request.get("adapter"), adapters),
        agreement=flag("agreement", request.get("agreement"), agreement),
        everywhere=flag("everywhere", request.get("everywhere"), everywhere),
        corrected=_indices(request.get("corrected")),
        mode=_mode(request.get("mode"), mode),
        clean=flag("clean", request.get("clean"), False),
        extension=_extension(request),
    )


def first(value: Any) -> Any:
    """What a drop-down chose: MONAI Label sends a list at first, whose first entry counts."""
    if isinstance(value, list | tuple):
        return value[0] if value else None
    return value


def names_of(option: str, value: Any, neutral: str) -> tuple[str, ...] | None:
    """The names in a value: None where it was not sent, or begins with the entry that means no choice."""
    given = [value] if not isinstance(value, list | tuple) else list(value)
    if not given or given[0] in (None, "", neutral):
        return None
    if not all(isinstance(name, str) and name for name in given):
        raise refuse(f"{option} {value!r} is not a name or a list of names; leave it out for {neutral!r}")
    return tuple(dict.fromkeys(given))


def _support(value: Any) -> str | tuple[str, ...]:
    names = names_of("support", value, AUTO)
    return AUTO if names is None else tuple(check_id(name, "support") for name in names)


def _count(value: Any, default: int) -> int:
    value = first(value)
    if value in (None, ""):
        return default
    try:
        count = int(value) if not isinstance(value, bool | float) else -1
    except (TypeError, ValueError):
        count = -1
    if not 1 <= count <= MAX_SUPPORTS:
        raise refuse(f"supports {value!r} is not a whole number from 1 to {MAX_SUPPORTS}")
    return count


def _indices(value: Any) -> tuple[int, ...]:
    """Whole numbers, as a list or as text with commas between them."""
    given = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    given = [each for each in given if each not in (None, "")]
    try:
        indices = [int(each) if not isinstance(each, bool | float) else -1 for each in given]
    except (TypeError, ValueError):
        indices = [-1]
    if any(index < 0 for index in indices):
        raise refuse(f"corrected {value!r} is not a list of slices; expected whole numbers from 0, such as [3, 7]")
    return tuple(dict.fromkeys(indices))


def _mode(value: Any, default: str) -> str:
    value = first(value)
    if value in (None, "", AUTO):
        return default
    if value not in MODES:
        raise refuse(f"there is no mode {value!r}; valid: {', '.join(MODES)}")
    return value


def _adapter(value: Any, known: Sequence[str]) -> str | None:
    value = first(value)
    if value in (None, ""):
        return None
    if value not in known:
        raise refuse(f"there is no adapter version {value!r}; valid: {', '.join(known)}")
    return value


def flag(option: str, value: Any, default: bool) -> bool:
    """Read an option that is true or false.

    Args:
        option: its name, for messages.
        value: as it came.
        default: for nothing.

    Returns:
        What it says.

    Raises:
        MONAILabelException: for anything else.
    """
    words = {"true": True, "1": True, "false": False, "0": False}
    if value in (None, ""):
        return default
    if str(value).lower() not in words:
        raise refuse(f"{option} {value!r} is neither true nor false")
    return words[str(value).lower()]


def _extension(request: Mapping[str, Any]) -> str | None:
    """The result's suffix. The file always holds 8-bit ids, which every integer type a viewer asks for can take."""
    dtype = request.get("result_dtype")
    if dtype not in (None, "") and str(dtype).lower() not in ("uint8", "uint16", "uint32", "int16", "int32", "int64"):
        raise refuse(f"result_dtype {dtype!r} cannot hold a label map; valid: uint8 (any integer type gets uint8)")
    extension = request.get("result_extension")
    if extension in (None, ""):
        return None
    if extension not in EXTENSIONS:
        raise refuse(f"result_extension {extension!r} cannot be written; valid: {', '.join(EXTENSIONS)}")
    return extension
