"""TokenFlow: which key frames flow where, which layers are injected, and edits of which one knows what they must be."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from einops import rearrange

from assd.data.pairs import Footage
from assd.errors import InputError
from assd.methods.method import Method, Request
from assd.methods.reconstruction import Reconstruction
from assd.methods.tokenflow import TokenFlow, propagation
from assd.methods.tokenflow.injection import Injection, from_source
from assd.methods.tokenflow.key_frames import KeyFrames
from assd.models.unet import LatentDiffusion
from assd.shapes import networks
from tests.parity.network import SCHEDULER, UNET, tiny_unet

PUBLISHED = dict(neighbours="previous", weighting="sigmoid", distance="batch_centre")
CLEAN = dict(neighbours="adjacent", weighting="linear", distance="key_frame")


SNOW, BLUE, STAR = (f"a {it} moving right over snow" for it in ("red circle", "blue circle", "red star"))


class CountingModel(LatentDiffusion):
    """A random U-Net of three levels on the embedded world's texts and schedule; squares of pixels are its latents."""

    def __init__(self, scheduler=None, **unet):
        small = dict(
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(32, 32, 32), layers_per_block=1, cross_attention_dim=networks.TEXT_WIDTH,
        )  # fmt: skip
        torch.manual_seed(0)
        super().__init__(
            unet=tiny_unet(0, **{**small, **unet}),
            vae=None,
            vae_config={"scaling_factor": 1.0},
            text_encoder=networks.text_encoder(),
            tokenizer=networks.tokenizer(),
            scheduler=scheduler or networks.scheduler(),
        )
        self.encode, self.decode = pooled, enlarged
        self.frames = []  # of each pass

    def predict(self, z_t, t, embeddings):
        self.frames.append(z_t.shape[0] * z_t.shape[2])
        return super().predict(z_t, t, embeddings)


def pooled(frames):
    """The latent (4 f h w): means of squares in three colours, and their sum."""
    means = F.avg_pool2d(frames, 8)
    return rearrange(torch.cat([means, means.sum(1, keepdim=True)], 1), "f c h w -> c f h w")


def enlarged(Z):
    return F.interpolate(rearrange(Z[:3], "c f h w -> f c h w"), scale_factor=8)


@pytest.fixture(scope="module")
def model():
    return CountingModel()


@pytest.fixture
def tokenflow(model):
    """Makes an editor; a keyword is an argument that differs."""

    def make(**changes):
        settings = dict(
            model=model, num_frames=5, height=64, width=32, seed=3, variant="pnp", guidance_scale=4.0,
            negative_prompt="", inversion_steps=8, sampling_steps=4, network_time="target", batch_size=2,
            pnp_attn_t=0.5, pnp_f_t=0.75, sdedit_start=0.75, sdedit_slice="rounded", start="inverted",
            checkpoint_every=1, checkpoint_seconds=1e9, **CLEAN,
        )  # fmt: skip
        return TokenFlow(**{**settings, **changes})

    return make


@pytest.fixture
def moving():
    """Noise that moves by a square a frame."""
    still = F.interpolate(torch.rand(1, 3, 8, 4, generator=torch.Generator().manual_seed(1)), scale_factor=8) * 2 - 1
    return Footage(torch.cat([still.roll(8 * i, dims=-1) for i in range(5)]), fps=8.0)


def edited(method, footage, *requests, source=SNOW):
    return [edit.latents["Z"] for edit in method(footage, source, list(requests), "clip")]


def test_published_shares_are_the_authors():
    shares = {
        1: [0.7310586],
        4: [0.62245935, 0.6791787, 0.7310586, 0.6970593],
        5: [0.6456563, 0.6899745, 0.7310586, 0.7020633, 0.685201],
    }
    for n, own in shares.items():
        weights = KeyFrames(3 * n, n, **PUBLISHED).weights([0, n, 3 * n - 1])
        assert weights[:n].equal(torch.eye(3)[:1].expand(n, 3))
        torch.testing.assert_close(weights[n : 2 * n, 1], torch.tensor(own))
        torch.testing.assert_close(weights[2 * n :], weights[n : 2 * n].roll(1, dims=1))


