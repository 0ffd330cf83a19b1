"""Everything `--conf key value` can say, in one place: parsed, validated, documented.

MONAI Label hands the app a dictionary of strings and checks nothing; a mistyped key would silently be a default.
Here an unknown key or value is an error that lists the valid ones. Nothing heavy is imported here, so that
``python -m proxyprompt.settings`` prints the options on a machine where nothing is installed yet.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from proxyprompt.foundation import foundation_entry, foundation_names

logger = logging.getLogger(__name__)

SUPPORT_COUNTS = (1, 2, 4, 8, 16)
AUTO, SLICE_BY_SLICE, NEIGHBOURS, PROPAGATE = MODES = ("auto", "slice by slice", "neighbours", "propagate")
"""What is done about the neighbours of a slice of a volume, or of a frame of a clip: see docs/volumes.md."""
# Read by MONAI Label itself or written by its sample apps' command lines; they are no options of ours.
FOREIGN_KEYS = ("server_mode",)
RETIRED_KEYS = {"dense_proxy": "the proxy prompt alone carries the mask now"}
"""Options of an earlier version -> why they are gone; accepted for one version, with a warning."""


class SettingsError(ValueError):
    """A `--conf` option that does not exist, or a value that it cannot have. The message lists what is valid."""


def _choice(*valid: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in valid:
            raise ValueError(f"expected one of {', '.join(valid)}")
        return text

    return parse


def _foundation(text: str) -> str:
    foundation_entry(text)
    return text


def _flag(text: str) -> bool:
    words = {"true": True, "on": True, "yes": True, "1": True, "false": False, "off": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("expected true or false")
    return words[text.lower()]


def _integer(low: int, high: int, *, multiple: int = 1) -> Callable[[str], int]:
    step = "" if multiple == 1 else f", a multiple of {multiple}"

    def parse(text: str) -> int:
        expected = f"expected a whole number from {low} to {high}{step}"
        try:
            value = int(text)
        except ValueError:
            raise ValueError(expected) from None
        if not low <= value <= high or value % multiple:
            raise ValueError(expected)
        return value

    return parse


def _device(text: str) -> str:
    if text in ("auto", "cpu", "cuda") or (text.startswith("cuda:") and text[5:].isdigit()):
        return text
    raise ValueError("expected auto, cpu, cuda or cuda:N")


def _models(text: str) -> str:
    if set(text.split(",")) - {"proxyprompt", "all"}:
        raise ValueError("expected proxyprompt (the only model of this app) or all")
    return text


def _window(text: str) -> str:
    from proxyprompt.io.intensity import IntensitySettings

    IntensitySettings.parse(text)
    return text


def _labels(text: str) -> str:
    from proxyprompt.io.labels import parse_labels

    parse_labels(text)
    return text


def _text(text: str) -> str:
    return text


def about(help: str, parse: Callable[[str], Any] = _text) -> dict[str, Any]:
    """Metadata of a field of :class:`Settings`: the line that describes it, and what turns its text into a value."""
    return {"help": help, "parse": parse}


@dataclass(frozen=True)
class Settings:
    """The app's configuration; the fields are the keys of ``--conf``."""

    foundation: str = field(
        default="atto",
        metadata=about(
            "the frozen segmenter: " + ", ".join(foundation_names()) + "; atto-1, ... for a given atto", _foundation
        ),
    )
    image_size: int | None = field(
        default=None,
        metadata=about(
            "side of the network's square input in pixels; default: the foundation's own",
            _integer(64, 2048, multiple=64),
        ),
    )
    adapter: str | None = field(
        default=None, metadata=about("adapter version to serve; default: the one shipped with the foundation")
    )
    paper: bool = field(
        default=False,
        metadata=about(
            "the paper's model and nothing else: no pieces, volumes are searched everywhere by default", _flag
        ),
    )
    window: str = field(
        default="auto",
        metadata=about(
            "intensity window: auto (by modality), percentile, the name of a CT window, or centre,width", _window
        ),
    )
    labels: str | None = field(
        default=None,
        metadata=about(
            "names of label values (rim=1,cup=2), unions (disc=rim+cup), or a .json file with them",
            _labels,
        ),
    )
    supports: int = field(
        default=4, metadata=about("support slices to prompt with (K) unless the request says", _integer(1, 64))
    )
    device: str = field(default="auto", metadata=about("auto (CUDA where there is one), cpu, cuda or cuda:N", _device))
    weights_dir: Path | None = field(
        default=None, metadata=about("folder with the weights; default: the app's model folder", Path)
    )
    allow_unverified_weights: bool = field(
        default=False, metadata=about("load official weights whose hash is not in the table (it is logged)", _flag)
    )
    cache_dir: Path | None = field(
        default=None, metadata=about("folder for cached features; default: .proxyprompt in the studies folder", Path)
    )
    cache_memory_mb: int = field(
        default=1024, metadata=about("most memory the cached features may take, in MB", _integer(16, 1 << 20))
    )
    cache_disk_mb: int = field(
        default=4096, metadata=about("most disk space the cached features may take, in MB", _integer(0, 1 << 24))
    )
    next_sample: str = field(
        default="disagreement",
        metadata=about(
            "what the viewers' button proposes: disagreement (where supports disagree), random or first",
            _choice("disagreement", "random", "first"),
        ),
    )
    background_scoring: bool = field(
        default=True,
        metadata=about("score unlabelled and labelled studies while no request is being answered", _flag),
    )
    model_upload: bool = field(
        default=False,
        metadata=about("whether versions may be added and taken away over the network (PUT, DELETE /model)", _flag),
    )
    upload_mb: int = field(
        default=4096, metadata=about("largest request that is taken, in MB (413 beyond it)", _integer(1, 1 << 20))
    )
    upload_seconds: int = field(
        default=900, metadata=about("seconds in which a request must have arrived (408 beyond it)", _integer(1, 86_400))
    )
    requests_per_minute: int = field(
        default=0,
        metadata=about("requests that one address may send in a minute; 0 for any number", _integer(0, 1 << 20)),
    )
    log_ids: bool = field(
        default=False,
        metadata=about("write ids of studies into the log of requests as they are, not as pseudonyms", _flag),
    )
    models: str = field(default="all", metadata=about("accepted for MONAI Label's habits: proxyprompt or all", _models))

    @classmethod
    def from_conf(cls, conf: Mapping[str, Any] | None) -> Settings:
        """Parse MONAI Label's conf dictionary (text to text).

        Raises SettingsError with the list of valid options for an unknown key, and with what was expected for a
        value that does not fit.
        """
        known = {f.name: f for f in fields(cls)}
        values = {}
        for key, given in (conf or {}).items():
            if key in FOREIGN_KEYS:
                continue
            if key in RETIRED_KEYS:
                logger.warning("'--conf %s %s' does nothing any more: %s", key, given, RETIRED_KEYS[key])
                continue
            if key not in known:
                raise SettingsError(
                    f"unknown option '--conf {key} {given}'; the options of this app are: {', '.join(known)}"
                )
            try:
                values[key] = known[key].metadata["parse"](str(given).strip())
            except ValueError as error:
                raise SettingsError(f"'--conf {key} {given}' does not fit: {error}") from None
        return cls(**values)

    @classmethod
    def describe(cls) -> str:
        """One line an option: its name, its default, what it does. For ``--help`` and the README."""
        lines = []
        for f in fields(cls):
            default = "" if f.default in (None, MISSING) else f" (default: {str(f.default).lower()})"
            lines.append(f"  --conf {f.name:<25} {f.metadata['help']}{default}")
        return "\n".join(lines)

    def torch_device(self) -> str:
        """The device to serve on. SettingsError when CUDA was asked for and there is none."""
        try:
            return usable_device(self.device)
        except ValueError as error:
            raise SettingsError(f"'--conf device {self.device}': {error}") from None


class Renamed(argparse.Action):
    """An option under its former name: still taken, with a warning that says the present one (its ``dest``)."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Store the value as the present option would, as argparse calls it."""
        logger.warning(
            "%s is called --%s now; the old name goes with the next version", option, self.dest.replace("_", "-")
        )
        setattr(namespace, self.dest, values)


def usable_device(wanted: str) -> str:
    """The device for PyTorch; ``auto`` is CUDA where there is one. ValueError when CUDA is wanted and there is none."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("no CUDA device was found; use cpu")
    return wanted


if __name__ == "__main__":
    print(Settings.describe())
