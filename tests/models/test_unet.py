"""The model interface against diffusers' own, and what a model refuses."""

import logging
import types

import pytest
import torch
from diffusers import DDPMScheduler, UNet3DConditionModel

from assd.errors import InputError
from assd.models import LatentDiffusion, load, resolve_device
from assd.shapes import networks

RNG = torch.Generator().manual_seed(0)
VIDEO = torch.randn((2, 6, 8, 16, 16), generator=RNG)  # two branches of c n h w
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


@pytest.mark.parametrize("t", [0, 50, 500, 999])
def test_add_noise_agrees_with_diffusers(tiny_video_model, t):
    """Eq. 1 under the model's schedule: square roots and the index of abar_t are diffusers'."""
    eps = torch.randn(VIDEO.shape, generator=torch.Generator().manual_seed(1))
    scheduler = DDPMScheduler.from_config(networks.scheduler().config)
    expected = scheduler.add_noise(VIDEO, eps, torch.tensor([t, t]))
    torch.testing.assert_close(tiny_video_model.add_noise(VIDEO, t, eps), expected, rtol=1e-5, atol=1e-5)


def test_branches_share_one_noise(tiny_video_model):
    """A noise without the branch axis is added to both branches."""
    eps = torch.randn(VIDEO.shape[1:], generator=torch.Generator().manual_seed(1))
    both = tiny_video_model.add_noise(VIDEO, 500, eps)
    assert all(torch.equal(both[i], tiny_video_model.add_noise(VIDEO[i], 500, eps)) for i in range(2))


def test_video_prediction_is_the_unets(tiny_video_model):
    """predict is the network's forward pass: right timestep, embeddings in order, no gradient."""
    model = tiny_video_model
    embeddings = model.embed(PROMPTS)
    prediction = model.predict(VIDEO, 321, embeddings)
    with torch.no_grad():
        assert torch.equal(prediction, model.unet(VIDEO, 321, embeddings).sample)
        assert not torch.allclose(prediction, model.unet(VIDEO, 321, embeddings.flip(0)).sample, atol=1e-3)


def test_image_prediction_is_the_unets(tiny_image_model):
    """The same interface on frames without a time axis."""
    frames, embeddings = VIDEO[:, :, 0], tiny_image_model.embed(PROMPTS)
    with torch.no_grad():
        expected = tiny_image_model.unet(frames, 321, embeddings).sample
    assert torch.equal(tiny_image_model.predict(frames, 321, embeddings), expected)


def test_models_are_frozen(tiny_video_model):
    """Nothing in a model asks for a gradient and dropout is off, or every step would keep the networks' graph."""
    modules = (tiny_video_model.unet, tiny_video_model.vae, tiny_video_model.text_encoder)
    assert not any(p.requires_grad for module in modules for p in module.parameters())
    assert not any(m.training for module in modules for m in module.modules())


@pytest.mark.parametrize("t", [0, 500, 949])
def test_v_prediction_is_converted_to_noise(fake_model, t):
    """A network that answers v = sqrt(abar) eps - sqrt(1 - abar) z gives back the eps that z_t was made with."""
    abar = torch.linspace(0.999, 0.005, 1000).double()
    z, eps = VIDEO
    v = abar[t].sqrt().float() * eps - (1 - abar[t]).sqrt().float() * z

    def unet(z_t, t, encoder_hidden_states):
        return types.SimpleNamespace(sample=v[None])

    unet.dtype = torch.float32
    model = fake_model(unet=unet, alphas_cumprod=abar, prediction_type="v_prediction")
    noise = model.predict_noise(model.add_noise(z, t, eps)[None], t, torch.zeros(1, 1, 1))
    torch.testing.assert_close(noise[0], eps, rtol=1e-5, atol=1e-5)


def test_other_prediction_types_are_refused(tiny_video_model):
    """A network trained to predict the sample can't be used as if it predicted noise."""
    m = tiny_video_model
    scheduler = DDPMScheduler(prediction_type="sample")
    parts = dict(unet=m.unet, vae=m.vae, text_encoder=m.text_encoder, tokenizer=m.tokenizer, scheduler=scheduler)
    with pytest.raises(InputError, match=r"prediction_type.*'sample'"):
        LatentDiffusion(**parts, **SIZE)


