"""ControlVideo: which frames are interpolated and attended to when, and edits that must come out as something known."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from diffusers import ControlNetModel
from einops import rearrange
from torch import nn

from assd.data.pairs import Footage
from assd.diffusion.guidance import guided_prediction
from assd.diffusion.inversion import DDIM, downwards
from assd.errors import InputError
from assd.methods.control_video import ControlVideo
from assd.methods.control_video.smoother import average, flow_based, smoothed, triples
from assd.methods.control_video.windows import key_frames, window_clips, window_table
from assd.methods.method import Method, Request
from assd.models.conditions import Canny
from assd.models.control_net import ControlNet
from tests.parity.network import TableModel, set_weights, tiny_unet

SMALL = dict(
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 32), layers_per_block=1,
)  # fmt: skip
TARGETS = ("a red jeep", "a lion")


def pooled(frames):
    """The latent (4 f h w): means of squares in three colours, and their sum."""
    means = F.avg_pool2d(frames, 8)
    return rearrange(torch.cat([means, means.sum(1, keepdim=True)], 1), "f c h w -> c f h w")


def enlarged(Z):
    return F.interpolate(rearrange(Z[:3], "c f h w -> f c h w"), scale_factor=8).clamp(-1, 1)


@pytest.fixture(scope="module")
def model():
    """A random U-Net of two levels with three prompts; the pixels of 8 x 8 squares are its latents."""
    text = torch.randn(3, 1, 5, 32, generator=torch.Generator().manual_seed(0))
    return TableModel(tiny_unet(0, **SMALL), dict(zip((*TARGETS, ""), text)), encoder=pooled, decoder=enlarged)


@pytest.fixture(scope="module")
def control_net(model):
    network = ControlNetModel.from_unet(model.network, conditioning_embedding_out_channels=(8, 8, 16, 16))
    set_weights(network, 1)
    return ControlNet(network)


@pytest.fixture
def control_video(model, control_net):
    """Makes an editor; a keyword is an argument that differs."""

    def make(**changes):
        settings = dict(
            model=model, control_net=control_net, condition=Canny(), num_frames=5, height=64, width=32, seed=3,
            guidance_scale=4.0, prompt_suffix="", negative_prompt="", sampling_steps=4, conditioning_scale=0.5,
            smooth_steps=(2, 3), interpolation="flow", window=None, window_sees="keys", residuals_in_place=False,
            wrap_control_frames=False, checkpoint_every=1, checkpoint_seconds=1e9,
        )  # fmt: skip
        return ControlVideo(**{**settings, **changes})

    return make


@pytest.fixture
def moving():
    """Squares that move by one a frame."""
    still = F.interpolate(torch.rand(1, 3, 8, 4, generator=torch.Generator().manual_seed(1)), scale_factor=8) * 2 - 1
    return Footage(torch.cat([still.roll(8 * i, dims=-1) for i in range(5)]), fps=8.0)


def edited(method, footage, *requests, clip="clip"):
    return [edit.latents["Z"] for edit in method(footage, "", list(requests), clip)]


def test_the_contract_is_met(control_video):
    method = control_video()
    assert isinstance(method, Method) and method.num_steps == 4
    assert str(method.canvas) == "5 frames of 32 x 64"


def test_interpolated_frames_are_the_published_ones():
    """Odd frames but the last at even steps; even ones at odd steps, at an end between themselves and the next."""
    assert triples(6, 0) == [(0, 2, 1), (2, 4, 3)] and triples(7, 2) == [(0, 2, 1), (2, 4, 3), (4, 6, 5)]
    assert triples(6, 1) == [(0, 1, 0), (1, 3, 2), (3, 5, 4)]
    assert triples(7, 3) == [(0, 1, 0), (1, 3, 2), (3, 5, 4), (5, 6, 6)]
    assert [triples(f, step) for f, step in itertools.product((1, 2), (0, 1))] == [[], [(0, 0, 0)], [], [(0, 1, 0)]]


def test_windows_are_the_published_ones():
    assert key_frames(9, 4) == [0, 3, 6, 8] and key_frames(10, 3) == [0, 2, 4, 6, 8, 9]
    assert window_clips(key_frames(9, 4)) == [[0, 3, 1, 2], [3, 6, 4, 5], [6, 8, 7]]
    assert window_clips(key_frames(11, 4)) == [[0, 3, 1, 2], [3, 6, 4, 5], [6, 9, 7, 8]]  # none between 9 and 10
    assert window_table(3, "keys") == [[0, 1]] * 3 and window_table(4, "first_and_last") == [[0, 3]] * 4


def test_a_frame_is_interpolated_from_what_its_neighbours_were():
    """Never from a frame that was interpolated just before."""
    pixels = torch.tensor([0.0, 0.2, 0.8, 0.4, -0.6])[:, None, None, None].expand(5, 3, 4, 4)
    means = [smoothed(pixels, step, average)[:, 0, 0, 0].tolist() for step in (0, 1)]
    assert means[0] == pytest.approx([0.0, 0.4, 0.8, 0.1, -0.6])
    assert means[1] == pytest.approx([0.1, 0.2, 0.3, 0.4, -0.1])


def test_flow_finds_the_frame_between():
    """A picture that moves by 6 pixels is half-way, not twice at half strength; the wrong way it would be far off."""
    picture = F.interpolate(
        torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)), size=96, mode="bicubic"
    )
    first, between, last = (picture.clamp(0, 1)[..., 10:74, x : x + 64] * 2 - 1 for x in (10, 13, 16))
    error = {f: (f(first, last) - between).abs().mean() for f in (flow_based, average)}
    assert error[flow_based] < 0.2 * error[average]


def test_the_noise_is_the_clips_and_one_for_all_frames(control_video):
    method, like = control_video(), torch.zeros(4, 5, 8, 4)
    noise = method.noise(like, "clip")
    assert noise.equal(noise[:, :1].expand_as(noise)) and noise[:, 0].std() > 0.5
    assert noise.equal(control_video(sampling_steps=9).noise(like, "clip"))
    assert not noise.equal(method.noise(like, "another clip")) and not noise.equal(
        control_video(seed=4).noise(like, "clip")
    )


def test_a_frame_alone_without_its_map_is_plain_sampling(control_video, model, moving):
    """One frame, a scale of 0 and no smoother: DDIM under the prompt."""
    method = control_video(num_frames=1, conditioning_scale=0.0, smooth_steps=())
    (ours,) = edited(method, Footage(moving.frames[:1], 8.0), Request("a lion"))
    z, ddim = method.noise(ours, "clip")[None], DDIM(model.schedule, model.prediction)
    for t, to in downwards(model.schedule.timesteps(4)):
        z = ddim.sampling_step(lambda z, t: guided_prediction(model, z, t, ("a lion",), 4.0), z, t, to)
    torch.testing.assert_close(ours, z[0], atol=1e-4, rtol=1e-4)


def test_every_frame_reaches_every_other(control_video, model, moving):
    z = torch.randn(1, 4, 5, 8, 4, generator=torch.Generator().manual_seed(2))
    control = torch.zeros(5, 3, 64, 32)
    before = control_video().predict(z, 500, ("a lion",), control)
    z[:, :, 4] += 1
    after = control_video().predict(z, 500, ("a lion",), control)
    assert ((after - before).abs().amax(dim=(0, 1, 3, 4)) > 1e-5).all()


def test_a_window_about_the_whole_video_predicts_its_keys_as_one_clip(control_video):
    """Key frames come from their own pass; the frames between see them and not the rest."""
    z = torch.randn(1, 4, 5, 8, 4, generator=torch.Generator().manual_seed(2))
    control = torch.rand(5, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    whole, windows = control_video(), control_video(window=3)
    prediction = windows.predict(z, 500, ("a lion",), control)
    keys = whole.predict(z[:, :, ::2], 500, ("a lion",), control[::2])
    assert prediction[:, :, ::2].equal(keys)
    z[:, :, 4] += 1  # a key frame that the window between frames 0 and 2 does not hold
    assert windows.predict(z, 500, ("a lion",), control)[:, :, 1].equal(prediction[:, :, 1])


def test_what_was_published_predicts_something_else(control_video):
    z = torch.randn(1, 4, 5, 8, 4, generator=torch.Generator().manual_seed(2))
    control = torch.rand(5, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    clean = control_video(window=4).predict(z, 500, ("a lion",), control)
    for published, frames in ({"window_sees": "first_and_last"}, [1, 2]), ({"residuals_in_place": True}, [*range(5)]):
        other = control_video(window=4, **published).predict(z, 500, ("a lion",), control)
        assert (other - clean).abs().amax(dim=(0, 1, 3, 4)).gt(1e-5).nonzero().flatten().tolist() == frames


def test_the_smoother_acts_at_its_steps_alone(control_video, moving):
    """Counted from the end: of 4 steps, 2 and 3 are numbers 2 and 1."""
    kept = {}
    for steps in ((), (3,)):
        latents = kept[steps] = []
        request = Request("a lion", checkpoint=lambda state, _, latents=latents: latents.append(state["Z"].clone()))
        edited(control_video(smooth_steps=steps), moving, request)
    assert [a.equal(b) for a, b in zip(kept[()], kept[(3,)])] == [True, False, False, False]


@pytest.mark.parametrize("window", [None, 3])
def test_an_edit_that_is_interrupted_anywhere_goes_on_to_the_same_bits(control_video, moving, window):
    method, kept = control_video(window=window, sampling_steps=3), []

    def keep(state, _):
        kept.append({**state, "Z": state["Z"].clone()})

    (whole,) = edited(method, moving, Request("a lion", checkpoint=keep))
    assert [state["step"] for state in kept] == [1, 2, 3]
    for state in kept:
        assert edited(method, moving, Request("a lion", resume=state))[0].equal(whole)


def test_targets_together_are_those_apart(control_video, moving):
    method = control_video(interpolation="average", sampling_steps=3)  # flow is sought in bytes: rounding would grow
    together = edited(method, moving, *map(Request, TARGETS))
    for ours, target in zip(together, TARGETS):
        torch.testing.assert_close(ours, edited(method, moving, Request(target))[0], atol=1e-4, rtol=1e-4)
    assert not together[0].allclose(together[1], atol=1e-2)


def test_the_networks_are_themselves_again(control_video, model, control_net, moving):
    def computed():
        z, text = torch.ones(2, 4, 8, 4), torch.ones(2, 5, 32)
        return model.forward(z, 9, text), control_net.residuals(z, 9, text, torch.ones(2, 3, 64, 32)).mid

    before = computed()
    edited(control_video(residuals_in_place=True, window=3), moving, Request("a lion"))
    assert all(a.equal(b) for a, b in zip(before, computed()))


def test_the_suffix_is_put_behind_the_target(control_video, moving):
    (ours,) = edited(control_video(prompt_suffix="jeep"), moving, Request("a red "))
    assert ours.equal(edited(control_video(), moving, Request("a red jeep"))[0])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"smooth_steps": (5,)}, r"in 1\.\.4, the sampling_steps; got \[5\]"),
        ({"interpolation": "rife"}, "flow, average; got 'rife'"),
        ({"window": 2}, "window must be >= 3"),
        ({"window_sees": "all"}, "keys, first_and_last; got 'all'"),
        ({"conditioning_scale": -1.0}, "conditioning_scale must be >= 0"),
        ({"cross_frame_layers": ("mid_block",)}, "cross_frame_layers must name self-attention layers of the model"),
        ({"cross_frame_layers": ()}, "needs self-attention layers"),
    ],
)
def test_what_cannot_be_is_refused(control_video, change, sentence):
    with pytest.raises(InputError, match=sentence):
        control_video(**change)


def test_a_model_without_the_image_unet_is_refused(control_video, model):
    other = object.__new__(TableModel)
    vars(other).update(vars(model), unet=nn.Linear(1, 1))
    with pytest.raises(InputError, match="ControlVideo edits with a text-to-image U-Net"):
        control_video(model=other)
