"""A text-to-image model of random weights, as small as diffusers has them, in the layout that it loads."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

_LETTERS = [chr(code) for code in range(33, 127)]
_START, _END = "<|startoftext|>", "<|endoftext|>"


def save_tiny_painter(folder: Path) -> None:
    """Write the model: pictures of 8 × 8 pixels, made of noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

        torch.manual_seed(0)
        words = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), _START, _END]
        known = {word: index for index, word in enumerate(words)}
        config = CLIPTextConfig(
            vocab_size=len(known), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=known[_START], eos_token_id=known[_END], pad_token_id=known[_END],
        )  # fmt: skip
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",), block_out_channels=(8,), layers_per_block=1, norm_num_groups=4,
            cross_attention_dim=16, attention_head_dim=4,
        )  # fmt: skip
        StableDiffusionPipeline(
            vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=16, latent_channels=4),
            text_encoder=CLIPTextModel(config),
            tokenizer=CLIPTokenizer(vocab=known, merges=[], model_max_length=16),
            unet=unet,
            scheduler=DDIMScheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
