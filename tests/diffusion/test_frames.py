"""Attention to chosen frames is diffusers' own attention to their tokens."""

import pytest
import torch
from diffusers.models.attention_processor import Attention

from assd.diffusion.frames import FrameAttention, all_frames, attend, attention_map, first_and_previous, own_frame
from assd.errors import InputError

VIDEOS, FRAMES, TOKENS, WIDTH = 2, 4, 6, 8


@pytest.fixture
def attn():
    torch.manual_seed(0)
    return Attention(WIDTH, heads=2, dim_head=WIDTH // 2).requires_grad_(False)


@pytest.mark.parametrize("table", [own_frame(4), first_and_previous(4), all_frames(4), [[3], [2], [1], [0]]])
def test_every_frame_sees_the_tokens_of_its_row(attn, table):
    states = torch.randn(VIDEOS * FRAMES, TOKENS, WIDTH)
    videos = states.unflatten(0, (VIDEOS, FRAMES))
    context = torch.stack([video[list(row)].flatten(0, 1) for video in videos for row in table])
    expected = attn(states, encoder_hidden_states=context)
    attn.set_processor(FrameAttention(table))
    torch.testing.assert_close(attn(states), expected)


def test_a_map_is_what_attention_weighs_values_by():
    q, k, v = torch.randn(3, 1, 2, TOKENS, WIDTH)
    torch.testing.assert_close(attention_map(q, k, 0.3) @ v, attend(q, k, v, 0.3))


@pytest.mark.parametrize("table", [[], [[0], [0, 1]], [[0], [2]], [[0], [-1]]])
def test_a_table_must_name_frames_that_there_are(table):
    with pytest.raises(InputError, match="frame table"):
        FrameAttention(table)