def test_encode_is_the_scaled_posterior_mean(tiny_video_model):
    """No sampling, and the scaling factor times, not divided; frames become the second axis."""
    frames = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        mean = tiny_video_model.vae.encode(frames).latent_dist.mean
    expected = (mean * tiny_video_model.vae.config.scaling_factor).transpose(0, 1)
    assert tiny_video_model.vae.config.scaling_factor != 1
    torch.testing.assert_close(tiny_video_model.encode(frames), expected, rtol=1e-4, atol=1e-5)


def test_encoding_in_chunks_keeps_the_order(tiny_video_model):
    """More frames than are encoded at once come back in their order, all of them."""
    frames = torch.rand((18, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * 2 - 1
    one_by_one = torch.cat([tiny_video_model.encode(frame[None]) for frame in frames], dim=1)
    torch.testing.assert_close(tiny_video_model.encode(frames), one_by_one, rtol=1e-4, atol=1e-5)


def test_decode_undoes_the_scaling(tiny_video_model):
    """The autoencoder decodes Z / scaling_factor, frame by frame in order, cut to [-1, 1]."""
    Z = VIDEO[0, :, :3]
    with torch.no_grad():
        decoded = tiny_video_model.vae.decode(Z.transpose(0, 1) / tiny_video_model.vae.config.scaling_factor).sample
    frames = tiny_video_model.decode(Z)
    torch.testing.assert_close(frames, decoded.clamp(-1, 1), rtol=1e-3, atol=1e-4)
    assert frames.std() > 1e-3


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt(tiny_video_model, prompt):
    """The empty prompt is the unconditional one: as a description it is refused."""
    with pytest.raises(InputError, match="prompt is empty"):
        tiny_video_model.check_prompt(prompt)


def test_known_prompt_passes_silently(tiny_video_model, caplog):
    """A caption of the embedded world is neither refused nor cut."""
    tiny_video_model.check_prompt(PROMPTS[0])
    assert not caplog.records


def test_unknown_words_are_listed(tiny_video_model):
    """Words the tokenizer lacks are named, the known among them are not, and the message has what there is instead."""
    with pytest.raises(InputError) as error:
        tiny_video_model.check_prompt("a beige hexagon moving right over snow")
    problem, known = str(error.value).split("Its words are:")
    assert "does not know 'beige', 'hexagon'." in problem
    assert set(known.strip().split(", ")) == set(networks.WORDS)


def test_long_prompt_warns_what_is_cut(tiny_video_model, caplog):
    """12 tokens hold 10 words: of 12 the last two, `over night`, are cut, and the warning names what is kept."""
    kept = "a red circle moving right over snow a blue star"
    with caplog.at_level(logging.WARNING, logger="assd"):
        tiny_video_model.check_prompt(kept)
        assert not caplog.records
        tiny_video_model.check_prompt(f"{kept} over night")
    assert f"everything after {kept!r} is cut" in caplog.text
    assert "14 tokens" in caplog.text
    assert "reads 12" in caplog.text


def test_saved_model_loads_and_predicts_the_same(tiny_video_model, saved_model):
    """What `save_pretrained` wrote is what `from_pretrained` reads: all five parts, to the last bit."""
    loaded = load(str(saved_model), device="cpu", **SIZE)
    embeddings = loaded.embed(PROMPTS)
    assert isinstance(loaded.unet, UNet3DConditionModel)
    assert torch.equal(embeddings, tiny_video_model.embed(PROMPTS))
    assert torch.equal(loaded.alphas_cumprod, tiny_video_model.alphas_cumprod)
    assert torch.equal(loaded.decode(VIDEO[0]), tiny_video_model.decode(VIDEO[0]))
    prediction = loaded.predict_noise(VIDEO, 500, embeddings)
    assert torch.equal(prediction, tiny_video_model.predict_noise(VIDEO, 500, embeddings))
    assert (loaded.height, loaded.width, loaded.num_frames) == (64, 64, 8)


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
