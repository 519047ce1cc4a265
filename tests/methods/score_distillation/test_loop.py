"""The optimisation loop, with a model that does nothing and losses that are functions."""

import contextlib
import copy
import functools
import math

import pytest
import torch

from assd.data.pairs import Footage
from assd.diffusion.draw import draw_step
from assd.diffusion.model import LatentSpace
from assd.errors import DivergedError, InputError
from assd.methods.method import Method, Request
from assd.methods.score_distillation import ScoreDistillation
from assd.methods.score_distillation.losses import Branches, Contribution, JointGuidance
from tests.fakes import CANVAS, FakeModel

SHAPE = (4, 3, 2, 5)  # c f h w, h and w unequal
Z_REF = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
FRAMES = torch.zeros(3, 3, 8, 20)
FOOTAGE = Footage(FRAMES, 8.0)
SOURCE, TARGET = "a car", "a bus"
SGD = functools.partial(torch.optim.SGD, lr=0.1)
ADAM = functools.partial(torch.optim.Adam, lr=0.1)
OPTIONS = dict(
    seed=0, num_steps=1, timesteps=(50, 949), gradient_scale="none", checkpoint_every=2, checkpoint_seconds=1e9
)


def distillation(model=None, optimizer=SGD, attention=lambda model, branches: contextlib.nullcontext(), **changes):
    """A `ScoreDistillation` whose model encodes any video to Z_REF and decodes a latent to its mean."""
    losses = {name: changes.pop(name) for name in tuple(changes) if name not in OPTIONS}
    return ScoreDistillation(model or still_model(), losses, attention, optimizer, **(OPTIONS | changes))


def still_model(**functions):
    """A model without networks."""
    encode, decode = (lambda frames: Z_REF.clone()), (lambda Z: Z.mean().expand(FRAMES.shape).contiguous())
    return FakeModel(**dict(encode=encode, decode=decode) | functions)


def constant(value):
    """A loss whose gradient is `value` everywhere."""
    return lambda branches, draw: Contribution(torch.full(branches.Z.shape, value))


def noisy(branches, draw):
    """A loss that depends on the latent, t and eps: nothing of a step can be wrong and stay unseen."""
    return Contribution(0.3 * (branches.Z - branches.Z_ref) + draw.eps * draw.t / 1000)


def run(method, resume=None, **kwargs):
    """Edits, and returns the edit with all checkpoints delivered: deep copies of them, and the curves."""
    states, curves = [], []

    def checkpoint(state, steps):
        states.append(copy.deepcopy(state))
        curves.append(steps)

    (edit,) = method(FOOTAGE, SOURCE, [Request(TARGET, {}, resume, checkpoint)], "01-car", **kwargs)
    return edit, states, curves


@pytest.mark.parametrize("gradient_scale, scale", [("none", 1), ("dds", 2000 / (2 * 5))])
def test_one_sgd_step(gradient_scale, scale):
    """Z - lr * scale * g with lr 0.1, downhill; the dds scale is 2000 / (h w) of the latent, not of pixels."""
    edit, _, _ = run(distillation(loss=noisy, gradient_scale=gradient_scale))
    draw = draw_step(0, "01-car", 0, Z_REF, (50, 949))
    expected = Z_REF - 0.1 * scale * noisy(Branches(torch.stack([Z_REF, Z_REF]), (TARGET, SOURCE)), draw).gradient[0]
    torch.testing.assert_close(edit.latents["Z"], expected)
    assert torch.equal(edit.latents["Z_ref"], Z_REF)


def test_gradients_of_components_are_summed():
    """Eq. 10: components add up, 1 + 2.5, in one step of 0.1: neither an average nor a step for each."""
    edit, _, curves = run(distillation(first=constant(1.0), second=constant(2.5)))
    torch.testing.assert_close(edit.latents["Z"], Z_REF - 0.35)
    assert curves[0][0]["gradient_norm"] == pytest.approx(3.5 * math.sqrt(4 * 3 * 2 * 5))


def test_components_of_a_step_see_the_same():
    """Every component is given the same latent and the same draw: none sees the step of another."""
    seen = []

    def watch(branches, draw):
        seen.append((branches.latents.clone(), branches.prompts, draw))
        return Contribution(torch.ones_like(branches.Z))

    run(distillation(first=watch, second=watch, num_steps=2))
    for (latents, prompts, draw), other in ((seen[0], seen[1]), (seen[2], seen[3])):
        assert torch.equal(latents, other[0])
        assert torch.equal(latents[-1], Z_REF)
        assert prompts == (TARGET, SOURCE)
        assert draw is other[2]
    assert not torch.equal(seen[0][2].eps, seen[2][2].eps)


