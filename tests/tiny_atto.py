"""A tiny ``atto`` with random weights, in the layout of the embedded files: for tests of everything but quality."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from proxyprompt.foundation import FOUNDATION_PREFIX, GENERATOR_PREFIX
from proxyprompt.foundation.atto import AttoConfig, build_atto
from proxyprompt.prompt_generator.generator import GeneratorConfig, ProxyPromptGenerator

PIXELS = 128
APP = Path(__file__).resolve().parents[1] / "apps" / "proxyprompt"


def write_tiny_atto(folder: Path, *, number: int = 1, seed: int = 0) -> Path:
    """``folder/atto-<number>.safetensors``: 32 channels, every weight random, those that start at zero too."""
    foundation = AttoConfig(dim=32, blocks=1, memory_layers=1, feed_forward=64).to_dict()
    config = GeneratorConfig(
        dim=32, grid=PIXELS // 16, width=48, depth=2, d_state=8, heads=4, halvings=2, norm_first=True
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = {
            FOUNDATION_PREFIX: build_atto(foundation, image_size=PIXELS),
            GENERATOR_PREFIX: ProxyPromptGenerator(config),
        }
        state = {}
        for prefix, part in parts.items():
            for name, value in part.state_dict().items():
                if value.is_floating_point() and not value.any():
                    value = 0.1 * torch.randn_like(value)
                state[prefix + name] = value.contiguous().clone()
    (score,) = [name for name in state if name.endswith("pred_obj_score_head.layers.2.bias")]
    state[score] = torch.full_like(state[score], 4.0)  # everything counts as present, so that masks are drawn
    header = {"foundation": foundation, "generator": config.to_dict(), "image_size": PIXELS}
    path = Path(folder) / f"atto-{number}.safetensors"
    save_file(state, path, metadata={"config": json.dumps(header)})
    return path


def weights(folder: Path) -> dict[str, str]:
    """What to start a server with: nothing where the embedded weights are there, else a tiny ``atto``."""
    if list((APP / "model").glob("atto-*.safetensors")):
        return {}
    return {"weights_dir": str(write_tiny_atto(folder).parent)}
