"""FLATTEN: which layers and timesteps it touches, what its attention is, and edits that must come out as known."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from einops import rearrange

from assd.data.pairs import Canvas, Footage
from assd.diffusion.attention import layer
from assd.diffusion.trajectories import Trajectories
from assd.errors import InputError
from assd.methods.flatten import Flatten
from assd.methods.flatten.attention import FlowGuidedAttention, attend_along
from assd.methods.flatten.layers import finest_self_attention, injected_attention, injected_convolutions
from assd.methods.method import Method, Request
from assd.models.unet import LatentDiffusion, attention_layers
from assd.shapes import networks
from tests.parity.network import SCHEDULER, tiny_unet

SOURCE = "a red circle moving right over snow"
FINEST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
THREE_LEVELS = dict(
    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    block_out_channels=(32, 32, 32),
    layers_per_block=1,
)


class SquaresModel(LatentDiffusion):
    """A random U-Net on the embedded world's texts; squares of pixels are its latents. It counts its passes."""

    def __init__(self, scheduler=None, **unet):
        torch.manual_seed(0)
        super().__init__(
            unet=tiny_unet(0, cross_attention_dim=networks.TEXT_WIDTH, **unet),
            vae=None,
            vae_config={"scaling_factor": 1.0},
            text_encoder=networks.text_encoder(),
            tokenizer=networks.tokenizer(),
            scheduler=scheduler or networks.scheduler(),
        )
        self.encode, self.decode = pooled, enlarged
        self.passes = 0

    def predict(self, z_t, t, embeddings):
        self.passes += z_t.shape[2] > 1
        return super().predict(z_t, t, embeddings)


def pooled(frames):
    """The latent (4 f h w): means of squares in three colours, and their sum."""
    means = F.avg_pool2d(frames, 8)
    return rearrange(torch.cat([means, means.sum(1, keepdim=True)], 1), "f c h w -> c f h w")


def enlarged(Z):
    return F.interpolate(rearrange(Z[:3], "c f h w -> f c h w"), scale_factor=8)


@pytest.fixture(scope="module")
def model():
    """On the embedded world's schedule, which ends at pure noise, and which predicts v."""
    return SquaresModel(**THREE_LEVELS)


@pytest.fixture(scope="module")
def published_model():
    """On Stable Diffusion's schedule."""
    return SquaresModel(DDIMScheduler(**SCHEDULER), **THREE_LEVELS)


@pytest.fixture
def flatten(model):
    """Makes an editor; a keyword is an argument that differs."""

    def make(**changes):
        settings = dict(
            model=model, num_frames=3, height=64, width=32, seed=3, guidance_scale=4.0, negative_prompt="",
            inversion_steps=6, sampling_steps=3, injection_steps=2, inversion_prompt="", old_qk=False, flow="dis",
            attention_chunk=None, store="cpu", checkpoint_every=1, checkpoint_seconds=1e9,
        )  # fmt: skip
        return Flatten(**{**settings, **changes})

    return make


def moving(frames=3, height=64, width=32):
    """Noise that moves by a square a frame."""
    squares = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(1))
    still = F.interpolate(squares, scale_factor=8) * 2 - 1
    return Footage(torch.cat([still.roll(8 * i, dims=-1) for i in range(frames)]), fps=8.0)


def edited(method, *requests, footage=None, clip="clip"):
    return [edit.latents["Z"] for edit in method(footage or moving(), SOURCE, list(requests), clip)]


BLUE, STAR = Request("a blue circle moving right over snow"), Request("a red star moving right over snow")


# Which layers, which timesteps


def test_published_layers_of_stable_diffusion():
    unet = tiny_unet(0)
    layers = attention_layers(unet)
    attn = "{}.attentions.{}.transformer_blocks.0.attn1".format
    finest = [("down_blocks.0", 0), ("down_blocks.0", 1), *(("up_blocks.3", i) for i in range(3))]
    injected = [("up_blocks.1", 1), ("up_blocks.1", 2), *(("up_blocks.2", i) for i in range(3)), ("up_blocks.3", 0)]
    assert finest_self_attention(unet, layers) == tuple(attn(*place) for place in finest)
    assert injected_attention(layers) == tuple(attn(*place) for place in injected)
    assert injected_convolutions(layers) == (
        "up_blocks.1.resnets.0.conv2",
        "up_blocks.1.resnets.1.conv2",
        "up_blocks.2.resnets.0.conv2",
    )


