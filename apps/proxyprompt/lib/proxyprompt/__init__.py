"""Segment an image by pointing at another one that is already labelled.

>>> from proxyprompt import ProxyPromptPredictor
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .predictor.proxy_prompt_predictor import Prediction, ProxyPromptPredictor

__all__ = ["Prediction", "ProxyPromptPredictor", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The public classes, imported when they are asked for: PyTorch takes seconds to start."""
    if name in ("Prediction", "ProxyPromptPredictor"):
        from .predictor import proxy_prompt_predictor

        return getattr(proxy_prompt_predictor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
