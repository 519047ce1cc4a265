"""A case's network, its latents, and the method with the case's settings."""

import torch
from einops import rearrange
from torch import Tensor

from assd.data.pairs import Footage
from assd.diffusion.features import Features, FeatureStore
from assd.methods.tokenflow import TokenFlow
from tests.parity.network import TableModel, tiny_unet
from tests.parity.points import Case

EXACT, LAYERS, UNET, LATER, FINAL = 1e-6, 1e-5, 2e-5, 1e-4, 2e-4  # of the largest magnitude, as case.json suggests
SOURCE, NEGATIVE, TARGET = "source", "negative", "target"
PROMPT_KEYS = {SOURCE: ("in.emb_inversion", 1), NEGATIVE: ("in.emb_negative", 2), TARGET: ("in.emb_target", 3)}
PUBLISHED_BLEND = dict(neighbours="previous", weighting="sigmoid", distance="batch_centre")
PUBLISHED = dict(start="renoised", sdedit_slice="truncated", network_time="target", **PUBLISHED_BLEND)
WATCHED_BLOCK = "up_blocks.2.attentions.1.transformer_blocks.0"


class RecordingModel(TableModel):
    """The tiny network on the case's latents; what it predicts is kept, and what goes into one layer and comes out."""

    def __init__(self, case: Case):
        super().__init__(
            unet=tiny_unet(case.seed),
            prompts={prompt: case.tensor(name) for prompt, (name, _) in PROMPT_KEYS.items()},
            encoder=lambda frames: source_latents(case)[:, : len(frames)],
            decoder=lambda Z: torch.zeros(Z.shape[1], 3, 1, 1),
        )
        self.predictions: list[Tensor] = []
        self.features = Features(self.unet, tuple(f"{WATCHED_BLOCK}.{x}" for x in ("norm1", "attn1")), FeatureStore())

    def predict(self, z_t: Tensor, t: int, embeddings: Tensor) -> Tensor:
        """As ever."""
        with self.features.tapped(len(self.predictions)):
            self.predictions.append(super().predict(z_t, t, embeddings))
        return self.predictions[-1]


def source_latents(case: Case) -> Tensor:
    """(c f h w), frames that are not edited included."""
    return rearrange(case.tensor("in.x0"), "f c h w -> c f h w")


def editor(case: Case, model: TableModel, variant: str, **changes: object) -> TokenFlow:
    """As published, with the case's settings."""
    s = case.settings
    settings = dict(
        model=model, num_frames=s["f_used"], height=8 * s["h"], width=8 * s["w"], seed=0, variant=variant,
        guidance_scale=s["guidance_scale"], negative_prompt=NEGATIVE, inversion_steps=s["n_inversion_steps"],
        sampling_steps=s["n_timesteps"], batch_size=s["batch_size"], pnp_attn_t=s["pnp_attn_t"], pnp_f_t=s["pnp_f_t"],
        sdedit_start=s["sdedit_start"], keyframe_offsets=case[f"in.keyframe_offsets_{variant}"].tolist(),
        checkpoint_every=1, checkpoint_seconds=1e9, **PUBLISHED,
    )  # fmt: skip
    return TokenFlow(**{**settings, **changes})


def footage(frames: int) -> Footage:
    """Of so many frames; their pixels don't matter."""
    return Footage(torch.zeros(frames, 3, 1, 1), fps=8.0)


def by_frame(Z: Tensor) -> Tensor:
    """As the authors order it."""
    return rearrange(Z, "c f h w -> f c h w")
