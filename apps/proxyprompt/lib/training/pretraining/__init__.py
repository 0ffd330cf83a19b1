"""Pretraining of ``atto`` on procedurally generated groups of images (no data, hence free of data licences).

``config``: what decides a run. ``prompts``: simulated clicks, boxes, corrections. ``tasks``: the kinds of steps.
``trainer``: the run, its checkpoints and the weights it writes.
"""

from .config import Phase, PretrainConfig
from .trainer import Pretrainer, build_model

__all__ = ["Phase", "PretrainConfig", "Pretrainer", "build_model"]
