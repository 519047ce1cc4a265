"""DDIM sampling and inversion, against diffusers and against models whose prediction is known."""

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from assd.diffusion.inversion import DDIM, downwards, upwards
from assd.diffusion.schedule import CLEAN, PREDICTIONS, Schedule, joined
from assd.errors import InputError
from assd.shapes import networks

RNG = torch.Generator().manual_seed(0)
Z, EPS = (torch.randn((1, 4, 3, 5, 5), generator=RNG).double() for _ in range(2))
CONFIG = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
              set_alpha_to_one=False)  # fmt: skip
STEPS = 20


def of(scheduler):
    """The schedule of a diffusers scheduler."""
    return Schedule.from_alphas_cumprod(scheduler.alphas_cumprod, scheduler.config)


def network(z, t):
    """Something smooth that depends on the latent and on t."""
    return 0.3 * torch.tanh(z) + 0.1 * torch.cos(z * t / 300)


def sample(ddim, predict, z, timesteps):
    """From the first timestep to the end."""
    for t, to in downwards(timesteps):
        z = ddim.sampling_step(predict, z, t, to)
    return z


def invert(ddim, predict, z, timesteps):
    """From the clean latent to the last timestep."""
    for s, t in upwards(timesteps):
        z = ddim.inversion_step(predict, z, s, t)
    return z


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_sampling_is_diffusers_step_by_step(kind, spacing):
    """Every latent from the noise to the end is that of `DDIMScheduler` with eta = 0."""
    scheduler = DDIMScheduler(**CONFIG | dict(prediction_type=kind, timestep_spacing=spacing))
    scheduler.set_timesteps(STEPS)
    ddim, ours, theirs = DDIM(of(scheduler), kind), Z, Z
    steps = downwards(ddim.schedule.timesteps(STEPS))
    assert [t for t, _ in steps] == scheduler.timesteps.tolist()
    for t, to in steps:
        theirs = scheduler.step(network(theirs, t), t, theirs).prev_sample
        ours = ddim.sampling_step(network, ours, t, to)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("network_time", ["source", "target"])
def test_inversion_is_diffusers_step_by_step(spacing, network_time):
    """Every latent from the clean one to the noise is that of `DDIMInverseScheduler`, whose caller chooses the time.

    Its step takes the target timestep; a clean latent has no timestep of its own, so that there both ask at the target.
    """
    scheduler = DDIMInverseScheduler(**CONFIG | dict(timestep_spacing=spacing))
    scheduler.set_timesteps(STEPS)
    schedule = Schedule.from_alphas_cumprod(scheduler.alphas_cumprod, scheduler.config)
    ddim, ours, theirs = DDIM(schedule, "epsilon", network_time), Z, Z
    steps = upwards(schedule.timesteps(STEPS)[::-1])
    assert [t for _, t in steps] == scheduler.timesteps.tolist()
    for s, t in steps:
        asked = s if network_time == "source" and s != CLEAN else t
        theirs = scheduler.step(network(theirs, asked), t, theirs).prev_sample
        ours = ddim.inversion_step(network, ours, s, t)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network_time", ["source", "target"])
@pytest.mark.parametrize("num_steps", [1, 2, 50])
def test_the_round_trip_of_constant_noise_is_exact(network_time, num_steps):
    """Where the network says the same eps everywhere, inversion and sampling undo each other, however few the steps."""
    ddim = DDIM(of(DDIMScheduler(**CONFIG)), "epsilon", network_time)
    timesteps = ddim.schedule.timesteps(num_steps)
    noisy = invert(ddim, lambda z, t: EPS, Z, timesteps[::-1])
    torch.testing.assert_close(sample(ddim, lambda z, t: EPS, noisy, timesteps), Z)
    end, start = ddim.schedule[timesteps[0]], ddim.schedule[CLEAN]
    clean = (Z - start.sigma * EPS) / start.alpha
    torch.testing.assert_close(noisy, end.add_noise(clean, EPS))


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_the_round_trip_of_a_network_that_knows_the_video(kind):
    """Asked at the latent's own time, a network of any kind that knows x0 and eps brings the latent back."""
    schedule = Schedule.flow() if kind == "flow" else of(DDIMScheduler(**CONFIG | dict(set_alpha_to_one=True)))
    timesteps = [t for t in schedule.timesteps(10) if t < 999]
    ddim = DDIM(schedule, kind)

    def knows(z, t):
        return joined(kind, Z, EPS, schedule[t])

    noisy = schedule[timesteps[0]].add_noise(Z, EPS)
    for t, to in downwards(timesteps):
        noisy = ddim.sampling_step(knows, noisy, t, to)
        torch.testing.assert_close(noisy, schedule[to].add_noise(Z, EPS), rtol=1e-4, atol=1e-4)


def test_the_more_steps_the_nearer():
    """On a smooth network the round trip's error falls with the number of steps, asked at either time."""
    for network_time in ("source", "target"):
        ddim, errors = DDIM(of(DDIMScheduler(**CONFIG)), "epsilon", network_time), []
        for num_steps in (10, 100):
            timesteps = ddim.schedule.timesteps(num_steps)
            back = sample(ddim, network, invert(ddim, network, Z, timesteps[::-1]), timesteps)
            errors.append((back - Z).abs().mean().item())
        assert errors[1] < 0.3 * errors[0]


@pytest.mark.parametrize("kind", ["v_prediction", "flow"])
def test_steps_from_pure_noise_are_exact(kind):
    """At alpha = 0 a step is finite, and from the truth of v or velocity it is the truth."""
    schedule = Schedule.flow() if kind == "flow" else of(networks.scheduler())
    assert schedule[999].alpha == 0
    prediction = joined(kind, Z, EPS, schedule[999])
    stepped = DDIM(schedule, kind).step(prediction, EPS, 999, 500)
    torch.testing.assert_close(stepped, schedule[500].add_noise(Z, EPS), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["v_prediction", "flow"])
def test_inversion_into_pure_noise_is_finite(kind):
    """The last inversion step may end at alpha = 0, and is then the noise alone."""
    schedule = Schedule.flow() if kind == "flow" else of(networks.scheduler())
    noise = DDIM(schedule, kind, "source").inversion_step(lambda z, t: joined(kind, Z, EPS, schedule[t]),
                                                          schedule[900].add_noise(Z, EPS), 900, 999)  # fmt: skip
    torch.testing.assert_close(noise, EPS)


def test_steps_lead_through_every_timestep():
    """Downwards ends at the clean latent, upwards begins there, or where one starts."""
    assert downwards([9, 5, 1]) == [(9, 5), (5, 1), (1, CLEAN)]
    assert upwards([1, 5, 9]) == [(CLEAN, 1), (1, 5), (5, 9)]
    assert upwards([5, 9], start=1) == [(1, 5), (5, 9)]


def test_an_unknown_time_is_refused():
    """The known ones are named."""
    with pytest.raises((InputError, TypeError), match="network_time"):
        DDIM(Schedule.flow(), "flow", "middle")