def test_a_smaller_network_has_them_too(model):
    attn = "{}.attentions.{}.transformer_blocks.0.attn1".format
    finest = [("down_blocks.0", 0), ("up_blocks.2", 0), ("up_blocks.2", 1)]
    assert finest_self_attention(model.unet, model.layers) == tuple(attn(*place) for place in finest)
    assert injected_attention(model.layers) == (attn("up_blocks.1", 1), attn("up_blocks.2", 0))


def test_published_timesteps(flatten, published_model):
    steps = flatten(
        model=published_model, inversion_steps=100, sampling_steps=50, injection_steps=40, shifted_levels=True
    ).steps
    assert steps.inversion == [(s, s + 10) for s in range(1, 991, 10)]
    assert steps.timesteps == list(range(981, 0, -20))
    assert steps.sources == {t: t for t in range(981, 181, -20)}


def test_the_inversion_ends_where_sampling_begins(flatten, published_model):
    steps = flatten(model=published_model, inversion_steps=100, sampling_steps=50, injection_steps=40).steps
    assert steps.inversion == [(-1, 1), *((s, s + 10) for s in range(1, 981, 10))]
    assert steps.sources == {t: t for t in range(981, 181, -20)}


def test_by_position_features_of_another_timestep_are_taken_as_published(flatten, published_model):
    published = dict(
        model=published_model, inversion_steps=10, sampling_steps=4, shifted_levels=True, match_by_position=True
    )  # fmt: skip
    assert flatten(**published, injection_steps=2).steps.sources == {751: 501, 501: 1}
    with pytest.raises(InputError, match=r"3 injection_steps need as many of the inversion's.*there are 2"):
        flatten(**published, injection_steps=3)
    with pytest.raises(InputError, match=r"sampling begins at t = 751, which the inversion doesn't visit"):
        flatten(model=published_model, inversion_steps=10, sampling_steps=4)


# Attention


def trajectory(*cells):
    """One row a token: the tokens it is attended with; padded."""
    table = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in cells], batch_first=True, padding_value=-1)
    return Trajectories(table.clamp(min=0), table >= 0)


def test_attention_along_a_trajectory_by_hand():
    """q k is ln 3 for the token itself and ln 1 for the other, so the weights are 3/4 and 1/4: 3/4 8 + 1/4 4 = 7."""
    q = torch.tensor([1.0, 0.0])[None, None, :, None]
    k = torch.tensor([3.0, 1.0]).log()[None, None, :, None]
    v = torch.tensor([8.0, 4.0])[None, None, :, None]
    mixed = attend_along(trajectory([0, 1], [1]), q, k, v, scale=1.0)
    torch.testing.assert_close(mixed.flatten(), torch.tensor([7.0, 4.0]))


@pytest.mark.parametrize("old_qk", [False, True])
def test_two_stages_are_two_attentions_of_which_the_second_sees_the_trajectory(model, old_qk):
    attn, f = layer(model.unet, FINEST), 2
    x = torch.randn(2 * f, 6, 32, generator=torch.Generator().manual_seed(0))
    along = trajectory([0, 7], [1], [2, 3, 8], [3, 2], [4], [5, 11], [6], [7, 0], [8], [9], [10], [11, 5])
    seen = torch.zeros(12, 12, dtype=torch.bool)
    for token, (row, here) in enumerate(zip(along.cells, along.here)):
        seen[token, row[here]] = True

    q, k, v = (rearrange(p(x), "(b f) l (m e) -> b m (f l) e", f=f, m=8) for p in (attn.to_q, attn.to_k, attn.to_v))
    H = (attn.scale * q @ k.mT).softmax(-1) @ v
    q, k = (q, k) if old_qk else (H, H)
    mixed = (attn.scale * q @ k.mT).masked_fill(~seen, -torch.inf).softmax(-1) @ H
    expected = attn.to_out[0](rearrange(mixed, "b m (f l) e -> (b f) l (m e)", f=f))

    for chunk in (None, 5):
        torch.testing.assert_close(FlowGuidedAttention(f, along, old_qk, chunk)(attn, x), expected)


