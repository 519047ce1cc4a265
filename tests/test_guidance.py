"""Classifier-free guidance."""

import pytest
import torch
from diffusers.guiders import ClassifierFreeGuidance

from assd.guidance import guided_noise

SHAPE = (2, 4, 3, 5, 5)  # two branches of c n h w
RNG = torch.Generator().manual_seed(0)
UNCONDITIONAL = 1e4 * torch.randn(SHAPE, generator=RNG)  # far apart, so that u + (c - u) is not c in floating point
CONDITIONAL = torch.randn(SHAPE, generator=RNG)
PROMPTS = ("a red circle moving right over snow", "a blue star moving right over snow")


@pytest.fixture
def two_predictions(fake_model):
    """A model that predicts UNCONDITIONAL for empty prompts and CONDITIONAL for any other."""
    return fake_model(
        embed=lambda prompts: torch.tensor([float(prompt != "") for prompt in prompts]).reshape(-1, 1, 1),
        predict_noise=lambda z, t, y: torch.where(y.flatten().bool()[:, None, None, None, None], *both()),
    )


def both():
    """The predictions for a batch of twice the branches: the prompt's and the empty prompt's."""
    return torch.cat([CONDITIONAL] * 2), torch.cat([UNCONDITIONAL] * 2)


@pytest.mark.parametrize("w, expected", [(1.0, CONDITIONAL), (0.0, UNCONDITIONAL)])
def test_weights_one_and_zero_are_exact(two_predictions, w, expected):
    """w = 1 is the conditional prediction and w = 0 the unconditional one, bit for bit."""
    assert torch.equal(guided_noise(two_predictions, torch.zeros(SHAPE), 500, PROMPTS, w), expected)


@pytest.mark.parametrize("w", [0.5, 2.0, 7.5])
def test_agrees_with_diffusers(two_predictions, w):
    """diffusers' native convention has the same w; its original one starts at the conditional: that scale is w - 1."""
    noise = guided_noise(two_predictions, torch.zeros(SHAPE), 500, PROMPTS, w)
    native = ClassifierFreeGuidance(guidance_scale=w)
    original = ClassifierFreeGuidance(guidance_scale=w - 1, use_original_formulation=True)
    for guider in (native, original):
        torch.testing.assert_close(noise, guider.forward(CONDITIONAL, UNCONDITIONAL)[0], rtol=1e-5, atol=0.02)


def test_batch_is_half_by_branch(fake_model):
    """The pass holds the empty prompt's half first, and in either half the branches in order: fusion relies on it."""
    seen = []
    model = fake_model(
        embed=lambda prompts: seen.append(prompts) or torch.zeros(len(prompts), 1, 1),
        predict_noise=lambda z, t, y: seen.append(z) or z,
    )
    z = torch.arange(2.0).reshape(2, 1, 1, 1, 1)
    guided_noise(model, z, 500, ("target", "source"), 7.5)
    assert seen[0] == ("", "", "target", "source")
    assert seen[1].flatten().tolist() == [0, 1, 0, 1]
    assert len(seen) == 2


def test_one_pass_is_separate_passes(tiny_video_model):
    """Branches in one batch get what each gets alone: nothing leaks between branches or guidance halves."""
    z = torch.randn((2, 6, 8, 16, 16), generator=torch.Generator().manual_seed(1))
    together = guided_noise(tiny_video_model, z, 500, PROMPTS, 7.5)
    for i, prompt in enumerate(PROMPTS):
        unconditional, conditional = (
            tiny_video_model.predict_noise(z[i : i + 1], 500, tiny_video_model.embed((text,)))[0]
            for text in ("", prompt)
        )
        separate = unconditional + 7.5 * (conditional - unconditional)
        assert not torch.allclose(conditional, unconditional, atol=1e-3)
        torch.testing.assert_close(together[i], separate, rtol=1e-4, atol=1e-4)
