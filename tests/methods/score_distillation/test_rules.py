"""The score rules as functions of predicted noises."""

import itertools
import math

import pytest
import torch

from assd.errors import InputError
from assd.methods.score_distillation.rules import ASSD, SDS, VideoDDS, adaptive_mask, smooth

SHAPE = (4, 5, 3, 2)  # c f h w
RULES = [SDS(), VideoDDS(), ASSD(gamma=0.67, tau=0.1)]


def predictions():
    """Three unrelated noises e, r, eps."""
    rng = torch.Generator().manual_seed(0)
    return tuple(torch.randn(SHAPE, generator=rng) for _ in range(3))


def constant_in_time(r):
    """The first frame, repeated."""
    return r[:, :1].expand(SHAPE).contiguous()


def over_time(*values):
    """One element's values over the frames, as (c f h w)."""
    return torch.tensor(values).reshape(1, -1, 1, 1)


def test_video_dds_of_equal_predictions_is_zero():
    """The delta of a prediction with itself is exactly 0: an unedited video stays where it is."""
    e, _, eps = predictions()
    assert torch.equal(VideoDDS()(e, e, eps).gradient, torch.zeros(SHAPE))


def test_video_dds_points_from_reference_to_editing():
    """g = e - r, and not its negative or e - eps."""
    e, r, eps = predictions()
    assert torch.equal(VideoDDS()(e, r, eps).gradient, e - r)


def test_sds_subtracts_the_noise_and_ignores_the_reference():
    """g = e - eps, whatever the reference predicts."""
    e, r, eps = predictions()
    assert torch.equal(SDS()(e, r, eps).gradient, e - eps)
    assert torch.equal(SDS()(e, -r, eps).gradient, e - eps)


@pytest.mark.parametrize(
    "rule", [ASSD(gamma=0.67, tau=math.inf), ASSD(gamma=1.0, tau=0.0), ASSD(gamma=1.0, tau=-math.inf)]
)
def test_assd_without_smoothing_is_video_dds(rule):
    """A margin above every difference, or a window of one frame, leaves Video-DDS bit for bit."""
    e, r, eps = predictions()
    assert torch.equal(rule(e, r, eps).gradient, e - r)


def test_assd_of_a_still_reference_is_video_dds():
    """Smoothing everywhere changes nothing where the reference does not change over time."""
    e, r, eps = predictions()
    still = constant_in_time(r)
    gradient, mask = ASSD(gamma=0.67, tau=-math.inf)(e, still, eps)
    assert mask.all()
    torch.testing.assert_close(gradient, e - still)


def test_assd_smooths_a_moving_reference():
    """With the whole mask on, the gradient is e - Smooth(r) and differs from Video-DDS: smoothing is not a no-op."""
    e, r, eps = predictions()
    gradient = ASSD(gamma=0.67, tau=-math.inf)(e, r, eps).gradient
    assert torch.equal(gradient, e - smooth(r, 0.67))
    assert not torch.allclose(gradient, e - r)


@pytest.mark.parametrize("gamma", [0.1, 0.67, 1.0])
def test_smoothing_keeps_a_still_reference(gamma):
    """The window's weights sum to 1 on every frame, the first and the last too."""
    still = constant_in_time(predictions()[1])
    torch.testing.assert_close(smooth(still, gamma), still)


def test_smoothing_keeps_rows_columns_and_channels_apart():
    """An impulse in the middle frame spreads to its neighbour frames alone, with weights g1, g0, g1."""
    impulse = torch.zeros(SHAPE)
    impulse[1, 2, 0, 1] = 1.0
    expected = torch.zeros(SHAPE)
    expected[1, :, 0, 1] = torch.tensor([0.0, 0.2, 0.6, 0.2, 0.0])
    torch.testing.assert_close(smooth(impulse, 0.6), expected)


