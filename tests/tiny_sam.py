"""A SAM small enough for the tests, built from the package's own classes at SAM's real input size."""

from functools import partial

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

SIZE, GRID, DIM = 1024, 64, 32


def build_tiny_sam(seed: int = 0) -> Sam:
    """Two blocks, one windowed and one global, 32 channels; every weight random, those that SAM starts at zero too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ImageEncoderViT(
            depth=2,
            embed_dim=16,
            img_size=SIZE,
            num_heads=2,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            global_attn_indexes=(1,),
            window_size=14,
            out_chans=DIM,
        )
        prompts = PromptEncoder(DIM, image_embedding_size=(GRID, GRID), input_image_size=(SIZE, SIZE), mask_in_chans=16)
        decoder = MaskDecoder(
            transformer_dim=DIM,
            transformer=TwoWayTransformer(depth=2, embedding_dim=DIM, mlp_dim=64, num_heads=4),
            iou_head_hidden_dim=32,
        )
        model = Sam(encoder, prompts, decoder)
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()