def test_no_graph_is_built():
    """No tensor asks for a gradient, even where a loss uses trainable weights: a step keeps no activations."""
    weight, grads = torch.nn.Parameter(torch.tensor(2.0)), []

    def trainable(branches, draw):
        grads.append(weight * branches.Z)
        return Contribution(grads[-1])

    edit, states, _ = run(distillation(loss=trainable))
    kept = (*edit.latents.values(), edit.frames, states[0]["Z"], *grads)
    assert not any(tensor.requires_grad for tensor in kept)
    assert weight.grad is None


@pytest.mark.parametrize("optimizer", [SGD, functools.partial(SGD, momentum=0.9), ADAM])
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_resuming_gives_the_unbroken_run(optimizer, stop):
    """From any checkpoint the rest has the same bits: latent, optimizer's memory, step number and noise return."""
    method = distillation(loss=noisy, optimizer=optimizer, num_steps=7)
    unbroken, states, curves = run(method)
    resumed, later_states, later_curves = run(method, resume=states[stop])
    assert [state["step"] for state in states] == [2, 4, 6, 7]
    assert torch.equal(resumed.latents["Z"], unbroken.latents["Z"])
    assert [state["step"] for state in later_states] == [2, 4, 6, 7][stop + 1 :]
    assert untimed(later_curves) == untimed(curves[stop + 1 :])


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
def test_edits_together_are_edits_alone(optimizer):
    """Two targets in one call, also resumed half way, end where each ends alone: latent, curves and optimizer apart."""

    def towards(branches, draw):
        pull = torch.tensor([float(len(target)) for target in branches.prompts[:-1]])[:, None, None, None, None]
        return Contribution(0.3 * (branches.Z - branches.Z_ref) + pull + draw.eps, {"pull": pull.flatten()})

    method, kept = distillation(loss=towards, optimizer=optimizer, num_steps=5), {}

    def request(target, resume=None):
        def keep(state, curves):
            kept.setdefault(target, []).append((copy.deepcopy(state), curves))

        return Request(target, {}, resume, keep)

    targets = ["a bus", "a bicycle"]
    alone = [method(FOOTAGE, SOURCE, [request(target)], "01-car")[0] for target in targets]
    kept.clear()
    together = method(FOOTAGE, SOURCE, [request(target) for target in targets], "01-car")
    assert not torch.equal(alone[0].latents["Z"], alone[1].latents["Z"])
    for target, one, other in zip(targets, alone, together):
        assert torch.equal(one.latents["Z"], other.latents["Z"])
        assert {curve["loss.pull"] for _, curves in kept[target] for curve in curves} == {float(len(target))}
    resumed = method(FOOTAGE, SOURCE, [request(target, kept[target][0][0]) for target in targets], "01-car")
    assert all(torch.equal(one.latents["Z"], other.latents["Z"]) for one, other in zip(alone, resumed))
    with pytest.raises(InputError, match="resume at one step"):
        method(FOOTAGE, SOURCE, [request("a bus"), request("a bicycle", kept["a bicycle"][0][0])], "01-car")


def untimed(curves):
    """The curves of all steps without what differs from run to run."""
    return [{name: v for name, v in step.items() if name != "seconds"} for steps in curves for step in steps]


def test_edit_has_the_pixels_of_both_latents():
    """Frames are decoded from Z after the last step, the reconstruction from Z_ref: swapped, the edit would be lost."""
    edit, _, _ = run(distillation(loss=constant(1.0), num_steps=2))
    torch.testing.assert_close(edit.reconstruction, Z_REF.mean().expand(FRAMES.shape))
    torch.testing.assert_close(edit.frames, (Z_REF - 0.2).mean().expand(FRAMES.shape))


def test_resuming_a_finished_edit():
    """A state with all steps done is decoded as it is: no further step."""
    method = distillation(loss=noisy, num_steps=3)
    unbroken, states, _ = run(method)
    edit, later_states, _ = run(method, resume=states[-1])
    assert torch.equal(edit.latents["Z"], unbroken.latents["Z"])
    assert not later_states


