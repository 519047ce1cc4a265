"""Self-attention in TokenFlow: key frames attend to each other, and what they got flows to the other frames.

Axes beside those of `assd`: s streams, which share their frames and are a pass's batch (s f), the source first;
k key frames; p tokens of a key frame.
"""

import functools
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from assd.diffusion.attention import Processor
from assd.diffusion.frames import all_frames, attend_frames, own_frame, project, project_out

SIMILARITIES = 2**24  # held at once by the search: 64 MiB, one frame's 64 x 64 tokens times a key frame's


class TokenPropagation:
    """The self-attention layers of a network, in two kinds of pass over frames of a video.

    streams  s of every pass, the source video's first
    weights  None in a pass over all key frames: there the layers attend, and keep what goes in and comes out. In a
             pass over other frames, the share of each key frame in each of them: there the layers don't attend, and
             what came out at the key frames flows to the frames' tokens

    It keeps the source's normalised input tokens and all streams' output tokens of the key frames: with Stable
    Diffusion 1.x's layers at 64 x 64, (1 + s) 46 MB a key frame in float32, so 0.9 GB for the 5 key frames of 40 frames
    and one target. A pass over 8 frames takes 0.5 GB more at its largest layer, of which the search has 64 MiB; neither
    grows with the number of frames.
    """

    def __init__(self, streams: int):
        self.streams = streams
        self.weights: Float[Tensor, "f k"] | None = None
        self.tokens: dict[str, Float[Tensor, "k p d"]] = {}
        self.outputs: dict[str, Float[Tensor, "s k p d"]] = {}

    def processors(self, layers: Iterable[str]) -> dict[str, Processor]:
        """An attention processor for each of these layers."""
        return {layer: functools.partial(self.attention, layer) for layer in layers}

    def attention(
        self, layer: str, attn: Attention, hidden_states: Float[Tensor, "sf l d"], *_: object, **__: object
    ) -> Float[Tensor, "sf l d"]:
        """What the layer puts out in the pass that is under way."""
        if self.weights is not None:
            return self.propagated(layer, hidden_states)
        output = extended_attention(attn, hidden_states, self.streams)
        self.tokens[layer] = F.normalize(hidden_states[: len(hidden_states) // self.streams].float(), dim=-1)
        self.outputs[layer] = rearrange(output, "(s k) p d -> s k p d", s=self.streams)
        return output

    def propagated(self, layer: str, states: Float[Tensor, "sf l d"]) -> Float[Tensor, "sf l d"]:
        """sum_k w_k T_k[nearest_k]: of each key frame with a share, the output tokens at the nearest neighbours.

        The source's neighbours are every stream's.
        """
        assert self.weights is not None
        source = states[: len(self.weights)]
        flown = torch.zeros_like(rearrange(states, "(s f) l d -> s f l d", s=self.streams))
        for key, shares in enumerate(self.weights.T):
            if len(sharing := shares.nonzero().flatten()):
                nearest = self.nearest(layer, key, source[sharing])
                w = shares[sharing, None, None].to(states)
                flown[:, sharing] += w * self.outputs[layer][:, key, nearest]
        return rearrange(flown, "s f l d -> (s f) l d")

    def nearest(self, layer: str, key: int, source: Float[Tensor, "f l d"]) -> Int[Tensor, "f l"]:
        """Where in a key frame the source's tokens have their nearest neighbours."""
        return nearest_tokens(source, self.tokens[layer][key])


def extended_attention(attn: Attention, states: Float[Tensor, "sk p d"], streams: int) -> Float[Tensor, "sk p d"]:
    """The source's key frames attend each to itself; every other stream's attend to all of the stream."""
    q, k, v = project(attn, states)
    frames = len(states) // streams
    source = attend_frames(q[:frames], k[:frames], v[:frames], own_frame(frames), attn.scale)
    others = attend_frames(q[frames:], k[frames:], v[frames:], all_frames(frames), attn.scale)
    return project_out(attn, torch.cat([source, others]))


def nearest_tokens(tokens: Float[Tensor, "f l d"], key: Float[Tensor, "p d"]) -> Int[Tensor, "f l"]:
    """argmax_p cos(token, key_p), in float32, a chunk at a time; `key` has unit length, and a token's does not matter.

    A chunk holds at most `SIMILARITIES` numbers, whatever the number of frames.
    """
    queries = rearrange(tokens, "f l d -> (f l) d").float()
    chunks = queries.split(max(1, SIMILARITIES // len(key)))
    nearest = torch.cat([(chunk @ key.T).argmax(dim=-1) for chunk in chunks])
    return rearrange(nearest, "(f l) -> f l", f=len(tokens))
