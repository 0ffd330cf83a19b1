"""Files of trained versions, for tests that do not look at what was trained."""

from pathlib import Path

import torch

from proxyprompt.predictor.adapters import AdapterHeader, AdapterStore

NAME = "adapter-20260101T000000Z"


def write_version(folder: Path, *, foundation: str = "atto-1", sha256: str = "a" * 64, value: float = 1.0) -> Path:
    """A published version :data:`NAME` for these weights, as its store writes it: one tensor full of ``value``."""
    header = AdapterHeader(
        name=NAME,
        foundation=foundation,
        foundation_sha256=sha256,
        parent=foundation,
        config={},
        structures=("head",),
        training_groups=(),
        validation={},
        status="published",
        reason="better",
        created="2026-01-01T00:00:00+00:00",
        app_version="0.1.0",
    )
    store = AdapterStore(folder, foundation=foundation, foundation_sha256=sha256)
    return store.save(header, {"weight": torch.full((2, 2), value)})