def test_every_step_has_one_curve():
    """Each step is delivered once and in order, with its draw's t and the components' curves as plain numbers."""

    def with_curve(branches, draw):
        return Contribution(torch.ones_like(branches.Z), {"mask_coverage": torch.full((len(branches.Z),), 0.25)})

    advanced = []
    _, _, curves = run(distillation(loss=with_curve, num_steps=5), advance=advanced.append)
    steps = [step for part in curves for step in part]
    assert [step["step"] for step in steps] == [0, 1, 2, 3, 4]
    assert [step["t"] for step in steps] == [draw_step(0, "01-car", i, Z_REF, (50, 949)).t for i in range(5)]
    assert all(type(step["gradient_norm"]) is float and step["loss.mask_coverage"] == 0.25 for step in steps)
    assert advanced == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_divergence_is_named_and_earlier_checkpoints_stay(bad):
    """One NaN or Inf at step 4 stops the run with pair, step and t; the checkpoints before were delivered, clean."""
    states, calls = [], []

    def diverging(branches, draw):
        calls.append(draw.t)
        gradient = torch.ones_like(branches.Z)
        gradient[0, 0, 0, 0, 0] = bad if len(calls) == 5 else 1.0
        return Contribution(gradient)

    request = Request(TARGET, checkpoint=lambda state, _: states.append(copy.deepcopy(state)))
    with pytest.raises(DivergedError) as error:
        distillation(loss=diverging, num_steps=8)(FOOTAGE, SOURCE, [request], "01-car")
    assert "'01-car'" in str(error.value)
    assert f"at step 4, t = {calls[4]}" in str(error.value)
    assert [state["step"] for state in states] == [2, 4]
    assert all(state["Z"].isfinite().all() for state in states)


def test_attention_is_on_during_the_steps_alone():
    """Losses run inside the attention's context over the model, which is left also after an error."""
    events = []

    @contextlib.contextmanager
    def attention(model, branches):
        events.append((type(model).__name__, branches))
        try:
            yield
        finally:
            events.append("exit")

    def failing(branches, draw):
        events.append("step")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(distillation(loss=failing, attention=attention))
    assert events == [("FakeModel", 2), "step", "exit"]


def test_prompts_are_checked_first():
    """A prompt that the model refuses, the target or the source, costs neither an encoding nor a step."""
    for refused in (SOURCE, TARGET):

        def check_prompt(prompt, refused=refused):
            if prompt == refused:
                raise InputError("refused")

        model = still_model(check_prompt=check_prompt, encode=lambda frames: pytest.fail("the source was encoded"))
        method = distillation(model, loss=lambda branches, draw: pytest.fail("a step was made"))
        with pytest.raises(InputError, match="refused"):
            run(method)


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_steps", 0),
        ("checkpoint_every", 0),
        ("checkpoint_seconds", 0.0),
        ("gradient_scale", "sds"),
        ("timesteps", (50, 1000)),
        ("timesteps", (949, 50)),
    ],
)
def test_options_out_of_range(name, value):
    """What can't be run is refused when it is configured, by the argument's name."""
    with pytest.raises(InputError, match=name):
        distillation(loss=noisy, **{name: value})


def test_curves_are_handed_over_by_the_clock():
    """However many steps lie between checkpoints, a slow step is never kept back: a kill loses no more than a while."""
    for seconds, deliveries in ((1e-9, 4), (1e9, 1)):
        method = distillation(loss=noisy, num_steps=4, checkpoint_every=100, checkpoint_seconds=seconds)
        _, states, curves = run(method)
        assert len(states) == deliveries
        assert [curve["step"] for part in curves for curve in part] == [0, 1, 2, 3]
        assert all(curve["seconds"] > 0 for part in curves for curve in part)


def test_components_must_share_the_models_latents():
    """An image model of another latent space is refused when the method is configured, not after a wrong gradient."""
    other = FakeModel(latents=LatentSpace(16))
    with pytest.raises(InputError, match="one latent space"):
        distillation(guide=JointGuidance(other, 2, 7.5))


def test_it_is_a_method():
    """Its steps, and the model's canvas, are what the contract asks for."""
    method = distillation(loss=noisy, num_steps=7)
    assert isinstance(method, Method)
    assert (method.num_steps, method.canvas) == (7, CANVAS)


@pytest.mark.parametrize("optimizer", [SGD, functools.partial(SGD, momentum=0.9), ADAM])
def test_checkpoints_are_tensors_and_numbers(optimizer):
    """Nothing that only Python could load: a step, Z, and what the optimizer remembers under its own names."""
    _, states, _ = run(distillation(loss=noisy, optimizer=optimizer, num_steps=2))
    (state,) = states
    assert {"step", "Z"} <= state.keys()
    assert {key.partition(".")[0] for key in state.keys() - {"step", "Z"}} <= {"optimizer"}
    assert all(isinstance(value, (torch.Tensor, int, float, str)) for value in state.values())


def test_no_loss():
    """A run without a component would return the source video: refused."""
    with pytest.raises(InputError, match="loss is empty"):
        distillation()
