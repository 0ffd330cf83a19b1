"""The app itself in this process: no server, but everything behind it."""

import importlib.util
import sys
from pathlib import Path

APP = Path(__file__).resolve().parents[1] / "apps" / "proxyprompt"


def build_app(studies, weights, **conf):
    """A ProxyPromptApp of its own; its background index is not started."""
    spec = importlib.util.spec_from_file_location("proxyprompt_main", APP / "main.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.ProxyPromptApp(str(APP), str(studies), {"weights_dir": str(weights), "device": "cpu", **conf})
