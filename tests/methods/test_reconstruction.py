"""The method that only reconstructs: what every other editor is measured against."""

import copy

import pytest
import torch

from assd.data.pairs import Footage
from assd.errors import DivergedError, InputError
from assd.methods.method import Method, Request
from assd.methods.reconstruction import Reconstruction
from tests.fakes import CANVAS, FakeModel, unused

Z_REF, EPS = (torch.randn((4, 3, 2, 5), generator=torch.Generator().manual_seed(i)) for i in range(2))
FOOTAGE = Footage(torch.zeros(3, 3, 8, 20), 8.0)
SOURCE = "a car"


def decode(Z):
    """Frames in which all that Z holds can be seen."""
    return Z.flatten()[: 3 * 3 * 8].reshape(3, 3, 8, 1).expand(3, 3, 8, 20).contiguous()


def predict(z, t, prompts):
    """Smooth, dependent on the latent, the time and the prompt."""
    return (0.2 * torch.tanh(z) + 0.1 * torch.cos(z * t / 300) + 0.01 * len(prompts[0])).float()


def method(inversion, predict=predict, sampling_steps=6, **options):
    """The method on a fake model."""
    model = FakeModel(encode=lambda frames: Z_REF.clone(), decode=decode, predict=predict)
    options = dict(network_time="target", checkpoint_every=1, checkpoint_seconds=1e9) | options
    return Reconstruction(model=model, inversion=inversion, sampling_steps=sampling_steps, **options)


def run(method, resume=None, targets=("a bus",), **kwargs):
    """The edits, and every checkpoint of the first request with its curves."""
    kept = []
    keep = Request(targets[0], {}, resume, lambda state, curves: kept.append((copy.deepcopy(state), curves)))
    others = [Request(target, {}, resume) for target in targets[1:]]
    return method(FOOTAGE, SOURCE, [keep, *others], "01-car", **kwargs), kept


def test_it_is_a_method():
    """Inversion and sampling are its steps, one without inversion; its canvas is the model's."""
    assert isinstance(method(True), Method)
    assert method(True).num_steps == 12
    assert method(False).num_steps == 1
    assert method(True).canvas == CANVAS


def test_without_inversion_it_is_the_autoencoder():
    """The frames are the decoded encoding, for every target the same, and the network is never asked."""
    advanced = []
    edits, _ = run(method(False, predict=unused), targets=("a bus", "a tram"), advance=advanced.append)
    for edit in edits:
        assert torch.equal(edit.frames, decode(Z_REF))
        assert torch.equal(edit.reconstruction, edit.frames)
        assert torch.equal(edit.latents["Z"], Z_REF)
    assert advanced == [1]


def test_with_inversion_constant_noise_comes_back():
    """A network that always says the same noise inverts and samples exactly."""
    (edit,), _ = run(method(True, predict=lambda z, t, prompts: EPS[None]))
    torch.testing.assert_close(edit.latents["Z"], Z_REF, rtol=1e-4, atol=1e-4)
    assert torch.equal(edit.latents["Z_ref"], Z_REF)


def test_inversion_costs_something():
    """A real network's round trip differs from the autoencoder, less with more steps; the reconstruction is without."""
    errors = []
    for sampling_steps in (6, 60):
        (edit,), _ = run(method(True, sampling_steps=sampling_steps))
        errors.append((edit.latents["Z"] - Z_REF).abs().mean().item())
        assert torch.equal(edit.reconstruction, decode(Z_REF))
        assert torch.equal(edit.frames, decode(edit.latents["Z"]))
    assert 0 < errors[1] < 0.5 * errors[0]


def test_the_network_is_asked_under_the_source_prompt_without_guidance():
    """Target prompts are not used, and no unconditional half is computed."""
    asked = []
    run(method(True, predict=lambda z, t, prompts: asked.append((tuple(z.shape), t, prompts)) or EPS[None]))
    assert {prompts for _, _, prompts in asked} == {(SOURCE,)}
    assert {shape[0] for shape, _, _ in asked} == {1}
    times = [t for _, t, _ in asked]
    assert times == sorted(times[:6]) + sorted(times[6:], reverse=True)


def test_the_time_of_the_network_matters():
    """Source and target are two methods, and end in two latents."""
    ends = [run(method(True, network_time=time))[0][0].latents["Z"] for time in ("source", "target")]
    assert not torch.allclose(*ends, atol=1e-4)


@pytest.mark.parametrize("stop", [0, 4, 5, 8, 11])
def test_resuming_gives_the_unbroken_run(stop):
    """From a checkpoint in the inversion, at its end, or in the sampling the rest has the same bits and curves."""
    (unbroken,), kept = run(method(True))
    (resumed,), later = run(method(True), resume=kept[stop][0])
    assert torch.equal(resumed.latents["Z"], unbroken.latents["Z"])
    assert [state["step"] for state, _ in kept] == list(range(1, 13))
    steps = [curve["step"] for _, curves in later for curve in curves]
    assert steps == list(range(stop + 1, 12))


def test_checkpoints_are_plain():
    """A step and a latent, and curves of plain numbers with the timestep."""
    _, kept = run(method(True))
    assert all(state.keys() == {"step", "Z"} for state, _ in kept)
    curves = [curve for _, part in kept for curve in part]
    assert all(type(curve["latent_norm"]) is float and type(curve["t"]) is int for curve in curves)


def test_a_network_that_breaks_is_named():
    """NaN ends with pair, quantity, step and t."""
    with pytest.raises(DivergedError, match=r"'01-car'.*latent norm is nan at step 0, t = "):
        run(method(True, predict=lambda z, t, prompts: z * float("nan")))


def test_the_source_prompt_is_checked_first():
    """A prompt that the model refuses costs no encoding; the target's is not read at all."""

    def check_prompt(prompt):
        if prompt == SOURCE:
            raise InputError("refused")

    model = FakeModel(check_prompt=check_prompt, encode=lambda frames: pytest.fail("the source was encoded"))
    options = dict(inversion=True, sampling_steps=2, network_time="target", checkpoint_every=1, checkpoint_seconds=1e9)
    with pytest.raises(InputError, match="refused"):
        run(Reconstruction(model=model, **options))


@pytest.mark.parametrize("name, value", [("sampling_steps", 0), ("checkpoint_every", 0), ("checkpoint_seconds", 0.0)])
def test_options_out_of_range(name, value):
    """What can't be run is refused when it is configured, by the argument's name."""
    with pytest.raises(InputError, match=name):
        method(True, **{name: value})


def test_a_video_model_survives_the_round_trip(tiny_video_model):
    """Through diffusers' own networks, v-prediction and a schedule that ends in pure noise it is finite."""
    reconstruct = Reconstruction(
        model=tiny_video_model, inversion=True, sampling_steps=2, network_time="source", checkpoint_every=9,
        checkpoint_seconds=1e9,
    )  # fmt: skip
    footage = Footage(torch.zeros(8, 3, 64, 64), 8.0)
    prompt = "a red circle moving right over snow"
    (edit,) = reconstruct(footage, prompt, [Request(prompt)], "01-car")
    assert edit.frames.shape == (8, 3, 64, 64)
    assert edit.frames.isfinite().all()