def test_shares_between_key_frames_are_linear_and_a_key_frame_is_itself():
    weights = KeyFrames(7, 3, **CLEAN).weights([1, 5, 6])
    expected = [(1, 0, 0), (1, 0, 0), (3 / 4, 1 / 4, 0), (1 / 2, 1 / 2, 0), (1 / 4, 3 / 4, 0), (0, 1, 0), (0, 0, 1)]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_a_last_batch_may_be_smaller_and_key_frames_lie_in_their_batches():
    frames = KeyFrames(7, 3, **CLEAN)
    assert frames.batches == [range(0, 3), range(3, 6), range(6, 7)]
    drawn = {tuple(frames.drawn(0, "clip", 0, t)) for t in range(200)}
    assert drawn == {(i, j, 6) for i in range(3) for j in range(3, 6)}


def test_both_variants_have_the_same_key_frames_at_one_t(tokenflow):
    pnp, sdedit = tokenflow(), tokenflow(variant="sdedit")
    assert pnp.timesteps[1:] == sdedit.timesteps
    for step, t in enumerate(sdedit.timesteps):
        assert pnp.key_frames.drawn(3, "clip", step + 1, t) == sdedit.key_frames.drawn(3, "clip", step, t)


@pytest.mark.parametrize(
    ("chosen", "start", "first", "steps"),
    [("truncated", 0.9, 861, 44), ("rounded", 0.9, 881, 45), ("truncated", 1.0, 961, 49), ("rounded", 1.0, 981, 50),
     ("truncated", 0.02, 981, 50), ("rounded", 0.02, 1, 1)],
)  # fmt: skip
def test_sdedit_s_part_of_the_schedule(tokenflow, chosen, start, first, steps):
    fifty = dict(model=CountingModel(DDIMScheduler(**SCHEDULER)), sampling_steps=50, inversion_steps=100)
    sdedit = tokenflow(variant="sdedit", sdedit_start=start, sdedit_slice=chosen, **fifty)
    assert (sdedit.timesteps[0], len(sdedit.timesteps)) == (first, steps)
    assert sdedit.inversion_timesteps[-1] == first
    assert tokenflow(start="renoised", **fifty).inversion_timesteps[-1] == 991


def test_the_published_layers_of_stable_diffusion():
    model = CountingModel(**{**UNET, "cross_attention_dim": networks.TEXT_WIDTH})
    layers = Injection(model, attention_steps=1, convolution_steps=2).layers
    blocks = ["up_blocks.1.attentions.1", "up_blocks.1.attentions.2"]
    blocks += [f"up_blocks.{i}.attentions.{j}" for i in (2, 3) for j in range(3)]
    q_and_k = [f"{block}.transformer_blocks.0.attn1.{x}" for block in blocks for x in ("to_q", "to_k")]
    assert layers(0) == ("up_blocks.1.resnets.1.conv2", *q_and_k)
    assert layers(1) == ("up_blocks.1.resnets.1.conv2",)
    assert layers(2) == ()


def test_the_search_in_chunks_finds_what_a_plain_one_does(monkeypatch):
    monkeypatch.setattr(propagation, "SIMILARITIES", 40)
    tokens, key = torch.randn(3, 6, 8), F.normalize(torch.randn(9, 8), dim=-1)
    expected = F.cosine_similarity(tokens[:, :, None], key[None, None], dim=-1).argmax(-1)
    assert propagation.nearest_tokens(tokens, key).equal(expected)


def test_tokens_come_from_where_the_source_s_tokens_are_and_streams_do_not_mix():
    flow = propagation.TokenPropagation(streams=2)
    key = torch.randn(2, 4, 8)  # two key frames of four tokens
    flow.tokens["attn1"], flow.outputs["attn1"] = F.normalize(key, dim=-1), torch.randn(2, 2, 4, 8)
    moved = torch.tensor([2, 0, 3, 1])
    flow.weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    source = torch.stack([5 * key[0, moved], key[1]])
    flown = rearrange(flow.propagated("attn1", torch.cat([source, torch.randn(2, 4, 8)])), "(s f) l d -> f s l d", s=2)
    a, b = flow.outputs["attn1"].unbind(1)
    torch.testing.assert_close(flown[0], a[:, moved])
    in_a = F.cosine_similarity(key[1][:, None], key[0][None], dim=-1).argmax(-1)
    torch.testing.assert_close(flown[1], 0.25 * a[:, in_a] + 0.75 * b)


def test_injection_gives_every_stream_the_source_s_frames():
    output = torch.arange(6.0)[:, None]  # 3 streams of 2 frames
    assert from_source(3)("conv2", output).flatten().tolist() == [0, 1] * 3


