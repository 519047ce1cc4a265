"""Loss components: a model bound to a rule."""

import pytest
import torch

from assd.diffusion.draw import Draw
from assd.diffusion.model import LatentSpace
from assd.errors import InputError
from assd.methods.score_distillation.losses import Branches, JointGuidance, VideoScore
from assd.methods.score_distillation.rules import ASSD, SDS, VideoDDS
from tests.fakes import FakeModel, schedule

SHAPE = (6, 8, 16, 16)
RNG = torch.Generator().manual_seed(0)
Z, Z_REF, EPS = (torch.randn(SHAPE, generator=RNG) for _ in range(3))
DRAW = Draw(500, EPS)
SOURCE, TARGET = "a red circle moving right over snow", "a blue star moving right over snow"
LEVEL = schedule()[DRAW.t]
VALUE = {"": 1.0, SOURCE: 3.0, TARGET: 10.0}


class Recording(FakeModel):
    """Keeps what it is asked; predicts 10 everywhere for the target prompt, 3 for the source, 1 for the empty one."""

    def __init__(self, value=VALUE):
        self.calls = []

        def predict(z_t, t, prompts):
            self.calls.append((z_t, t, prompts))
            return torch.tensor([value[prompt] for prompt in prompts])[:, None, None, None, None].expand_as(z_t)

        super().__init__(predict=predict, latents=LatentSpace(6))


@pytest.fixture
def recorder():
    """A model that keeps what it is asked."""
    return Recording()


def gradient_of(loss, Z=Z, Z_ref=Z_REF, targets=(TARGET,), draw=DRAW):
    """The gradient of a single edit."""
    return loss(branches([Z], targets, Z_ref), draw).gradient[0]


def branches(edits, targets=(TARGET,), Z_ref=Z_REF):
    """Edits of the source video, and its own branch."""
    return Branches(torch.stack([*edits, Z_ref]), (*targets, SOURCE))


def noise_in(z_t, z):
    """The eps that made z_t from z at the draw's t."""
    return (z_t - LEVEL.alpha * z) / LEVEL.sigma


def test_video_branches_share_t_and_noise(recorder):
    """The one pass holds Z and Z_ref at the draw's t with the draw's eps, in both guidance halves."""
    gradient_of(VideoScore(recorder, VideoDDS(), 7.5))
    [(z_t, t, _)] = recorder.calls
    assert t == DRAW.t
    for noisy, clean in zip(z_t, (Z, Z_REF, Z, Z_REF), strict=True):
        torch.testing.assert_close(noise_in(noisy, clean), EPS, rtol=1e-4, atol=1e-4)


def test_key_frames_share_t_and_noise_with_the_video(recorder):
    """Joint guidance sees frames 0, 3, 6 of either branch with the noise of the video branch on those same frames."""
    gradient_of(JointGuidance(recorder, 3, 7.5))
    [(z_t, t, _)] = recorder.calls
    assert t == DRAW.t
    assert z_t.shape[2] == 3
    for noisy, clean in zip(z_t, (Z, Z_REF, Z, Z_REF), strict=True):
        torch.testing.assert_close(noise_in(noisy, clean[:, ::3]), EPS[:, ::3], rtol=1e-4, atol=1e-4)


def test_target_belongs_to_the_edited_video(recorder):
    """e^w - r^w = (1 + w (10 - 1)) - (1 + w (3 - 1)) = 7 w, here 14: swapped prompts would turn its sign."""
    for loss in (VideoScore(recorder, VideoDDS(), 2.0), JointGuidance(recorder, 1, 2.0)):
        torch.testing.assert_close(gradient_of(loss), torch.full(SHAPE, 14.0))


def test_the_reference_branch_may_have_its_own_scale(recorder):
    """e^2 - r^0 = (1 + 2 (10 - 1)) - 1 = 18: the scale of the one does not reach the other."""
    options = dict(guidance_scale=2.0, reference_guidance_scale=0.0)
    for loss in (VideoScore(recorder, VideoDDS(), **options), JointGuidance(recorder, 1, **options)):
        torch.testing.assert_close(gradient_of(loss), torch.full(SHAPE, 18.0))


def test_a_negative_prompt_stands_for_the_empty_one():
    """e^2 - r^2 = (5 + 2 (10 - 5)) - (5 + 2 (3 - 5)) = 14, and the empty prompt is never asked for."""
    model = Recording({"blurry": 5.0, SOURCE: 3.0, TARGET: 10.0})
    for loss in (VideoScore(model, VideoDDS(), 2.0, negative_prompt="blurry"),
                 JointGuidance(model, 1, 2.0, negative_prompt="blurry")):  # fmt: skip
        torch.testing.assert_close(gradient_of(loss), torch.full(SHAPE, 14.0))
    assert {prompts for _, _, prompts in model.calls} == {("blurry", "blurry", TARGET, SOURCE)}


def test_sds_is_given_the_noise_of_the_draw(recorder):
    """g = e^w - eps = 1 + 2 (10 - 1) - eps = 19 - eps."""
    gradient = gradient_of(VideoScore(recorder, SDS(), 2.0))
    torch.testing.assert_close(gradient, 19 - EPS)


