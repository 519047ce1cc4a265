"""Figure 5, what each model knows: `python -m experiments.figure5`.

The one-step prediction of Z_0 from Z_t, (Z_t - sqrt(1 - abar_t) eps^w) / sqrt(abar_t), by the text-to-video and by the
text-to-image model, at small and large t, of the source video under its own prompt. Writes figure5.png and figure5.csv
(PSNR to the source, dB).
"""

import itertools

import pandas as pd
import torch
from einops import rearrange
from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from assd import pictures
from assd.config import composed
from assd.draw import draw_step
from assd.errors import one_sentence
from assd.guidance import guided_noise
from assd.models import LatentDiffusion
from assd.video import to_bytes
from experiments.common import arguments, first_pairs, leave

TIMESTEPS = (100, 300, 500, 700, 900)
COLUMN = "PSNR to source (dB)"
GUIDANCE_SCALE = 1.0  # the conditional prediction itself


def predict_clean(
    model: LatentDiffusion, Z: Float[Tensor, "c n h w"], eps: Float[Tensor, "c n h w"], t: int, prompt: str
) -> Float[Tensor, "c n h w"]:
    """The one-step prediction of Z_0; a text-to-image model sees each frame alone."""
    Z_t = model.add_noise(Z, t, eps)
    if model.num_frames > 1:
        eps_hat = guided_noise(model, Z_t[None], t, (prompt,), GUIDANCE_SCALE)[0]
    else:
        frames = rearrange(Z_t, "c n h w -> n c h w")
        eps_hat = rearrange(
            guided_noise(model, frames, t, (prompt,) * len(frames), GUIDANCE_SCALE), "n c h w -> c n h w"
        )
    abar = model.alphas_cumprod[t].item()
    return (Z_t - (1 - abar) ** 0.5 * eps_hat) / abar**0.5


@one_sentence()
@torch.no_grad()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "figure5", pairs=1)
    cfg = composed(options.overrides)
    video_model: LatentDiffusion = instantiate(cfg.model)
    models = {"text-to-video": video_model, "text-to-image": instantiate(cfg.image_model)}
    records, sheets = [], []
    for pair, footage in first_pairs(cfg, options.pairs):
        Z = video_model.encode(footage.frames)
        eps = draw_step(cfg.seed, pair.clip, 0, Z, cfg.method.timesteps).eps
        rows = {"source": to_bytes(footage.frames)}
        for (name, model), t in itertools.product(models.items(), TIMESTEPS):
            frames = video_model.decode(predict_clean(model, Z, eps, t, pair.prompts.source))
            rows[f"{name}, t = {t}"] = to_bytes(frames)
            psnr = peak_signal_noise_ratio((frames + 1) / 2, (footage.frames + 1) / 2, data_range=1.0)
            records.append({"pair": pair.id, "model": name, "t": t, COLUMN: psnr.item()})
        sheets.append(pictures.sheet(pair.prompts, rows))
    table = pd.DataFrame(records)
    means = table.pivot_table(index="t", columns="model", values=COLUMN)
    leave(options.output, "figure5", sheets, table, means)


if __name__ == "__main__":
    main()
