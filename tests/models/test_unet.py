"""LatentDiffusion against diffusers' own, and what a model refuses."""

import logging
import types

import pytest
import torch
from diffusers import DDPMScheduler
from einops import rearrange

from assd.diffusion.model import LatentSpace
from assd.diffusion.schedule import to_noise
from assd.errors import InputError
from assd.models import LatentDiffusion
from assd.models.unet import latent_space
from assd.shapes import networks

RNG = torch.Generator().manual_seed(0)
VIDEO = torch.randn((2, 6, 8, 16, 16), generator=RNG)  # two branches of c f h w
PROMPTS = ("a red circle moving right over snow", "")


def parts_of(model, **changes):
    """The constructor's arguments of a model, some of them changed."""
    names = ("unet", "vae", "text_encoder", "tokenizer", "canvas")
    parts = {name: getattr(model, name) for name in names} | dict(vae_config=dict(model.vae.config))
    return parts | dict(scheduler=DDPMScheduler.from_config(networks.scheduler().config)) | changes


def test_the_schedule_is_the_schedulers(tiny_video_model):
    """alpha_t^2 is diffusers' abar_t."""
    abar = networks.scheduler().alphas_cumprod.double()
    assert torch.tensor(tiny_video_model.schedule.alphas).double().square().allclose(abar, atol=1e-6)
    assert tiny_video_model.prediction == "v_prediction"


def test_video_prediction_is_the_unets(tiny_video_model):
    """predict is the network's forward pass: right timestep, embeddings in order, no gradient."""
    model = tiny_video_model
    embeddings = model.embed(PROMPTS)
    prediction = model.predict(VIDEO, 321, embeddings)
    with torch.no_grad():
        assert torch.equal(prediction, model.unet(VIDEO, 321, embeddings).sample)
        assert not torch.allclose(prediction, model.unet(VIDEO, 321, embeddings.flip(0)).sample, atol=1e-3)


def test_image_prediction_is_the_unets(tiny_image_model):
    """A network that sees each frame alone is given them as a batch, each under its own video's prompt."""
    model = tiny_image_model
    frames = rearrange(VIDEO, "b c f h w -> (b f) c h w")
    embeddings = model.embed(PROMPTS)
    with torch.no_grad():
        expected = model.unet(frames, 321, torch.cat([embeddings[:1]] * 8 + [embeddings[1:]] * 8)).sample
    prediction = model.predict(VIDEO, 321, embeddings)
    assert torch.equal(rearrange(prediction, "b c f h w -> (b f) c h w"), expected)


def test_frames_of_an_image_model_do_not_see_each_other(tiny_image_model, tiny_video_model):
    """Another last frame changes the prediction of that frame alone; a video model's first frame notices."""
    other = VIDEO.clone()
    other[:, :, -1] += 1
    for model, sees_time in ((tiny_image_model, False), (tiny_video_model, True)):
        assert model.sees_time == sees_time
        first, second = (model.predict(z, 500, model.embed(PROMPTS))[:, :, 0] for z in (VIDEO, other))
        assert torch.allclose(first, second, atol=1e-5) != sees_time


def test_models_are_frozen(tiny_video_model):
    """Nothing in a model asks for a gradient and dropout is off, or every step would keep the networks' graph."""
    modules = (tiny_video_model.unet, tiny_video_model.vae, tiny_video_model.text_encoder)
    assert not any(p.requires_grad for module in modules for p in module.parameters())
    assert not any(m.training for module in modules for m in module.modules())


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [1, 500, 949])
def test_every_prediction_type_gives_back_the_noise(tiny_video_model, kind, t):
    """A network that answers in its own words what z_t was made of gives back the eps of it."""
    z, eps = VIDEO
    config = dict(networks.scheduler().config) | dict(prediction_type=kind)
    model = LatentDiffusion(**parts_of(tiny_video_model, scheduler=DDPMScheduler.from_config(config)))
    alpha, sigma = model.schedule[t]
    answer = {"epsilon": eps, "v_prediction": alpha * eps - sigma * z, "sample": z}[kind]
    unet = lambda z_t, t, encoder_hidden_states: types.SimpleNamespace(sample=answer[None])  # noqa: E731
    unet.dtype = torch.float32
    model.unet = unet
    z_t = model.schedule[t].add_noise(z, eps)[None]
    prediction = model.forward(z_t, t, torch.zeros(1, 1, 1))
    noise = to_noise(model.prediction, prediction, z_t, model.schedule[t])
    torch.testing.assert_close(noise[0], eps, rtol=1e-3, atol=1e-3)


def test_other_prediction_types_are_refused(tiny_video_model):
    """A network of which nobody knows what it predicts can't be used; flow is no U-Net's of diffusers."""
    scheduler = DDPMScheduler(prediction_type="flow")
    with pytest.raises(InputError, match=r"prediction_type.*'flow'"):
        LatentDiffusion(**parts_of(tiny_video_model, scheduler=scheduler))


def test_latent_statistics_are_the_autoencoders():
    """One factor and shift as Stable Diffusion's and FLUX's state them, or a mean and a deviation a channel."""
    assert latent_space(4, {"scaling_factor": 0.18215}) == LatentSpace(4, 0.18215, 0.0)
    assert latent_space(4, {"scaling_factor": 0.36, "shift_factor": 0.11}) == LatentSpace(4, 0.36, 0.11)
    raw = torch.ones(4, 1, 2, 2)
    assert torch.equal(latent_space(4, {"scaling_factor": 1}).normalised(raw), raw)  # as JSON has a whole number
    per_channel = {"scaling_factor": 1.0, "latents_mean": [0.5, -1.0], "latents_std": [2.0, 4.0]}
    raw = torch.randn(2, 3, 4, 4)
    normalised = latent_space(2, per_channel).normalised(raw)
    torch.testing.assert_close(normalised[0], (raw[0] - 0.5) / 2)
    torch.testing.assert_close(normalised[1], (raw[1] + 1) / 4)


def test_a_model_without_autoencoder_says_so(tiny_video_model):
    """It predicts on another model's latents, whose statistics it knows, and neither encodes nor decodes."""
    model = LatentDiffusion(**parts_of(tiny_video_model, vae=None))
    assert model.latents == tiny_video_model.latents
    with pytest.raises(InputError, match="no autoencoder"):
        model.decode(VIDEO[0])


def test_encode_is_the_scaled_posterior_mean(tiny_video_model):
    """No sampling, and the scaling factor times, not divided; frames become the second axis."""
    frames = torch.rand((3, 3, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        mean = tiny_video_model.vae.encode(frames).latent_dist.mean
    expected = (mean * tiny_video_model.latents.scale).transpose(0, 1)
    assert tiny_video_model.latents.scale != 1
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
        decoded = tiny_video_model.vae.decode(Z.transpose(0, 1) / tiny_video_model.latents.scale).sample
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