@pytest.mark.parametrize("stride, keys", [(1, range(8)), (2, [0, 2, 4, 6]), (3, [0, 3, 6]), (8, [0]), (20, [0])])
def test_joint_guidance_touches_key_frames_alone(recorder, stride, keys):
    """Frames 0, s, 2s, ... are guided, every other frame is exactly 0, also where s does not divide n or exceeds it."""
    gradient = gradient_of(JointGuidance(recorder, stride, 2.0))
    guided = gradient.abs().amin(dim=(0, 2, 3)) > 0
    assert guided.nonzero().flatten().tolist() == list(keys)
    assert gradient[:, ~guided].count_nonzero() == 0


def test_joint_guidance_is_a_delta_on_its_own_frame(tiny_image_model):
    """On a real network frame i's gradient is that of frame i guided alone: frames and branches are not mixed up."""
    gradient = gradient_of(JointGuidance(tiny_image_model, 3, 7.5))
    for i in (0, 3, 6):
        alone = slice(i, i + 1)
        loss = JointGuidance(tiny_image_model, 1, 7.5)
        expected = gradient_of(loss, Z[:, alone], Z_REF[:, alone], draw=Draw(DRAW.t, EPS[:, alone]))
        torch.testing.assert_close(gradient[:, alone], expected, rtol=1e-3, atol=1e-3)


def test_weight_zero_contributes_nothing(recorder):
    """A component of weight 0 leaves the sum as it is, exactly."""
    for loss in (VideoScore(recorder, SDS(), 2.0, weight=0.0), JointGuidance(recorder, 2, 2.0, weight=0.0)):
        assert gradient_of(loss).count_nonzero() == 0


def test_weight_multiplies_the_gradient(recorder):
    """Weight 0.5 is half the gradient, for either component."""
    for make in (lambda **k: VideoScore(recorder, SDS(), 2.0, **k), lambda **k: JointGuidance(recorder, 2, 2.0, **k)):
        half, whole = make(weight=0.5), make()
        assert torch.equal(gradient_of(half), 0.5 * gradient_of(whole))


def test_video_dds_of_an_unedited_video_is_zero(tiny_video_model):
    """Equal prompts and Z = Z_ref give exactly 0 through the real network, and another target prompt does not."""
    loss = VideoScore(tiny_video_model, VideoDDS(), 7.5)
    assert gradient_of(loss, Z, Z, [SOURCE]).count_nonzero() == 0
    assert gradient_of(loss, Z, Z).abs().max() > 1e-2


def test_joint_guidance_of_an_unedited_video_is_zero(tiny_image_model):
    """Equal prompts and Z = Z_ref give exactly 0 through the real network, and another target prompt does not."""
    loss = JointGuidance(tiny_image_model, 2, 7.5)
    assert gradient_of(loss, Z, Z, [SOURCE]).count_nonzero() == 0
    assert gradient_of(loss, Z, Z).abs().max() > 1e-2


def test_edits_of_one_video_share_its_reference(tiny_video_model, tiny_image_model):
    """Two targets in one pass get the gradients they get alone, to rounding, each its own."""
    edits, targets = [Z, Z_REF], [TARGET, "a red star moving right over night"]
    for loss in (VideoScore(tiny_video_model, ASSD(0.67, 0.1), 7.5), JointGuidance(tiny_image_model, 3, 7.5)):
        together = loss(branches(edits, targets), DRAW)
        for i in range(2):
            alone = loss(branches(edits[i : i + 1], targets[i : i + 1]), DRAW)
            torch.testing.assert_close(together.gradient[i], alone.gradient[0], rtol=1e-3, atol=1e-3)
            for name, value in alone.curves.items():
                torch.testing.assert_close(together.curves[name][i], value[0], rtol=1e-3, atol=1e-3)
        assert not torch.allclose(together.gradient[0], together.gradient[1], atol=1e-2)


def test_mask_coverage_is_reported(recorder):
    """The share of smoothed elements is a curve of ASSD, and of no rule without a mask."""
    smoothed = VideoScore(recorder, ASSD(0.67, float("-inf")), 2.0)(branches([Z]), DRAW)
    assert smoothed.curves["mask_coverage"] == 1
    assert not VideoScore(recorder, VideoDDS(), 2.0)(branches([Z]), DRAW).curves


@pytest.mark.parametrize("stride", [0, -2])
def test_stride_out_of_range(recorder, stride):
    """A stride below 1 would guide nothing, or backwards: refused by name."""
    with pytest.raises(InputError, match="stride"):
        JointGuidance(recorder, stride, 7.5)


@pytest.mark.parametrize("scale", [-0.1, float("nan")])
def test_scales_out_of_range(recorder, scale):
    """A negative guidance scale or weight would edit away from the target: refused by name, for either component."""
    for make in (lambda **k: VideoScore(recorder, SDS(), **k), lambda **k: JointGuidance(recorder, 2, **k)):
        with pytest.raises(InputError, match="guidance_scale"):
            make(guidance_scale=scale)
        with pytest.raises(InputError, match="guidance_scale"):
            make(guidance_scale=7.5, reference_guidance_scale=scale)
        with pytest.raises(InputError, match="weight"):
            make(guidance_scale=7.5, weight=scale)
