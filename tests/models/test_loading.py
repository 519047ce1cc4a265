"""Where models come from: folders in diffusers' layout, and what is said where one cannot be read."""

import pytest
import torch
from diffusers import UNet3DConditionModel

from assd.data.pairs import Canvas
from assd.device import resolve_device
from assd.errors import InputError
from assd.models import load
from assd.shapes import networks

VIDEO = torch.randn((2, 6, 8, 16, 16), generator=torch.Generator().manual_seed(0))
PROMPTS = ("a red circle moving right over snow", "")
SIZE = dict(height=64, width=64, num_frames=8)


@pytest.fixture(scope="module")
def saved_model(tiny_video_model, tmp_path_factory):
    """A folder in diffusers' layout, written by `save_pretrained`."""
    folder = tmp_path_factory.mktemp("model")
    tiny_video_model.unet.save_pretrained(folder / "unet")
    tiny_video_model.vae.save_pretrained(folder / "vae")
    tiny_video_model.text_encoder.save_pretrained(folder / "text_encoder")
    tiny_video_model.tokenizer.save_pretrained(folder / "tokenizer")
    networks.scheduler().save_pretrained(folder / "scheduler")
    return folder


def test_saved_model_loads_and_predicts_the_same(tiny_video_model, saved_model):
    """What `save_pretrained` wrote is what `from_pretrained` reads: all five parts, to the last bit."""
    loaded = load(str(saved_model), device="cpu", **SIZE)
    embeddings = loaded.embed(PROMPTS)
    assert isinstance(loaded.unet, UNet3DConditionModel)
    assert torch.equal(embeddings, tiny_video_model.embed(PROMPTS))
    assert loaded.schedule.agrees_with(tiny_video_model.schedule)
    assert loaded.latents == tiny_video_model.latents
    assert torch.equal(loaded.decode(VIDEO[0]), tiny_video_model.decode(VIDEO[0]))
    prediction = loaded.predict(VIDEO, 500, embeddings)
    assert torch.equal(prediction, tiny_video_model.predict(VIDEO, 500, embeddings))
    assert loaded.canvas == Canvas(8, 64, 64)


def test_same_arguments_same_model(saved_model):
    """A model that several components name is held once, and another precision is another model."""
    first = load(str(saved_model), device="cpu", **SIZE)
    half = load(str(saved_model), device="cpu", dtype="float16", **SIZE)
    assert load(str(saved_model), device="cpu", **SIZE) is first
    assert half is not first
    assert half.unet.dtype == torch.float16


def test_missing_folder_says_what_it_must_hold(tmp_path):
    """Not a traceback from the hub client, but the path and the layout that is expected there."""
    with pytest.raises(InputError) as error:
        load(str(tmp_path / "absent"), device="cpu", **SIZE)
    assert "absent" in str(error.value)
    for part in ("unet/", "vae/", "text_encoder/", "tokenizer/", "scheduler/"):
        assert part in str(error.value)


def test_missing_part_of_a_folder(saved_model, tmp_path):
    """A folder without one of its parts is refused the same way."""
    (tmp_path / "unet").symlink_to(saved_model / "unet")
    with pytest.raises(InputError, match="vae/, text_encoder/"):
        load(str(tmp_path), device="cpu", **SIZE)


def test_unknown_precision(saved_model):
    """A precision torch does not have is refused, by the argument's name."""
    with pytest.raises(InputError, match="dtype"):
        load(str(saved_model), dtype="float17", device="cpu", **SIZE)


@pytest.mark.parametrize("device", ["gpu", "cuda:first", ""])
def test_bad_device(device):
    """A device torch does not know is refused, by the argument's name."""
    with pytest.raises(InputError, match="device"):
        resolve_device(device)


def test_automatic_device():
    """`auto` is the GPU where there is one, else the CPU."""
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu").type == "cpu"
