"""Weighted attention fusion, on one diffusers attention module and in a whole U-Net."""

import math

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
from einops import rearrange

from assd.errors import InputError
from assd.methods.score_distillation.fusion import FusedAttention, WeightedAttentionFusion, unmodified

DECODER = [
    "up_blocks.0.attentions.0.transformer_blocks.0.attn1",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn1",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn1",
]  # the decoder's spatial self-attentions, towards the output
PROMPTS = ("a red circle moving right over snow", "a blue circle moving right over snow")


def identity_attention():
    """One head of width 4 whose projections are the identity: Q = K = V = its input, and sqrt(d) = 2."""
    attention = Attention(query_dim=4, heads=1, dim_head=4)
    for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
        torch.nn.init.eye_(layer.weight)
    torch.nn.init.zeros_(attention.to_out[0].bias)
    return attention.requires_grad_(False)


def batch(model, equal_branches=False):
    """Latents and embeddings of (half, branch): editing and reference under the empty prompt, then under their own."""
    z = torch.randn((2, 6, 8, 16, 16), generator=torch.Generator().manual_seed(0))
    target, source = (PROMPTS[1], PROMPTS[0])
    if equal_branches:
        z, target = z[:1].repeat(2, 1, 1, 1, 1), source
    return torch.cat([z, z]), model.embed(("", "", target, source))


def branches(output):
    """Editing and reference branch of a U-Net's batch."""
    return rearrange(output, "(half branch) ... -> branch half ...", half=2, branch=2)


@pytest.fixture
def forward(tiny_video_model):
    """Predicts a batch, under fusion where there is one."""

    def run(fusion=None, **kwargs):
        z, embeddings = batch(tiny_video_model, **kwargs)
        if fusion is None:
            return tiny_video_model.predict(z, 500, embeddings)
        with fusion(tiny_video_model, 2):
            return tiny_video_model.predict(z, 500, embeddings)

    return run


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_two_tokens_by_hand(processor):
    """Eqs. 11-13 with Q = K = V = z, K_ref = V_ref = r, sqrt(d) = 2, lambda = 0.8, a = sqrt(2 ln 3), so a a / 2 = ln 3.

    z1 = (0, 0, 0, 0), z2 = (a, 0, 0, 0);  r1 = (-a, 0, 8, 0), r2 = (a, 4, 0, 0)
    SelfAttn of z1: logits (0, 0),        weights 1/2, 1/2:    (0.5 a, 0, 0, 0)
    SelfAttn of z2: logits (0, ln 3),     weights 1/4, 3/4:    (0.75 a, 0, 0, 0)
    RefAttn  of z1: logits (0, 0),        weights 1/2, 1/2:    (0, 2, 4, 0)
    RefAttn  of z2: logits (-ln 3, ln 3), weights 1/10, 9/10:  (0.8 a, 3.6, 0.8, 0)
    AttnFusion = 0.2 SelfAttn + 0.8 RefAttn:  z1 -> (0.1 a, 1.6, 3.2, 0),  z2 -> (0.79 a, 2.88, 0.64, 0)

    The other frame and guidance half have z = 0 and constant references k, so that RefAttn is k and AttnFusion 0.8 k.
    """
    a = math.sqrt(2 * math.log(3))
    states = torch.zeros(2, 2, 2, 2, 4)  # half, branch, frame, token, d
    states[0, 0, 0] = torch.tensor([[0, 0, 0, 0], [a, 0, 0, 0]])
    states[0, 1, 0] = torch.tensor([[-a, 0, 8, 0], [a, 4, 0, 0]])
    states[0, 1, 1], states[1, 1, 0], states[1, 1, 1] = 10.0, 20.0, 30.0
    attention = identity_attention()
    before = processor()(attention, states.flatten(0, 2)).reshape(states.shape)
    attention.set_processor(FusedAttention(0.8, 2, processor()))
    after = attention(states.flatten(0, 2)).reshape(states.shape)

    torch.testing.assert_close(after[0, 0, 0], torch.tensor([[0.1 * a, 1.6, 3.2, 0], [0.79 * a, 2.88, 0.64, 0]]))
    for half, frame, k in ((0, 1, 10.0), (1, 0, 20.0), (1, 1, 30.0)):
        torch.testing.assert_close(after[half, 0, frame], torch.full((2, 4), 0.8 * k))
    assert torch.equal(after[:, 1], before[:, 1])


@pytest.mark.parametrize("processor", [AttnProcessor, AttnProcessor2_0])
def test_two_edits_share_one_reference(processor):
    """Of branches (edit, edit, reference) each edit becomes what it becomes as (edit, reference) alone."""
    torch.manual_seed(0)
    attention = Attention(query_dim=4, heads=2, dim_head=4).requires_grad_(False)
    states = torch.randn(2, 3, 5, 7, 4)  # half, branch, frame, token, d
    attention.set_processor(FusedAttention(0.8, 3, processor()))
    together = attention(states.flatten(0, 2)).reshape(states.shape)
    attention.set_processor(FusedAttention(0.8, 2, processor()))
    for i in range(2):
        pair = states[:, [i, 2]]
        alone = attention(pair.flatten(0, 2)).reshape(pair.shape)
        torch.testing.assert_close(together[:, [i, 2]], alone)


