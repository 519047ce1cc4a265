"""Tune-A-Video: what is trained and towards what, and that the model which many edits share comes out as it went in."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from assd.data.pairs import Footage
from assd.diffusion.draw import Draw
from assd.diffusion.schedule import joined
from assd.errors import DivergedError, InputError
from assd.methods.method import Method, Request
from assd.methods.tune_a_video import TuneAVideo, Tuning, inflated
from assd.methods.tune_a_video.tuning import denoising_loss
from tests.parity.network import TableModel, tiny_unet

SMALL = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 32),
    layers_per_block=1,
)
FRAMES, TUNING, INVERSION, SAMPLING = 3, 3, 2, 2
DOG, CAT, FOX = "a dog", "a cat", "a fox"


class CountingModel(TableModel):
    """A random U-Net of two levels; means over squares of pixels are its latents."""

    def __init__(self):
        prompts = dict(zip(("", DOG, CAT, FOX), torch.randn(4, 1, 5, 32, generator=torch.manual_seed(7))))
        super().__init__(tiny_unet(1, **SMALL), prompts, encoder=pooled, decoder=enlarged)
        self.passes = 0

    def predict(self, z_t, t, embeddings):
        self.passes += 1
        return super().predict(z_t, t, embeddings)


def pooled(frames):
    return rearrange(F.avg_pool2d(frames, 8)[:, [0, 1, 2, 0]], "f c h w -> c f h w")


def enlarged(Z):
    return F.interpolate(rearrange(Z[:3], "c f h w -> f c h w"), scale_factor=8)


@pytest.fixture(scope="module")
def model():
    return CountingModel()


@pytest.fixture(scope="module")
def footage():
    return Footage(torch.rand(FRAMES, 3, 64, 32, generator=torch.manual_seed(0)) * 2 - 1, fps=8.0)


def tuning(**changes):
    settings = dict(
        steps=TUNING, learning_rate=1e-3, weight_decay=1e-2, max_gradient_norm=1.0, train_down_path=False,
        temporal_bias="random", gradient_checkpointing=False,
    )  # fmt: skip
    return Tuning(**{**settings, **changes})


@pytest.fixture
def editor(model):
    """Makes an editor; a keyword is an argument that differs."""

    def make(**changes):
        settings = dict(
            model=model, tuning=tuning(), num_frames=FRAMES, height=64, width=32, seed=3, inversion_steps=INVERSION,
            sampling_steps=SAMPLING, guidance_scale=4.0, negative_prompt="", network_time="target", checkpoint_every=1,
            checkpoint_seconds=1e9,
        )  # fmt: skip
        return TuneAVideo(**{**settings, **changes})

    return make


def test_edits_share_tuning_and_inversion_and_are_those_of_separate_calls(editor, model, footage):
    model.passes = 0
    both = editor()(footage, DOG, [Request(CAT), Request(FOX)], "clip")
    assert model.passes == TUNING + INVERSION + 2 * SAMPLING
    for edit, target in zip(both, (CAT, FOX)):
        (alone,) = editor()(footage, DOG, [Request(target)], "clip")
        torch.testing.assert_close(edit.latents["Z"], alone.latents["Z"])
    assert not torch.allclose(both[0].latents["Z"], both[1].latents["Z"], atol=0.1)


def test_an_edit_resumed_at_any_step_has_the_same_bits(editor, footage):
    checkpoints = [[], []]

    def keep(i):
        return lambda checkpoint, _: checkpoints[i].append(
            {name: value.clone() if torch.is_tensor(value) else value for name, value in checkpoint.items()}
        )

    whole = editor()(footage, DOG, [Request(CAT, checkpoint=keep(0)), Request(FOX, checkpoint=keep(1))], "clip")
    assert [kept["step"] for kept in checkpoints[0]] == list(range(1, editor().num_steps + 1))
    for of_cat, of_fox in zip(*checkpoints):
        resumed = editor()(footage, DOG, [Request(CAT, resume=of_cat), Request(FOX, resume=of_fox)], "clip")
        for edit, expected in zip(resumed, whole):
            assert torch.equal(edit.latents["Z"], expected.latents["Z"]), f"resumed after step {of_cat['step']}"


def test_the_model_is_not_changed_even_after_an_error(editor, model, footage):
    parameters, values = dict(model.network.named_parameters()), model.network.state_dict()
    values = {name: value.clone() for name, value in values.items()}

    def fail(checkpoint, curves):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        checkpointed = replace(tuning(), gradient_checkpointing=True)
        editor(tuning=checkpointed)(footage, DOG, [Request(CAT, checkpoint=fail)], "clip")
    editor()(footage, DOG, [Request(CAT)], "clip")
    assert all(parameter is parameters[name] for name, parameter in model.network.named_parameters())
    assert all(torch.equal(value, values[name]) for name, value in model.network.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert not model.network.is_gradient_checkpointing


@pytest.mark.parametrize("train_down_path, blocks", [(True, 4), (False, 3)])
def test_queries_and_temporal_attention_are_trained(model, train_down_path, blocks):
    some = tuning(train_down_path=train_down_path)
    weights = some.weights(model, (0, "clip"), {})
    asked = {name for group in some.optimizer(weights, {}).param_groups for name in named(group["params"], weights)}
    ends = ("attn1.to_q.weight", "attn2.to_q.weight", *(f"attn_temp.to_{x}.weight" for x in ("q", "k", "v", "out.0")),
            "attn_temp.to_out.0.bias")  # fmt: skip
    assert {end: sum(name.endswith(end) for name in asked) for end in ends} == dict.fromkeys(ends, blocks)
    assert len(asked) == len(ends) * blocks


def named(parameters, weights):
    return [name for name, weight in weights.items() if any(weight is parameter for parameter in parameters)]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_loss_is_the_error_of_what_the_network_was_trained_to_predict(kind):
    Z, eps = torch.randn(2, 4, FRAMES, 8, 4)

    class Oracle(CountingModel):
        def predict(self, z_t, t, embeddings):
            level = self.schedule[t]
            torch.testing.assert_close(z_t[0], level.alpha * Z + level.sigma * eps)
            return joined(kind, Z, eps, level)[None] + 0.5

    oracle = Oracle()
    oracle.prediction = kind
    assert float(denoising_loss(oracle, Z, DOG, Draw(400, eps))) == pytest.approx(0.25)


def test_the_loss_is_in_the_curve(editor, footage):
    curve = []
    request = Request(CAT, checkpoint=lambda _, points: curve.extend(points))
    editor(tuning=tuning(steps=1), inversion_steps=0)(footage, DOG, [request], "clip")
    assert set(curve[0]) >= {"step", "t", "loss", "gradient_norm"}


def test_checkpointing_the_activations_gives_the_same_gradients(model):
    Z, draw = torch.randn(4, FRAMES, 8, 4), Draw(400, torch.randn(4, FRAMES, 8, 4))
    told = []
    for wanted in (False, True):
        some = tuning(gradient_checkpointing=wanted, train_down_path=True)
        weights = some.weights(model, (0, "clip"), {})
        optimizer = some.optimizer(weights, {})
        with inflated(model, weights, FRAMES):
            (model.network.enable_gradient_checkpointing if wanted else model.network.disable_gradient_checkpointing)()
            told.append(some.descend(model, optimizer, Z, DOG, draw))
    model.network.disable_gradient_checkpointing()
    torch.testing.assert_close(told[0], told[1])


def test_tuning_that_diverges_says_where_and_what_to_change(editor, footage):
    with pytest.raises(DivergedError, match=r"clip 'clip'.* is (nan|inf) at step \d, t = \d+\..*tuning.learning_rate"):
        editor(tuning=tuning(learning_rate=1e30))(footage, DOG, [Request(CAT)], "clip")


def test_without_inversion_sampling_starts_from_the_clips_noise(editor, footage):
    noise = [editor(inversion_steps=0).start(torch.zeros(4, FRAMES, 8, 4), clip) for clip in ("a", "a", "b")]
    assert torch.equal(noise[0], noise[1])
    assert not torch.allclose(noise[0], noise[2])
    assert editor(inversion_steps=0).num_steps == TUNING + SAMPLING


def test_of_a_bfloat16_network_the_tuned_weights_move_in_float32():
    model = CountingModel()
    model.network.to(torch.bfloat16)
    model.prompts = {prompt: embedding.bfloat16() for prompt, embedding in model.prompts.items()}
    some, Z = tuning(learning_rate=1e-2), torch.randn(4, FRAMES, 8, 4)
    weights = some.weights(model, (0, "clip"), {})
    optimizer = some.optimizer(weights, {})
    draw = Draw(400, torch.randn(4, FRAMES, 8, 4))
    with inflated(model, weights, FRAMES):
        losses = [some.descend(model, optimizer, Z, DOG, draw)["loss"] for _ in range(4)]
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    assert losses[-1] < losses[0] - 0.01  # autocast does not go on with the weights of the first step


def test_what_cannot_be_tuned_is_refused(editor, model):
    with pytest.raises(InputError, match="float32 or bfloat16"):
        half = CountingModel()
        half.network.to(torch.float16)
        editor(model=half)
    with pytest.raises(InputError, match="text-to-image U-Net"):
        other = CountingModel()
        other.unet = nn.Linear(1, 1)
        editor(model=other)
    with pytest.raises(InputError, match="temporal_bias must be one of random, zero; got 'none'"):
        tuning(temporal_bias="none")
    assert isinstance(editor(), Method)
