"""A narrow SAM 2 of the package's own classes, with random weights."""

from hydra.utils import instantiate
from omegaconf import OmegaConf

from proxyprompt.foundation.sam2 import Sam2, package_config

DIM, MEMORY = 32, 16


def build_tiny_sam2(image_size: int, *, memory_layers: int = 1) -> Sam2:
    """32 channels, four Hiera stages of one or two blocks."""
    base = package_config()
    grid = image_size // 16
    attention = {"embedding_dim": DIM, "feat_sizes": [grid, grid]}
    changes = {
        "image_size": image_size,
        "image_encoder": {
            "trunk": {
                "embed_dim": 16,
                "stages": [1, 1, 2, 1],
                "global_att_blocks": [3],
                "window_pos_embed_bkg_spatial_size": [4, 4],
            },
            "neck": {
                "d_model": DIM,
                "backbone_channel_list": [128, 64, 32, 16],
                "position_encoding": {"num_pos_feats": DIM},
            },
        },
        "memory_attention": {
            "d_model": DIM,
            "num_layers": memory_layers,
            "layer": {
                "d_model": DIM,
                "dim_feedforward": 32,
                "self_attention": attention,
                "cross_attention": {**attention, "kv_in_dim": MEMORY},
            },
        },
        "memory_encoder": {
            "in_dim": DIM,
            "out_dim": MEMORY,
            "position_encoding": {"num_pos_feats": MEMORY},
            "mask_downsampler": {"embed_dim": DIM},
            "fuser": {"layer": {"dim": DIM}},
        },
    }
    model = instantiate(OmegaConf.merge(base, changes), _recursive_=True)
    return Sam2(name="tiny", model=model, image_size=image_size).eval()
