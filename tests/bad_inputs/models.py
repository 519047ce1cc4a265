"""Models that can't be loaded."""

from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.given import SHAPES
from tests.bad_inputs.making import Maker, both, cut, file, hostile, model, model_says, model_with, remove

LAYOUT = "a folder in diffusers' layout"


def bad_model(thing: str, remedy: str, make: Maker) -> BadInput:
    """A model that is refused before anything is edited."""
    return BadInput(make=make, command=SHAPES + "model.path={here}/model", thing=thing, remedy=remedy)


def bin_alone(here) -> None:
    """Weights as a pickle, which loads code, and no safetensors beside it."""
    model(here)
    weights = here / "model" / "video_text_encoder"
    (weights / "model.safetensors").unlink()
    (weights / "pytorch_model.bin").write_bytes(hostile(here))


MODELS = {
    "no folder": bad_model("{here}/model", "there is no such folder", lambda here: None),
    "an empty folder": bad_model("{here}/model", LAYOUT, lambda here: (here / "model").mkdir()),
    "a file": bad_model("{here}/model", "there is no such folder", file("model", "no folder")),
    "no tokenizer": bad_model("{here}/model", "tokenizer/", both(model, remove("model/tokenizer"))),
    "a tokenizer that is no JSON": bad_model("{here}/model", LAYOUT, model_with("tokenizer/tokenizer.json", "{")),
    "a text encoder cut off": bad_model(
        "{here}/model", "again", both(model, cut("model/video_text_encoder/model.safetensors", 0.5))
    ),
    "a U-Net cut off": bad_model(
        "{here}/model", "again", both(model, cut("model/video_unet/diffusion_pytorch_model.safetensors", 0.5))
    ),
    "an autoencoder of no bytes": bad_model(
        "{here}/model", "again", model_with("vae/diffusion_pytorch_model.safetensors", "")
    ),
    "weights that are a pickle": bad_model("{here}/model", "safetensors", bin_alone),
    "a U-Net's configuration that is no JSON": bad_model(
        "{here}/model", LAYOUT, model_with("video_unet/config.json", "{")
    ),
    "a U-Net of another size than its weights": bad_model(
        "{here}/model", LAYOUT, model_says("video_unet/config.json", cross_attention_dim=24)
    ),
    "a U-Net of a class that is none": bad_model(
        "{here}/model", LAYOUT, model_says("video_unet/config.json", _class_name="Popen")
    ),
    "an unknown beta_schedule": bad_model(
        "beta_schedule", "scaled_linear", model_says("scheduler/scheduler_config.json", beta_schedule="nope")
    ),
    "an unknown prediction_type": bad_model(
        "prediction_type", "epsilon", model_says("scheduler/scheduler_config.json", prediction_type="nope")
    ),
    "an unknown timestep_spacing": bad_model(
        "timestep_spacing", "leading", model_says("scheduler/scheduler_config.json", timestep_spacing="nope")
    ),
    "timesteps in words": bad_model(
        "{here}/model", LAYOUT, model_says("scheduler/scheduler_config.json", num_train_timesteps="many")
    ),
}
