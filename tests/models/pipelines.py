"""Small pipelines of the published models' classes, and how their repositories lay them out."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from assd.models.loading import clip_tokenizer

SIZE = dict(device="cpu", height=32, width=32, num_frames=4)
PROMPTS = ("a cat on grass", "a tiger on grass")


def text_encoder(width=32):
    """CLIP's text encoder with its real vocabulary, small."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=1,
            num_attention_heads=2, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )
    )  # fmt: skip


def autoencoder():
    """Stable Diffusion's classes and scaling factor, factor 8."""
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, norm_num_groups=4, scaling_factor=0.18215,
    )  # fmt: skip


SCHEDULE = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
UNET = dict(in_channels=4, out_channels=4, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
            cross_attention_dim=32)  # fmt: skip


def video_pipeline():
    """ModelScopeT2V's classes, small; its networks draw their weights from seed 0."""
    torch.manual_seed(0)
    unet = UNet3DConditionModel(
        **UNET,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
    )
    scheduler = DDIMScheduler(**SCHEDULE, clip_sample=False, set_alpha_to_one=False)
    return TextToVideoSDPipeline(autoencoder(), text_encoder(), clip_tokenizer(), unet, scheduler)


def image_pipeline(**schedule):
    """Stable Diffusion's classes, small."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        **UNET,
        attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    scheduler = PNDMScheduler(**SCHEDULE | schedule, skip_prk_steps=True, set_alpha_to_one=False)
    return StableDiffusionPipeline(
        autoencoder(), text_encoder(), clip_tokenizer(), unet, scheduler, None, None, requires_safety_checker=False
    )


def save_all(root: Path) -> Path:
    """All three as their repositories lay them out: fp16 variants, and Zeroscope's .bin files."""
    video_pipeline().to(torch.float16).save_pretrained(root / "modelscope", variant="fp16")
    image_pipeline().to(torch.float16).save_pretrained(root / "stable_diffusion", variant="fp16")
    video = video_pipeline()
    video.save_pretrained(root / "zeroscope")
    for name, network in {"unet": video.unet, "vae": video.vae}.items():
        (root / "zeroscope" / name / "diffusion_pytorch_model.safetensors").unlink()
        network.save_pretrained(root / "zeroscope" / name, safe_serialization=False)
        assert (root / "zeroscope" / name / "diffusion_pytorch_model.bin").is_file()
    return root


def overrides(saved, model):
    """What a user with local folders types, at a size that a CPU edits in seconds."""
    return [
        f"model={model}", f"model.path={saved / model}",
        f"image_model.path={saved / 'stable_diffusion'}", "model.dtype=float32", "image_model.dtype=float32",
        "device=cpu", "model.height=32", "model.width=32", "model.num_frames=4", "attention.layers=1",
    ]  # fmt: skip
