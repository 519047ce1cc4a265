"""Figure 5, what each model knows: `python -m experiments.figure5`.

The one-step prediction of Z_0 from Z_t, (Z_t - sigma_t eps) / alpha_t, by the text-to-video and by the text-to-image
model, at small and large t, of the source video under its own prompt. Writes figure5.png and figure5.csv
(PSNR to the source, dB).
"""

import itertools

import pandas as pd
import torch
from hydra.utils import instantiate
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from assd.config import composed
from assd.data.video import to_bytes
from assd.diffusion.draw import draw_step
from assd.diffusion.guidance import guided_prediction
from assd.diffusion.model import Model
from assd.diffusion.schedule import split
from assd.errors import one_sentence
from assd.runs import pictures
from experiments.common import arguments, first_pairs, leave

TIMESTEPS = (100, 300, 500, 700, 900)
COLUMN = "PSNR to source (dB)"


def predict_clean(
    model: Model, Z: Float[Tensor, "c f h w"], eps: Float[Tensor, "c f h w"], t: int, prompt: str
) -> Float[Tensor, "c f h w"]:
    """The one-step prediction of Z_0, by the conditional prediction itself."""
    Z_t = model.schedule[t].add_noise(Z, eps)[None]
    return split(model.prediction, guided_prediction(model, Z_t, t, (prompt,), w=1), Z_t, model.schedule[t]).x0[0]


@one_sentence()
@torch.no_grad()
def main() -> None:
    """The command line."""
    options = arguments(__doc__, "figure5", pairs=1)
    cfg = composed(options.overrides)
    video_model: Model = instantiate(cfg.model)
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
