"""The tiny network of the recorded cases: Stable Diffusion 1.x's topology, and weights that are a formula."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from assd.models.unet import LatentDiffusion

UNET = dict(
    sample_size=64,
    in_channels=4,
    out_channels=4,
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 64, 64, 64),
    layers_per_block=2,
    attention_head_dim=8,
    cross_attention_dim=32,
    norm_num_groups=32,
)
SCHEDULER = dict(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    set_alpha_to_one=False,
    steps_offset=1,
    prediction_type="epsilon",
)

NO_TEXT = dict(vocab_size=2, bos_token_id=0, eos_token_id=1, hidden_size=2, intermediate_size=2, num_hidden_layers=1,
               num_attention_heads=1)  # fmt: skip


class TableModel(LatentDiffusion):
    """A model whose prompts are looked up in a table, and whose autoencoder, where it has one, is given.

    prompts  prompt -> embedding (1, l, d)
    encoder, decoder  stand for `encode` and `decode`
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        prompts: Mapping[str, Tensor],
        encoder: Callable[[Tensor], Tensor] | None = None,
        decoder: Callable[[Tensor], Tensor] | None = None,
    ):
        self.prompts = prompts
        super().__init__(
            unet=unet,
            vae=None,
            vae_config={"scaling_factor": 0.18215},
            text_encoder=CLIPTextModel(CLIPTextConfig(**NO_TEXT)),
            tokenizer=PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel())),
            scheduler=DDIMScheduler(**SCHEDULER),
        )
        if encoder is not None:
            self.encode = encoder
        if decoder is not None:
            self.decode = decoder

    def embed(self, prompts: tuple[str, ...]) -> Tensor:
        """The table's rows."""
        return torch.cat([self.prompts[prompt] for prompt in prompts])

    def check_prompt(self, prompt: str) -> None:
        """Any prompt of the table is good."""


def tiny_unet(seed: int, **changes: Any) -> UNet2DConditionModel:
    """The tiny U-Net, its weights set by the formula; `changes` to its configuration."""
    unet = UNet2DConditionModel(**{**UNET, **changes})
    set_weights(unet, seed)
    return unet.eval().requires_grad_(False)


@torch.no_grad()
def set_weights(module: nn.Module, seed: int, prefix: str = "") -> None:
    """Sets every parameter of a module by the formula, under its name behind the prefix."""
    for name, parameter in module.named_parameters():
        parameter.copy_(weight(prefix + name, tuple(parameter.shape), seed))


def weight(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The formula: biases 0.05 x, other vectors 1 + 0.1 x, the rest x / sqrt(fan in), where x ~ N(0, 1)."""
    x = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape)
    if name.endswith("bias"):
        x = 0.05 * x
    elif len(shape) == 1:
        x = 1 + 0.1 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(x.astype(np.float32))
