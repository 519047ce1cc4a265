"""Classifier-free guidance."""

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance

from assd.diffusion.guidance import check_scale, guided_noise, guided_prediction
from assd.diffusion.schedule import to_noise
from assd.errors import InputError
from tests.fakes import FakeModel

SHAPE = (2, 4, 3, 5, 5)  # two branches of c f h w
RNG = torch.Generator().manual_seed(0)
UNCONDITIONAL = 1e4 * torch.randn(SHAPE, generator=RNG)  # far apart, so that u + (c - u) is not c in floating point
CONDITIONAL = torch.randn(SHAPE, generator=RNG)
NOTHING = torch.zeros(SHAPE)
PROMPTS = ("a red circle moving right over snow", "a blue star moving right over snow")


def two_predictions(z, t, prompts):
    """UNCONDITIONAL for empty prompts and CONDITIONAL for any other."""
    parts = [(CONDITIONAL if prompt else UNCONDITIONAL)[i % 2] for i, prompt in enumerate(prompts)]
    return torch.stack(parts)


MODEL = FakeModel(predict=two_predictions)


@pytest.mark.parametrize("guided", [guided_noise, guided_prediction])
@pytest.mark.parametrize("w, expected", [(1.0, CONDITIONAL), (0.0, UNCONDITIONAL)])
def test_weights_one_and_zero_are_exact(guided, w, expected):
    """w = 1 is the conditional prediction and w = 0 the unconditional one, bit for bit."""
    assert torch.equal(guided(MODEL, NOTHING, 500, PROMPTS, w), expected)


@pytest.mark.parametrize("w", [0.5, 2.0, 7.5])
def test_agrees_with_diffusers(w):
    """diffusers' native convention has the same w; its original one starts at the conditional: that scale is w - 1."""
    noise = guided_noise(MODEL, NOTHING, 500, PROMPTS, w)
    native = ClassifierFreeGuidance(guidance_scale=w)
    original = ClassifierFreeGuidance(guidance_scale=w - 1, use_original_formulation=True)
    for guider in (native, original):
        torch.testing.assert_close(noise, guider.forward(CONDITIONAL, UNCONDITIONAL)[0], rtol=1e-5, atol=0.02)


def test_each_branch_may_have_its_own_scale():
    """Scales (1, 0) are the conditional prediction of the first branch and the unconditional one of the second."""
    noise = guided_noise(MODEL, NOTHING, 500, PROMPTS, [1.0, 0.0])
    torch.testing.assert_close(noise, torch.stack([CONDITIONAL[0], UNCONDITIONAL[1]]))
    alike = guided_noise(MODEL, NOTHING, 500, PROMPTS, [7.5, 7.5])
    torch.testing.assert_close(alike, guided_noise(MODEL, NOTHING, 500, PROMPTS, 7.5))
    with pytest.raises(InputError, match="got 3 for 2 branches"):
        guided_noise(MODEL, NOTHING, 500, PROMPTS, [7.5, 7.5, 7.5])


def test_guidance_leads_away_from_the_negative_prompt():
    """eps(n) + w (eps(y) - eps(n)), here 5 + 2 (3 - 5) = 1; the empty prompt is not asked for."""
    value = {"blurry": 5.0, "a cat": 3.0}

    def predict(z, t, prompts):
        return torch.tensor([value[prompt] for prompt in prompts])[:, None, None, None, None].expand_as(z)

    z = torch.zeros(1, 4, 3, 5, 5)
    for guided in (guided_noise, guided_prediction):
        assert guided(FakeModel(predict=predict), z, 500, ("a cat",), 2.0, negative="blurry").unique().tolist() == [1.0]


@pytest.mark.parametrize("scale", [-0.1, [7.5, -1.0], float("nan")])
def test_negative_scales_are_refused(scale):
    """A scale below 0 leads away from the prompt: refused by name, of one branch too."""
    with pytest.raises(InputError, match="guidance_scale"):
        check_scale(scale)


def test_batch_is_half_by_branch():
    """The pass holds the empty prompt's half first, and in either half the branches in order: fusion relies on it."""
    seen = []
    model = FakeModel(predict=lambda z, t, prompts: seen.extend([prompts, z]) or z)
    z = torch.arange(2.0).reshape(2, 1, 1, 1, 1)
    guided_noise(model, z, 500, ("target", "source"), 7.5)
    assert seen[0] == ("", "", "target", "source")
    assert seen[1].flatten().tolist() == [0, 1, 0, 1]
    assert len(seen) == 2


def test_without_guidance_one_half_is_enough():
    """At w = 1 a sampler asks for the prompt alone, in one pass of one half."""
    seen = []
    model = FakeModel(predict=lambda z, t, prompts: seen.append(prompts) or z)
    guided_prediction(model, NOTHING, 500, PROMPTS, 1.0)
    assert seen == [PROMPTS]


def test_noise_and_prediction_are_guided_alike(tiny_video_model):
    """At one latent and t the noise is affine in the prediction: guiding either is the same."""
    z = torch.randn((1, 6, 8, 16, 16), generator=torch.Generator().manual_seed(1))
    prediction = guided_prediction(tiny_video_model, z, 500, PROMPTS[:1], 3.0)
    noise = to_noise(tiny_video_model.prediction, prediction, z, tiny_video_model.schedule[500])
    torch.testing.assert_close(guided_noise(tiny_video_model, z, 500, PROMPTS[:1], 3.0), noise, rtol=1e-4, atol=1e-4)


def test_one_pass_is_separate_passes(tiny_video_model):
    """Branches in one batch get what each gets alone: nothing leaks between branches or guidance halves."""
    z = torch.randn((2, 6, 8, 16, 16), generator=torch.Generator().manual_seed(1))
    together = guided_noise(tiny_video_model, z, 500, PROMPTS, 7.5)
    for i, prompt in enumerate(PROMPTS):
        unconditional, conditional = (
            guided_noise(tiny_video_model, z[i : i + 1], 500, (text,), 1.0)[0] for text in ("", prompt)
        )
        separate = unconditional + 7.5 * (conditional - unconditional)
        assert not torch.allclose(conditional, unconditional, atol=1e-3)
        torch.testing.assert_close(together[i], separate, rtol=1e-4, atol=1e-4)
