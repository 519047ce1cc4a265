"""Noise as a function of (seed, pair, step)."""

import pytest
import torch

from assd.diffusion.draw import check_timesteps, draw_step
from assd.errors import InputError

LIKE = torch.zeros(4, 3, 5, 5)
KEY = dict(seed=0, clip="01-car", step=7)


def draw(**changes):
    """The draw under KEY with some of it changed."""
    return draw_step(**(KEY | changes), like=LIKE, timesteps=(50, 949))


def test_same_key_same_draw():
    """A resumed run and another rule see the same noise, whatever else was drawn in between."""
    first = draw()
    torch.manual_seed(1)
    torch.randn(3)
    draw(step=8)
    second = draw()
    assert first.t == second.t
    assert torch.equal(first.eps, second.eps)


@pytest.mark.parametrize("change", [{"seed": 1}, {"clip": "02-car"}, {"step": 8}])
def test_every_part_of_the_key_counts(change):
    """Another seed, pair or step has another noise: none of them is left out of the key."""
    assert not torch.equal(draw().eps, draw(**change).eps)


def test_parts_of_the_key_do_not_run_together():
    """Pair `1` at step 23 and pair `12` at step 3 differ: the key is not their digits in a row."""
    assert not torch.equal(draw(clip="1", step=23).eps, draw(clip="12", step=3).eps)


def test_drawing_leaves_the_global_generator_alone():
    """The noise comes from a generator of its own."""
    before = torch.get_rng_state()
    draw()
    assert torch.equal(torch.get_rng_state(), before)


def test_t_stays_in_range_and_reaches_both_ends():
    """Both first and last are drawn and nothing beyond: an exclusive upper bound would lose the last."""
    drawn = {draw_step(0, "pair", step, LIKE[:1, :1, :1, :1], (5, 8)).t for step in range(100)}
    assert drawn == {5, 6, 7, 8}


def test_a_single_timestep():
    """first = last fixes t."""
    assert draw_step(0, "pair", 0, LIKE, (300, 300)).t == 300


def test_noise_is_standard_normal():
    """Mean 0 and deviation 1 within six standard errors (40 000 numbers), in the latent's shape."""
    eps = draw_step(0, "pair", 0, torch.zeros(4, 100, 10, 10), (50, 949)).eps
    assert eps.shape == (4, 100, 10, 10)
    assert abs(eps.mean()) < 6 / 200
    assert abs(eps.std() - 1) < 6 / 200 / 2**0.5


@pytest.mark.parametrize("timesteps", [(-1, 5), (6, 5), (0, 1000), (1000, 1001)])
def test_bad_range(timesteps):
    """A range that is empty or leaves the schedule is refused, by name."""
    with pytest.raises(InputError, match="timesteps"):
        check_timesteps(timesteps, 1000)


def test_whole_schedule_is_a_good_range():
    """0..999 of 1000 is allowed: both bounds are inclusive."""
    check_timesteps((0, 999), 1000)