def test_of_one_frame_dense_attention_is_the_image_model_s(model):
    attn, x = layer(model.unet, FINEST), torch.randn(3, 6, 32)
    torch.testing.assert_close(FlowGuidedAttention(1, None, False, None)(attn, x), attn(x))


# Edits


def test_it_is_a_method_and_counts_its_steps(flatten):
    method, done = flatten(), []
    assert isinstance(method, Method)
    assert (method.canvas, method.num_steps) == (Canvas(3, 64, 32), 6 + 3)
    (edit,) = method(moving(), SOURCE, [STAR], "clip", done.append)
    assert done == list(range(1, 10))
    assert edit.frames.shape == edit.reconstruction.shape == (3, 3, 64, 32)


@pytest.mark.parametrize("on", ["model", "published_model"])
def test_a_prediction_does_not_change_by_the_features_that_it_made_itself(flatten, on, request):
    """Sampling begins with the latent at which the inversion ended, under its prompt and without guidance."""
    counts = dict(inversion_steps=10, sampling_steps=5)
    same = dict(guidance_scale=1.0, inversion_prompt=STAR.target, model=request.getfixturevalue(on), **counts)
    injected, free = (edited(flatten(**same, injection_steps=n), STAR)[0] for n in (1, 0))
    torch.testing.assert_close(injected, free, rtol=1e-5, atol=1e-5)


def test_published_levels_do_not_meet(flatten, published_model):
    counts = dict(inversion_steps=10, sampling_steps=5, shifted_levels=True)
    same = dict(guidance_scale=1.0, inversion_prompt=STAR.target, model=published_model, **counts)
    injected, free = (edited(flatten(**same, injection_steps=n), STAR)[0] for n in (1, 0))
    assert (injected - free).abs().max() > 1e-2


@pytest.mark.parametrize("store", ["device", "disk", "recompute"])
def test_where_features_are_kept_changes_no_bit(flatten, model, store):
    expected = edited(flatten(), STAR, BLUE)
    model.passes = 0
    assert all(ours.equal(theirs) for ours, theirs in zip(edited(flatten(store=store), STAR, BLUE), expected))
    made_again = 1 if store != "recompute" else 2  # of the last latent, from which the inversion makes no step
    assert model.passes == 6 + 3 + made_again


