"""Noise schedules, and the four things that a network may predict."""

import math

import pytest
import torch
from diffusers import DDIMScheduler

from assd.diffusion.schedule import CLEAN, NO_NOISE, PREDICTIONS, Level, Schedule, joined, split, to_noise
from assd.errors import InputError
from assd.shapes import networks

RNG = torch.Generator().manual_seed(0)
X0, EPS = (torch.randn((2, 6, 8, 4, 4), generator=RNG) for _ in range(2))
PURE_NOISE = Level(0.0, 1.0)
STABLE_DIFFUSION = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
                        set_alpha_to_one=False)  # fmt: skip


def level(kind, sigma):
    """A level as the schedule of such a network has it."""
    return Level(1 - sigma, sigma) if kind == "flow" else Level(math.sqrt(1 - sigma**2), sigma)


def of(scheduler):
    """The schedule of a diffusers scheduler."""
    return Schedule.from_alphas_cumprod(scheduler.alphas_cumprod, scheduler.config)


@pytest.mark.parametrize("kind", PREDICTIONS)
@pytest.mark.parametrize("sigma", [0.05, 0.5, 0.95])
def test_what_a_perfect_network_says_is_taken_apart(kind, sigma):
    """The prediction made from x0 and eps splits into that x0 and eps, and its noise is that eps."""
    z_t = level(kind, sigma).add_noise(X0, EPS)
    prediction = joined(kind, X0, EPS, level(kind, sigma))
    x0, eps = split(kind, prediction, z_t, level(kind, sigma))
    torch.testing.assert_close(x0, X0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(eps, EPS, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(to_noise(kind, prediction, z_t, level(kind, sigma)), eps)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_any_prediction_survives_the_way_and_back(kind):
    """An arbitrary prediction about an arbitrary latent: split, then joined, is the prediction; the pair makes Z_t."""
    z_t, prediction, here = X0, EPS, level(kind, 0.6)
    pair = split(kind, prediction, z_t, here)
    torch.testing.assert_close(joined(kind, *pair, here), prediction, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(here.add_noise(*pair), z_t, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["v_prediction", "flow"])
def test_pure_noise_is_exact(kind):
    """At alpha = 0 nothing is divided by alpha: the noise is Z_t itself, bit for bit, and x0 is the truth."""
    prediction = joined(kind, X0, EPS, PURE_NOISE)
    x0, eps = split(kind, prediction, EPS, PURE_NOISE)
    assert torch.equal(eps, EPS)
    assert torch.equal(to_noise(kind, prediction, EPS, PURE_NOISE), EPS)
    torch.testing.assert_close(x0, X0, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_clean_latent_is_exact(kind):
    """At sigma = 0, where Z_t is the latent itself, x0 is Z_t; a predicted x0 alone says nothing of the noise there."""
    x0 = split(kind, joined(kind, X0, EPS, NO_NOISE), X0, NO_NOISE).x0
    torch.testing.assert_close(x0, X0)


def test_flow_velocity_is_the_way_from_latent_to_noise():
    """Z_s = (1 - s) Z + s eps, whose derivative in s is u = eps - Z wherever one stands."""
    for s in (0.25, 0.75):
        here, further = Level(1 - s, s), Level(1 - s - 0.125, s + 0.125)
        slope = (further.add_noise(X0, EPS) - here.add_noise(X0, EPS)) / 0.125
        torch.testing.assert_close(slope, joined("flow", X0, EPS, here), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [0, 50, 500, 999])
@pytest.mark.parametrize("scheduler", [networks.scheduler(), DDIMScheduler(**STABLE_DIFFUSION)], ids=["shapes", "sd"])
def test_noise_is_added_as_diffusers_adds_it(scheduler, t):
    """Eq. 1 under a schedule: square roots and the index of abar_t are diffusers'."""
    expected = scheduler.add_noise(X0, EPS, torch.tensor([t, t]))
    torch.testing.assert_close(of(scheduler)[t].add_noise(X0, EPS), expected, rtol=1e-5, atol=1e-5)


def test_branches_share_one_noise():
    """A noise without the branch axis is added to both branches."""
    here = Level(0.6, 0.8)
    both = here.add_noise(X0, EPS[0])
    assert all(torch.equal(both[i], here.add_noise(X0[i], EPS[0])) for i in range(2))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("num_steps", [1, 7, 25, 50, 999, 1000])
@pytest.mark.parametrize("offset", [0, 1])
def test_timesteps_are_diffusers(spacing, num_steps, offset):
    """The timesteps that a sampler of so many steps visits, noisiest first."""
    scheduler = DDIMScheduler(**STABLE_DIFFUSION | dict(timestep_spacing=spacing, steps_offset=offset))
    ours = of(scheduler).timesteps(num_steps)
    scheduler.set_timesteps(num_steps)
    assert ours == scheduler.timesteps.clamp(max=999).tolist()


def test_no_timestep_beyond_the_last():
    """Of trailing steps diffusers makes 62 for 61, the last of them -1: each number of steps has as many timesteps."""
    trailing = Schedule.flow()
    for num_steps in range(1, len(trailing) + 1):
        timesteps = trailing.timesteps(num_steps)
        assert len(set(timesteps)) == num_steps
        assert min(timesteps) >= 0


@pytest.mark.parametrize("num_steps", [0, 1001])
def test_as_many_steps_as_there_are(num_steps):
    """A sampler without steps, or with more than timesteps, is refused with the range."""
    with pytest.raises(InputError, match=r"num_steps must be in 1\.\.1000"):
        Schedule.flow().timesteps(num_steps)


def test_an_unknown_spacing_is_refused():
    """The known ones are named."""
    with pytest.raises(InputError, match="leading, trailing, linspace; got 'even'"):
        Schedule((1.0,), (0.0,), spacing="even")


def test_where_sampling_ends():
    """Stable Diffusion's last level is that of t = 0, as diffusers' `final_alpha_cumprod`; else there is no noise."""
    for to_one in (True, False):
        scheduler = DDIMScheduler(**STABLE_DIFFUSION | dict(set_alpha_to_one=to_one))
        end = of(scheduler)[CLEAN]
        assert end.alpha**2 == pytest.approx(scheduler.final_alpha_cumprod.item(), abs=1e-6)
        assert end.sigma**2 == pytest.approx(1 - end.alpha**2, abs=1e-6)


def test_the_flow_schedule_reaches_both_ends():
    """alpha + sigma = 1, growing noise, pure noise last; sampling ends without noise."""
    flow = Schedule.flow(8)
    assert [a + s for a, s in zip(flow.alphas, flow.sigmas)] == pytest.approx([1.0] * 8)
    assert list(flow.sigmas) == sorted(flow.sigmas)
    assert flow[7] == PURE_NOISE
    assert flow[CLEAN] == NO_NOISE
    assert flow.timesteps(4) == [7, 5, 3, 1]


def test_schedules_that_mean_the_same_noise():
    """Rounding is forgiven; another length or another beta is not."""
    stable = of(DDIMScheduler(**STABLE_DIFFUSION))
    rounded = Schedule(tuple(a * (1 + 1e-6) for a in stable.alphas), stable.sigmas)
    assert stable.agrees_with(rounded)
    assert not stable.agrees_with(of(DDIMScheduler(**STABLE_DIFFUSION | dict(beta_end=0.02))))
    assert not stable.agrees_with(Schedule(stable.alphas[:999], stable.sigmas[:999]))


def test_the_embedded_schedule_ends_in_pure_noise():
    """What the exactness above is for: alpha = 0 at t = 999."""
    assert of(networks.scheduler())[999] == PURE_NOISE
