"""Extended attention, a transformer block in both kinds of pass, injection in a ResNet block, and the plain U-Net."""

from collections.abc import Iterator

from einops import rearrange
from torch import Tensor

from assd.diffusion.attention import layer as attention_layer
from assd.diffusion.attention import processors_on
from assd.diffusion.features import Features, FeatureStore, outputs_changed
from assd.methods.tokenflow import TokenFlow
from assd.methods.tokenflow.injection import from_source
from assd.methods.tokenflow.key_frames import KeyFrames
from assd.methods.tokenflow.propagation import TokenPropagation
from tests.parity.points import Case, Point
from tests.parity.tokenflow.setup import LAYERS, PUBLISHED_BLEND, UNET, RecordingModel
from tests.parity.tokenflow.watch import nearest_watched

INJECTED, NEVER_INJECTED = (f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn1" for i in (1, 0))
TESTED_BLOCK = "up_blocks.2.attentions.0.transformer_blocks.0"
RESNET = "up_blocks.1.resnets.1"


def attention_points(case: Case, model: RecordingModel, pnp: TokenFlow) -> Iterator[Point]:
    """Extended attention in one layer, with and without injected Q and K."""
    states = case.normal(401, case["layer.ext_attn.plain"].shape)

    def attended(name: str, injected: tuple[str, ...]) -> Tensor:
        processors = TokenPropagation(streams=3).processors([name])
        with processors_on(model.unet, processors), outputs_changed(model.unet, injected, from_source(3)):
            return attention_layer(model.unet, name)(states)

    first_step = pnp.injection.layers(0)
    yield case.of_largest("layer.ext_attn.inject", attended(INJECTED, first_step), LAYERS)
    yield case.of_largest("layer.ext_attn.plain", attended(INJECTED, ()), LAYERS)
    yield case.of_largest("layer.ext_attn.sdedit", attended(INJECTED, ()), LAYERS)
    yield case.of_largest("layer.ext_attn.up1_0_first_step", attended(NEVER_INJECTED, first_step), LAYERS)


def block_points(case: Case, model: RecordingModel) -> Iterator[Point]:
    """One transformer block: the pass over key frames, then one over each batch."""
    block = Block(model)
    _, keys, *_ = case["block.pivot_norm1"].shape
    text_shape = case["in.emb_target"].shape[1:]
    out, after_attn1 = block(case.normal(411, case["block.pivot_out"].shape), case.normal(413, (3 * keys, *text_shape)))
    yield case.of_largest("block.pivot_out", out, LAYERS)
    yield case.of_largest("block.pivot_after_attn1", after_attn1, LAYERS)
    for name in ("norm1", "attn1"):
        kept = rearrange(block.features.store.get(0, f"{TESTED_BLOCK}.{name}"), "(s k) l d -> s k l d", s=3)
        yield case.of_largest(f"block.pivot_{name}", kept, LAYERS)

    states = case.normal(412, case["block.batch0_out"].shape)
    text, n = case.normal(414, (len(states), *text_shape)), len(states) // 3
    weights = KeyFrames(keys * n, n, **PUBLISHED_BLEND).weights(range(0, keys * n, n))
    for b in range(keys):
        with nearest_watched(model) as found:
            block.propagation.weights = weights[b * n : (b + 1) * n]
            out, after_attn1 = block(states, text)
        nearest = {key: indices for (_, _, key), (indices, _) in found.items()}
        yield case.of_largest(f"block.batch{b}_out", out, LAYERS)
        yield case.of_largest(f"block.batch{b}_after_attn1", after_attn1, LAYERS)
        yield case.exact(f"block.batch{b}_nn_own", nearest[b])
        if b:
            yield case.exact(f"block.batch{b}_nn_prev", nearest[b - 1])


class Block:
    """A transformer block as it is during an edit of one target, and what its first layers put out."""

    def __init__(self, model: RecordingModel):
        self.unet, self.propagation = model.unet, TokenPropagation(streams=3)
        self.features = Features(self.unet, tuple(f"{TESTED_BLOCK}.{x}" for x in ("norm1", "attn1")), FeatureStore())

    def __call__(self, states: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output, and its states behind self-attention."""
        attn1 = f"{TESTED_BLOCK}.attn1"
        with processors_on(self.unet, self.propagation.processors([attn1])), self.features.tapped(0):
            out = self.unet.get_submodule(TESTED_BLOCK)(states, encoder_hidden_states=text)
        return out, states + self.features.store.get(0, attn1)


def network_points(case: Case, model: RecordingModel, pnp: TokenFlow) -> Iterator[Point]:
    """A ResNet block with and without injection, and the plain U-Net."""
    resnet, (rows, *_, h, w) = model.unet.get_submodule(RESNET), case["layer.resnet.plain"].shape
    states = case.normal(421, (rows, resnet.in_channels, h, w))
    temb = case.normal(422, (rows, resnet.time_emb_proj.in_features))
    with outputs_changed(model.unet, pnp.injection.convolution_layers, from_source(3)):
        yield case.of_largest("layer.resnet.inject", resnet(states, temb), LAYERS)
    yield case.of_largest("layer.resnet.plain", resnet(states, temb), LAYERS)
    sample = case.normal(430, case["unet.plain"].shape)
    text = case.normal(431, (len(sample), *case["in.emb_target"].shape[1:]))
    yield case.of_largest("unet.plain", model.unet(sample, 501, encoder_hidden_states=text).sample, UNET)