@pytest.mark.parametrize("frames", [1, 2])
def test_smoothing_short_videos(frames):
    """One frame is its own neighbour; of two frames either one repeats at its edge."""
    r = over_time(1.0, 3.0)[:, :frames]
    expected = over_time(1.0, 3.0)[:, :1] if frames == 1 else over_time(1.4, 2.6)  # 0.8 * 1 + 0.2 * 3, and mirrored
    torch.testing.assert_close(smooth(r, 0.6), expected)


def test_mask_takes_its_maximum_over_time_alone():
    """Each (channel, row, column) is compared with its own greatest difference, however small beside the others'.

    At tau = 0 every element is inside the mask but its own maximum in time: exactly one frame is outside.
    """
    e, r, _ = predictions()
    scale = torch.logspace(-3, 3, 4 * 3 * 2).reshape(4, 1, 3, 2)
    mask = adaptive_mask(e * scale, r * scale, tau=0.0)
    assert torch.equal((~mask).sum(dim=1), torch.ones(4, 3, 2, dtype=torch.long))


def test_mask_shrinks_as_tau_grows():
    """A larger margin never adds an element, as eq. 7 has it (the paper's sentence reads the other way round)."""
    e, r, _ = predictions()
    masks = [adaptive_mask(e, r, tau) for tau in (0.0, 0.5, 1.0, 2.0)]
    assert all((wide | ~narrow).all() for wide, narrow in itertools.pairwise(masks))
    assert masks[0].sum() > masks[-1].sum()


def test_three_frames_by_hand():
    """Eqs. 6-8 for one element over three frames, g0 = 0.6, g1 = 0.2, tau = 0.5.

    r         = (1, 2, 4),  e = (2, 5, 4.5)
    Smooth(r) = (0.2*1 + 0.6*1 + 0.2*2, 0.2*1 + 0.6*2 + 0.2*4, 0.2*2 + 0.6*4 + 0.2*4) = (1.2, 2.2, 3.6)
    d         = |e - r| = (1, 3, 0.5), its maximum 3, the threshold 3 - 0.5 = 2.5, so m = (1, 0, 1)
    g         = (2 - 1.2, 5 - 2, 4.5 - 3.6) = (0.8, 3, 0.9)
    """
    e, r = over_time(2.0, 5.0, 4.5), over_time(1.0, 2.0, 4.0)
    gradient, mask = ASSD(gamma=0.6, tau=0.5)(e, r, torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(smooth(r, 0.6), over_time(1.2, 2.2, 3.6))
    assert torch.equal(mask, over_time(True, False, True))
    torch.testing.assert_close(gradient, over_time(0.8, 3.0, 0.9))


def test_mask_is_strict_at_the_threshold():
    """d = (1, 2, 1.5) and tau = 0.5: 1.5 equals the threshold 2 - 0.5 and lies outside, since eq. 7 says `<`."""
    mask = adaptive_mask(over_time(1.0, 2.0, 1.5), over_time(0.0, 0.0, 0.0), tau=0.5)
    assert torch.equal(mask, over_time(True, False, False))


def test_mask_ignores_the_sign_of_the_difference():
    """d is |e - r|: a strongly negative difference is a large one, and stays outside the mask."""
    mask = adaptive_mask(over_time(1.0, -3.0, 0.0), over_time(0.0, 0.0, 0.0), tau=0.5)
    assert torch.equal(mask, over_time(True, False, True))


@pytest.mark.parametrize("rule", RULES)
def test_rules_leave_their_arguments_alone(rule):
    """A rule is a pure function: in-place arithmetic would corrupt the prediction another component reads."""
    given = predictions()
    rule(*given)
    assert all(torch.equal(after, before) for after, before in zip(given, predictions()))


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.01, math.nan])
def test_gamma_out_of_range(gamma):
    """A window whose weights are not those of an average is refused, by the argument's name."""
    with pytest.raises(InputError, match="gamma"):
        ASSD(gamma=gamma, tau=0.1)


@pytest.mark.parametrize("tau", [-0.1, -5.0, math.nan])
def test_tau_out_of_range(tau):
    """A negative margin is refused by name; -inf alone has a meaning."""
    with pytest.raises(InputError, match="tau"):
        ASSD(gamma=0.67, tau=tau)