def test_output_projection_with_a_bias():
    """Mixing projected outputs equals projecting the mix: the bias counts once, not twice or 0.2 times."""
    attention = identity_attention()
    attention.to_out[0].bias.fill_(7.0)
    attention.set_processor(FusedAttention(0.8, 2, AttnProcessor2_0()))
    states = torch.zeros(4, 2, 4)
    torch.testing.assert_close(attention(states), torch.full((4, 2, 4), 7.0))


def test_lambda_zero_is_the_unmodified_network(forward):
    """lambda = 0 changes no bit of the U-Net's output."""
    assert torch.equal(forward(WeightedAttentionFusion(0.0, 4)), forward())


def test_fusion_changes_the_editing_branch_alone(forward):
    """With lambda = 0.8 both guidance halves of the editing branch move, and no bit of the reference's output does."""
    editing, reference = branches(forward(WeightedAttentionFusion(0.8, 3)))
    plain_editing, plain_reference = branches(forward())
    assert torch.equal(reference, plain_reference)
    assert all((editing - plain_editing).flatten(1).abs().amax(1) > 1e-3)


def test_fused_layers_leave_the_reference_alone(tiny_video_model, forward):
    """The reference half that comes out of every fused layer is that of the unmodified network, bit for bit."""

    def outputs(fusion):
        kept = {}
        modules = [(name, tiny_video_model.network.get_submodule(name)) for name in DECODER]
        hooks = [
            m.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out})) for name, m in modules
        ]
        forward(fusion)
        for hook in hooks:
            hook.remove()
        return {name: split(out) for name, out in kept.items()}

    def split(out):
        return rearrange(out, "(half branch n) l d -> branch half n l d", half=2, branch=2)

    plain, fused = outputs(None), outputs(WeightedAttentionFusion(0.8, 4))
    assert len(fused) == 4
    for name in DECODER:
        assert torch.equal(fused[name][1], plain[name][1])
        assert not torch.allclose(fused[name][0], plain[name][0], atol=1e-3)


def test_lambda_one_with_equal_branches_is_the_identity(forward):
    """Where both branches hold the same, looking at the other is looking at oneself."""
    fused = forward(WeightedAttentionFusion(1.0, 4), equal_branches=True)
    torch.testing.assert_close(fused, forward(equal_branches=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_the_last_k_layers_of_the_decoder_are_fused(tiny_video_model, k):
    """Counted from the output; no temporal, cross- or encoder attention, and none of the others is touched."""
    unet = tiny_video_model.network
    before = unet.attn_processors
    with WeightedAttentionFusion(0.8, k)(tiny_video_model, 2):
        inside = unet.attn_processors
    assert [n for n in inside if isinstance(inside[n], FusedAttention)] == [f"{n}.processor" for n in DECODER[-k:]]
    assert all(inside[n] is before[n] for n in before if not isinstance(inside[n], FusedAttention))


def test_processors_return_on_exit(tiny_video_model):
    """After the context every layer has the very processor it had, and the context can be entered again."""
    unet, fusion = tiny_video_model.network, WeightedAttentionFusion(0.8, 2)
    before = unet.attn_processors
    for _ in range(2):
        with fusion(tiny_video_model, 2):
            assert unet.attn_processors != before
        assert same(unet.attn_processors, before)


def test_processors_return_after_an_error(tiny_video_model):
    """A run that fails inside the context leaves no hook behind for the next pair, and its error is not swallowed."""
    unet = tiny_video_model.network
    before = unet.attn_processors
    with pytest.raises(KeyboardInterrupt), WeightedAttentionFusion(0.8, 2)(tiny_video_model, 2):
        raise KeyboardInterrupt
    assert same(unet.attn_processors, before)


def same(processors, others):
    """The same objects under the same names."""
    return processors.keys() == others.keys() and all(processors[name] is others[name] for name in others)


def test_more_layers_than_the_decoder_has(tiny_video_model):
    """k is checked against the network; the message has the number there are, and nothing was replaced."""
    unet = tiny_video_model.network
    before = unet.attn_processors
    fusion = WeightedAttentionFusion(0.8, 5)
    with pytest.raises(InputError, match="layers must be at most 4"), fusion(tiny_video_model, 2):
        pass
    assert same(unet.attn_processors, before)


def test_without_fusion_nothing_is_touched(tiny_video_model):
    """attention=none leaves every processor where it is."""
    before = tiny_video_model.network.attn_processors
    with unmodified(tiny_video_model, 2):
        assert same(tiny_video_model.network.attn_processors, before)


def test_no_layers():
    """k = 0 would take `names[-0:]`, every layer: it is refused."""
    with pytest.raises(InputError, match="layers"):
        WeightedAttentionFusion(0.8, 0)


@pytest.mark.parametrize("lam", [-0.1, 1.1, math.nan])
def test_lambda_out_of_range(lam):
    """A weight outside [0, 1] is refused, by name."""
    with pytest.raises(InputError, match="lam"):
        WeightedAttentionFusion(lam, 3)