def test_targets_share_the_inversion_and_come_out_as_alone(flatten, model):
    model.passes = 0
    together = edited(flatten(), STAR, BLUE)
    assert model.passes == 6 + 3 + 1
    for request, Z in zip((STAR, BLUE), together):
        torch.testing.assert_close(Z, edited(flatten(), request)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("changes", [{}, dict(store="recompute"), dict(shifted_levels=True, match_by_position=True)])
@pytest.mark.end_to_end
def test_an_edit_goes_on_from_every_phase_bit_for_bit(flatten, published_model, changes):
    kept = [[], []]

    def keep(i):
        return lambda checkpoint, curves: kept[i].append(
            {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in checkpoint.items()}
        )

    published = (
        dict(model=published_model, inversion_steps=10, sampling_steps=5) if changes.get("shifted_levels") else {}
    )
    method = flatten(**changes, **published)
    requests = [dataclasses.replace(request, checkpoint=keep(i)) for i, request in enumerate((STAR, BLUE))]
    expected = edited(method, *requests)
    inverted = len(method.steps.inversion)
    for done in (2, inverted, inverted + 1, inverted + 3):  # with injection up to inverted + 2
        resumed = [dataclasses.replace(r, resume=kept[i][done - 1]) for i, r in enumerate((STAR, BLUE))]
        assert all(ours.equal(theirs) for ours, theirs in zip(edited(method, *resumed), expected))


def test_what_meets_is_drawn_from_seed_and_clip(flatten):
    footage = Footage(moving().frames, fps=8.0)
    table = {
        (seed, clip): flatten(seed=seed).trajectories(footage, clip, 8, 4).cells
        for seed, clip in ((3, "clip"), (4, "clip"), (3, "other"))
    }
    assert table[3, "clip"].equal(flatten().trajectories(footage, "clip", 8, 4).cells)
    assert not all(table[3, "clip"].equal(other) for other in table.values())


def test_without_flow_layers_none_is_sought(flatten, monkeypatch):
    expected = edited(flatten(), STAR)[0]
    monkeypatch.setattr("assd.methods.flatten.editor.forward_flow", lambda *_: pytest.fail("flow was sought"))
    assert not edited(flatten(flow_layers=[]), STAR)[0].equal(expected)


@pytest.mark.parametrize(("height", "width"), [(256, 256), (40, 72)])
def test_any_canvas_of_multiples_of_8(flatten, height, width):
    """At 256 x 256 the published code has no table for the middle block; 5 x 9 cells can't be halved."""
    method = flatten(
        model=SquaresModel(), num_frames=2, height=height, width=width, inversion_steps=2, sampling_steps=1,
        injection_steps=1,
    )  # fmt: skip
    (Z,) = edited(method, STAR, footage=moving(2, height, width))
    assert Z.shape == (4, 2, height // 8, width // 8)
    assert Z.isfinite().all()


def test_the_true_motion_of_the_embedded_world_carries_its_object_along():
    from assd.shapes.motion import motion  # noqa: PLC0415
    from assd.shapes.world import Clip, render  # noqa: PLC0415

    clip = Clip("red", "square", "right", "snow", radius=0.3, x=0.0, y=0.1, travel=0.7, texture=1)
    frames, masks, _ = render(clip)
    flow = motion(clip)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    places = torch.stack([x + flow[:, 0], y + flow[:, 1]], dim=-1)
    carried = F.grid_sample(frames[1:], (2 * places + 1) / 64 - 1, align_corners=False)
    inner = F.max_pool2d((~masks[:-1]).float(), 7, stride=1, padding=3) == 0
    assert inner.sum() > 500
    assert (carried - frames[:-1]).abs().amax(1)[inner].max() < 0.05
    assert (frames[1:] - frames[:-1]).abs().amax(1)[masks[:-1]].max() > 0.5


# Bad input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (dict(num_frames=1), "num_frames must be >= 2"),
        (dict(height=60), "multiples of 8; got 60 x 32"),
        (dict(flow="farneback"), "flow must be one of dis, raft, true"),
        (dict(store="tape"), "store must be one of device, cpu, disk, recompute"),
        (dict(attention_chunk=0), "attention_chunk must be >= 1"),
        (dict(injection_steps=4), r"injection_steps must be in 0..3"),
        (
            dict(flow_layers=["mid_block"]),
            "flow_layers must name self-attention .*; got mid_block",
        ),
        (
            dict(injected_convolutions=["up_blocks.9.conv"]),
            "injected_convolutions must name .*; got 'up_blocks.9.conv'",
        ),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(flatten, changes, sentence):
    with pytest.raises(InputError, match=sentence):
        flatten(**changes)


def test_raft_needs_its_weights(flatten, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"flow=raft \(flow=dis needs none\) needs torchvision's raft_large"):
        flatten(flow="raft")


def test_true_flow_must_be_known(flatten):
    with pytest.raises(InputError, match="flow=true needs a dataset that knows its videos' motion"):
        edited(flatten(flow="true"), STAR)


def test_flow_belongs_to_the_finest_level(flatten):
    coarse = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    with pytest.raises(InputError, match="finest level, with 96 tokens in all frames; one has 24"):
        edited(flatten(flow_layers=[coarse]), STAR)


def test_features_that_have_no_room_are_refused_before_the_inversion(flatten, monkeypatch):
    monkeypatch.setattr("assd.diffusion.features.FeatureStore.room", lambda self: 1000)
    with pytest.raises(InputError, match="injection_steps=2 of FLATTEN takes"):
        edited(flatten(), STAR)


def test_a_network_with_one_level_of_attention_is_refused(flatten):
    shallow = dict(THREE_LEVELS, up_block_types=("UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"))
    with pytest.raises(InputError, match="needs two levels of the decoder with self-attention; there are 1"):
        flatten(model=SquaresModel(**shallow))


def test_a_video_model_is_refused(flatten, model):
    video_model = copy.copy(model)
    video_model.unet = networks.video_unet()
    with pytest.raises(InputError, match="FLATTEN edits with a text-to-image U-Net"):
        flatten(model=video_model)