def test_one_frame_under_the_source_prompt_without_injection_is_the_ddim_round_trip(model, tokenflow, moving):
    frame = Footage(moving.frames[:1], fps=8.0)
    plain = tokenflow(num_frames=1, inversion_steps=4, guidance_scale=1.0, pnp_attn_t=0.0, pnp_f_t=0.0)
    (Z,) = edited(plain, frame, Request(SNOW))
    again = Reconstruction(model, True, 4, "target", checkpoint_every=1, checkpoint_seconds=1e9)
    (expected,) = edited(again, frame, Request(SNOW))
    torch.testing.assert_close(Z, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["pnp", "sdedit"])
def test_of_a_video_that_stands_still_every_frame_is_the_edit_of_one(tokenflow, moving, variant):
    (one,) = edited(tokenflow(num_frames=1, variant=variant), Footage(moving.frames[:1], fps=8.0), Request(STAR))
    still = Footage(moving.frames[:1].expand(5, -1, -1, -1), fps=8.0)
    (Z,) = edited(tokenflow(variant=variant), still, Request(STAR))
    torch.testing.assert_close(Z, one.expand_as(Z), rtol=1e-3, atol=1e-3)


@pytest.mark.end_to_end
def test_several_targets_invert_once_and_come_out_as_alone(model, tokenflow, moving):
    requests = [Request(STAR), Request(BLUE)]
    method = tokenflow()
    assert isinstance(method, Method)
    model.frames.clear()
    together = edited(method, moving, *requests)
    inversion, key_frames, others = 8 * 5, 4 * 5 * 3, 4 * 5 * 5  # the source and two edits under two prompts each
    assert (sum(model.frames), method.num_steps) == (inversion + key_frames + others, 8 + 4)
    for request, Z in zip(requests, together):
        torch.testing.assert_close(Z, edited(method, moving, request)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("start", ["inverted", "renoised", "noise"])
@pytest.mark.end_to_end
def test_an_edit_that_was_interrupted_goes_on_with_the_same_bits(tokenflow, moving, start):
    method, kept, targets = tokenflow(start=start), {}, (STAR, BLUE)

    def keep(target):
        def checkpoint(state, curves):
            tensors = {key: value.clone() if key != "step" else value for key, value in state.items()}
            kept[target, state["step"]] = tensors

        return checkpoint

    expected = edited(method, moving, *(Request(target, checkpoint=keep(target)) for target in targets))
    last_inversion = len(method.inversion_timesteps)
    for step in (3, last_inversion, last_inversion + 2, method.num_steps):
        resumed = edited(method, moving, *(Request(target, resume=kept[target, step]) for target in targets))
        assert all(ours.equal(theirs) for ours, theirs in zip(resumed, expected)), step


def test_the_network_is_as_before(model, tokenflow, moving):
    before = dict(model.unet.attn_processors)
    edited(tokenflow(), moving, Request(STAR))
    assert model.unet.attn_processors == before
    assert not any(module._forward_hooks for module in model.unet.modules())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(inversion_steps=7), "take a multiple of sampling_steps, 4"),
        (dict(variant="p2p"), "variant must be one of pnp, sdedit; got 'p2p'"),
        (dict(distance="frame"), "distance must be one of key_frame, batch_centre"),
        (dict(pnp_f_t=1.5), r"pnp_f_t must be in \[0, 1\]"),
        (dict(batch_size=0), "batch_size must be >= 1"),
        (dict(variant="sdedit", sdedit_start=0.05), "leaves none"),
        (dict(keyframe_offsets=[[0, 0, 0]] * 3), "needs 4 rows, one a sampling step; got 3"),
        (dict(keyframe_offsets=[[0, 0, 0]] * 3 + [[0, 0, 1]]), r"batch of 2, 2, 1 frames; got \[0, 0, 1\] at step 3"),
        (dict(injected_attention=["mid_block"]), "injected_attention must name self-attention layers"),
        (dict(injected_convolutions=["up_blocks.9"]), r"got 'up_blocks\.9'"),
    ],
)
def test_what_cannot_be(tokenflow, changes, message):
    with pytest.raises(InputError, match=message):
        tokenflow(**changes)


def test_a_network_with_one_decoder_attention_can_be_edited_by_sdedit_alone(tokenflow):
    small = CountingModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 32),
    )  # fmt: skip
    tokenflow(model=small, variant="sdedit")
    with pytest.raises(InputError, match="at least two self-attention layers; model has 0"):
        tokenflow(model=small)
