"""The embedded models' architectures: plain diffusers, transformers and open_clip classes at small size.

The video U-Net has ModelScopeT2V's blocks, the image U-Net Stable Diffusion's and more parameters; both share one
autoencoder, and each has a text encoder. Latents are 6 x 16 x 16 for frames of 64 x 64 pixels.
"""

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel, UNet3DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from assd.shapes.world import ATTRIBUTES, SIZE

WORDS = ("a", "an", "moving", "over", *(word for values in ATTRIBUTES.values() for word in values))
PAD, UNKNOWN, START, END = "<pad>", "<unknown>", "<start>", "<end>"
TOKENS = (PAD, UNKNOWN, START, *WORDS, END)  # <end> has the highest id: CLIP pools there
MAX_TOKENS = 12
TEXT_WIDTH = 64
LATENT_CHANNELS = 6

UNET = dict(
    sample_size=16,
    in_channels=LATENT_CHANNELS,
    out_channels=LATENT_CHANNELS,
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=TEXT_WIDTH,
)
IMAGE_WIDTHS = (64, 128, 128)
VIDEO_WIDTHS = (32, 64)
HEAD_WIDTH = 16


def tokenizer() -> PreTrainedTokenizerFast:
    """Whole words, lower case, the world's vocabulary; anything else becomes `<unknown>`."""
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS)}, unk_token=UNKNOWN))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(token, TOKENS.index(token)) for token in (START, END)],
    )
    special = dict(pad_token=PAD, unk_token=UNKNOWN, bos_token=START, eos_token=END)
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=MAX_TOKENS, **special)


def text_encoder() -> CLIPTextModel:
    """Two layers, 64 wide; trained together with the image U-Net."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(TOKENS),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            pad_token_id=TOKENS.index(PAD),
            bos_token_id=TOKENS.index(START),
            eos_token_id=TOKENS.index(END),
        )
    )


def autoencoder() -> AutoencoderKL:
    """Factor 4, no attention; training sets `scaling_factor` to 1 / std of its latents."""
    return AutoencoderKL(
        sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def image_unet(widths: tuple[int, ...] = IMAGE_WIDTHS) -> UNet2DConditionModel:
    """Attention at every size, 16 x 16, 8 x 8 and 4 x 4 for three widths."""
    return UNet2DConditionModel(
        **UNET,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        attention_head_dim=tuple(width // HEAD_WIDTH for width in widths),  # = heads
        use_linear_projection=True,
    )


def small_image_unet() -> UNet2DConditionModel:
    """What the video U-Net starts from: its widths, its linear projections and its heads."""
    return image_unet(VIDEO_WIDTHS)


def control_net(image_unet: UNet2DConditionModel) -> ControlNetModel:
    """The image U-Net's encoder again; it sees edges (3 x 64 x 64, from 0 to 1) through convolutions of factor 4."""
    return ControlNetModel.from_unet(image_unet, conditioning_embedding_out_channels=(16, 32, 64))


def video_unet(image_unet: UNet2DConditionModel | None = None) -> UNet3DConditionModel:
    """A 2-D U-Net of the same widths with temporal layers between; given one, it starts as that applied to each frame.

    Each temporal block adds its output to its input, so zeroing its last layer makes it the identity.
    """
    unet = UNet3DConditionModel(
        **UNET,
        block_out_channels=VIDEO_WIDTHS,
        down_block_types=("CrossAttnDownBlock3D",) * len(VIDEO_WIDTHS),
        up_block_types=("CrossAttnUpBlock3D",) * len(VIDEO_WIDTHS),
        attention_head_dim=HEAD_WIDTH,
    )
    if image_unet is not None:
        extra = unet.load_state_dict(image_unet.state_dict(), strict=False).unexpected_keys
        assert not extra, f"the video U-Net has no place for {extra}"
        for name, parameter in unet.named_parameters():
            if ("temp_attentions" in name or "transformer_in" in name) and ".proj_out." in name:
                torch.nn.init.zeros_(parameter)
    return unet


def scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, stretched to pure noise at t = 999 (Lin et al. 2024).

    Under the original one a clip can be read off its noisiest latents, and a caption hardly says anything more.
    """
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        rescale_betas_zero_snr=True,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )


def clip_config() -> dict:
    """open_clip configuration of the CLIP that scores this world; its tokenizer lies beside its weights."""
    return {
        "model_cfg": {
            "embed_dim": 64,
            "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 128, "head_width": 32, "patch_size": 8},
            "text_cfg": {
                "hf_tokenizer_name": "local",
                "context_length": MAX_TOKENS,
                "vocab_size": len(TOKENS),
                "width": TEXT_WIDTH,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": [SIZE, SIZE]},
    }
