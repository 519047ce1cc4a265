"""TokenFlow's recorded points, computed by the classes that edit.

Complete edits go through the method's contract, and every prediction, nearest neighbour and latent is looked at. Single
layers have the processors and hooks that an edit puts on them.
"""

import contextlib
import re
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from assd.data.pairs import Footage
from assd.diffusion.attention import layer as attention_layer
from assd.diffusion.attention import processors_on
from assd.diffusion.features import Features, FeatureStore, outputs_changed
from assd.diffusion.guidance import guided_prediction
from assd.diffusion.inversion import DDIM, downwards
from assd.diffusion.schedule import CLEAN
from assd.methods.method import Checkpoint, Request, ignore_progress
from assd.methods.reconstruction import Reconstruction
from assd.methods.recorder import Recorder
from assd.methods.tokenflow.editor import Inversion, TokenFlow, noise_in
from assd.methods.tokenflow.injection import from_source
from assd.methods.tokenflow.key_frames import KeyFrames
from assd.methods.tokenflow.propagation import TokenPropagation
from tests.parity.network import TableModel, tiny_unet
from tests.parity.points import Case, Point

EXACT, LAYERS, UNET, LATER, FINAL = 1e-6, 1e-5, 2e-5, 1e-4, 2e-4  # of the largest magnitude, as case.json suggests
MARGIN = 5e-6  # of a cosine; float32 instead of float64 moves the smallest margins by at most 1.4e-6
SOURCE, NEGATIVE, TARGET = PROMPTS = ("source", "negative", "target")
PROMPT_KEYS = {SOURCE: ("in.emb_inversion", 1), NEGATIVE: ("in.emb_negative", 2), TARGET: ("in.emb_target", 3)}
PUBLISHED_BLEND = dict(neighbours="previous", weighting="sigmoid", distance="batch_centre")
PUBLISHED = dict(start="renoised", sdedit_slice="truncated", network_time="target", **PUBLISHED_BLEND)
WATCHED_BLOCK = "up_blocks.2.attentions.1.transformer_blocks.0"
TESTED_BLOCK = "up_blocks.2.attentions.0.transformer_blocks.0"
INJECTED, NEVER_INJECTED = (f"up_blocks.1.attentions.{i}.transformer_blocks.0.attn1" for i in (1, 0))
RESNET = "up_blocks.1.resnets.1"


def points(case: Case) -> Iterator[Point]:
    """Inputs, schedules and weights; layers; inversion; edits and the U-Net within them."""
    model = RecordingModel(case)
    pnp, sdedit = (editor(case, model, variant) for variant in ("pnp", "sdedit"))
    for name, key in PROMPT_KEYS.values():
        yield case.exact(name, case.normal(key, case[name].shape))
    yield from schedules(case, pnp, sdedit)
    yield from blend_weights(case)
    yield from attention_points(case, model, pnp)
    yield from block_points(case, model)
    yield from network_points(case, model, pnp)
    yield from inversion_points(case, model)
    yield from edit_points(case, "pnp", Watched(case, pnp))
    yield from edit_points(case, "sdedit", Watched(case, sdedit))
    yield case.of_largest("sdedit.per_frame_final", per_frame_edit(case, model, sdedit), FINAL)


class RecordingModel(TableModel):
    """The tiny network on the case's latents; what it predicts is kept, and what goes into one layer and comes out."""

    def __init__(self, case: Case):
        super().__init__(
            unet=tiny_unet(case.seed),
            prompts={prompt: case.tensor(name) for prompt, (name, _) in PROMPT_KEYS.items()},
            encoder=lambda frames: source_latents(case)[:, : len(frames)],
            decoder=lambda Z: torch.zeros(Z.shape[1], 3, 1, 1),
        )
        self.predictions: list[Tensor] = []
        self.features = Features(self.unet, tuple(f"{WATCHED_BLOCK}.{x}" for x in ("norm1", "attn1")), FeatureStore())

    def predict(self, z_t: Tensor, t: int, embeddings: Tensor) -> Tensor:
        """As ever."""
        with self.features.tapped(len(self.predictions)):
            self.predictions.append(super().predict(z_t, t, embeddings))
        return self.predictions[-1]


def source_latents(case: Case) -> Tensor:
    """(c f h w), frames that are not edited included."""
    return rearrange(case.tensor("in.x0"), "f c h w -> c f h w")


def editor(case: Case, model: TableModel, variant: str, **changes: object) -> TokenFlow:
    """As published, with the case's settings."""
    s, (steps, _) = case.settings, case["in.keyframe_offsets_pnp"].shape
    assert steps == s["n_timesteps"]
    settings = dict(
        model=model, num_frames=s["f_used"], height=8 * s["h"], width=8 * s["w"], seed=0, variant=variant,
        guidance_scale=s["guidance_scale"], negative_prompt=NEGATIVE, inversion_steps=s["n_inversion_steps"],
        sampling_steps=s["n_timesteps"], batch_size=s["batch_size"], pnp_attn_t=s["pnp_attn_t"], pnp_f_t=s["pnp_f_t"],
        sdedit_start=s["sdedit_start"], keyframe_offsets=case[f"in.keyframe_offsets_{variant}"].tolist(),
        checkpoint_every=1, checkpoint_seconds=1e9, **PUBLISHED,
    )  # fmt: skip
    return TokenFlow(**{**settings, **changes})


def footage(frames: int) -> Footage:
    """Of so many frames; their pixels don't matter."""
    return Footage(torch.zeros(frames, 3, 1, 1), fps=8.0)


def schedules(case: Case, pnp: TokenFlow, sdedit: TokenFlow) -> Iterator[Point]:
    """Timesteps, abar at them, and the steps at which features are injected."""

    def abar(timesteps: list[int]) -> list[float]:
        return [pnp.model.schedule[t].alpha ** 2 for t in timesteps]

    def injected(ending: str) -> list[int]:
        named = [any(name.endswith(ending) for name in pnp.injection.layers(i)) for i in range(len(pnp.timesteps))]
        return [t for t, is_named in zip(pnp.timesteps, named) if is_named]

    yield case.exact("sched.inversion_timesteps", pnp.inversion_timesteps)
    yield case.of_largest("sched.alphas_cumprod_inversion", abar(pnp.inversion_timesteps), EXACT)
    yield case.of_largest("sched.final_alpha_cumprod", abar([CLEAN])[0], EXACT)
    yield case.exact("sched.sampling_timesteps", pnp.timesteps)
    yield case.of_largest("sched.alphas_cumprod_sampling", abar(pnp.timesteps), EXACT)
    yield case.exact("sched.pnp_attn_timesteps", injected("to_q"))
    yield case.exact("sched.pnp_f_timesteps", injected("conv2"))
    yield case.exact("sched.sdedit_timesteps", sdedit.timesteps)


def blend_weights(case: Case) -> Iterator[Point]:
    """The own key frame's share in the frames of a batch behind the first."""
    sizes = {name: len(case[name]) for name in case.arrays.files if name.startswith("weights.blend")}
    for name, n in sizes.items():
        weights = KeyFrames(2 * n, n, **PUBLISHED_BLEND).weights([0, n])
        yield case.of_largest(name, weights[n:, 1], EXACT)


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
    """One transformer block: the pass over key frames, then one over each of the first batches."""
    _, keys, *_ = case["block.pivot_norm1"].shape
    frames = len(case["block.batch0_out"]) // 3
    weights = KeyFrames(keys * frames, frames, **PUBLISHED_BLEND).weights(range(0, keys * frames, frames))
    names = norm1, attn1 = f"{TESTED_BLOCK}.norm1", f"{TESTED_BLOCK}.attn1"
    block, propagation = model.unet.get_submodule(TESTED_BLOCK), TokenPropagation(streams=3)
    features = Features(model.unet, names, FeatureStore())

    def outputs(states: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        with processors_on(model.unet, propagation.processors([attn1])), features.tapped(0):
            out = block(states, encoder_hidden_states=text)
        return out, states + features.store.get(0, attn1)

    states = case.normal(411, case["block.pivot_out"].shape)
    text = case.normal(413, (3 * keys, *case["in.emb_target"].shape[1:]))
    out, after_attn1 = outputs(states, text)
    yield case.of_largest("block.pivot_out", out, LAYERS)
    yield case.of_largest("block.pivot_after_attn1", after_attn1, LAYERS)
    for name, point in ((norm1, "block.pivot_norm1"), (attn1, "block.pivot_attn1")):
        yield case.of_largest(point, rearrange(features.store.get(0, name), "(s k) l d -> s k l d", s=3), LAYERS)

    states, text = case.normal(412, case["block.batch0_out"].shape), case.normal(414, (3 * frames, *text.shape[1:]))
    now = len(model.predictions)
    for b in range(keys):
        with nearest_watched(model) as found:
            propagation.weights = weights[b * frames : (b + 1) * frames]
            out, after_attn1 = outputs(states, text)
        yield case.of_largest(f"block.batch{b}_out", out, LAYERS)
        yield case.of_largest(f"block.batch{b}_after_attn1", after_attn1, LAYERS)
        yield case.exact(f"block.batch{b}_nn_own", found[now, attn1, b][0])
        if b:
            yield case.exact(f"block.batch{b}_nn_prev", found[now, attn1, b - 1][0])


def network_points(case: Case, model: RecordingModel, pnp: TokenFlow) -> Iterator[Point]:
    """A ResNet block with and without injection, and the plain U-Net."""
    resnet, (rows, *_, h, w) = model.unet.get_submodule(RESNET), case["layer.resnet.plain"].shape
    states = case.normal(421, (rows, resnet.in_channels, h, w))
    temb = case.normal(422, (rows, resnet.time_emb_proj.in_features))
    with outputs_changed(model.unet, pnp.injection.convolution_layers, from_source(3)):
        yield case.of_largest("layer.resnet.inject", resnet(states, temb), LAYERS)
    yield case.of_largest("layer.resnet.plain", resnet(states, temb), LAYERS)
    sample, text = case.normal(430, case["unet.plain"].shape), case.normal(431, (2, *case["in.emb_target"].shape[1:]))
    yield case.of_largest("unet.plain", model.unet(sample, 501, encoder_hidden_states=text).sample, UNET)


def inversion_points(case: Case, model: RecordingModel) -> Iterator[Point]:
    """Two inversions of all frames, what sampling makes of them again, and where an edit starts."""
    s, every_frame = case.settings, case.settings["f_total"]
    Z_ref = source_latents(case)
    steps_of = {
        "inv10": (s["inv10"]["steps"], s["inv10"]["save_steps"]),
        "inv": (s["n_inversion_steps"], s["n_timesteps"]),
    }
    for name, (inversion_steps, sampling_steps) in steps_of.items():
        changes = dict(inversion_steps=inversion_steps, sampling_steps=sampling_steps, keyframe_offsets=None)
        tokenflow = editor(case, model, "pnp", **changes)
        inversion = tokenflow.invert(Z_ref, SOURCE, recorder(tokenflow))
        latents = {
            tokenflow.inversion_timesteps[-1]: inversion.z,
            **dict(zip(tokenflow.timesteps, inversion.trajectory)),
        }
        recorded = map(re.compile(rf"{name}\.t(\d+)").fullmatch, case.arrays.files)
        for t in (int(found[1]) for found in recorded if found):
            yield case.of_largest(f"{name}.t{t}", by_frame(latents[t]), UNET)
        again = Reconstruction(model, True, inversion_steps, "target", checkpoint_every=1, checkpoint_seconds=1e9)
        (edit,) = again(footage(every_frame), SOURCE, [Request(TARGET)], "clip")
        yield case.of_largest(f"{name}.recon", by_frame(edit.latents["Z"]), FINAL)

    Z_ref, z = Z_ref[:, : s["f_used"]], inversion.z[:, : s["f_used"]]
    noisiest = model.schedule[tokenflow.inversion_timesteps[-1]]
    yield case.of_largest("start.eps", by_frame(noise_in(z, Z_ref, noisiest)), UNET)
    for variant in ("pnp", "sdedit"):
        start = editor(case, model, variant).started(Z_ref, Inversion(z, inversion.trajectory), "clip")
        yield case.of_largest(f"start.{variant}", by_frame(start), UNET)


def recorder(tokenflow: TokenFlow) -> Recorder:
    """Of a call that begins at the beginning."""
    return Recorder(
        [Request(TARGET)], "clip", tokenflow.num_steps, every=1, seconds=1e9, advance=ignore_progress, advice=""
    )


def by_frame(Z: Tensor) -> Tensor:
    """As the authors order it."""
    return rearrange(Z, "c f h w -> f c h w")


@contextlib.contextmanager
def nearest_watched(model: RecordingModel) -> Iterator[dict]:
    """Within it what a search finds is kept by (number of the pass, layer, key frame): indices, and smallest margin.

    A token's margin is the gap between the largest cosine and the next; of a key frame of one token, infinite.
    """
    found, nearest = {}, TokenPropagation.nearest

    def watched(self: TokenPropagation, layer: str, key: int, source: Tensor) -> Tensor:
        indices = nearest(self, layer, key, source)
        cosines = (F.normalize(source, dim=-1) @ self.tokens[layer][key].T).topk(min(2, len(self.tokens[layer][key])))
        first, *second = cosines.values.unbind(-1)
        found[len(model.predictions), layer, key] = (
            indices,
            min([float((first - other).min()) for other in second], default=np.inf),
        )
        return indices

    TokenPropagation.nearest = watched
    try:
        yield found
    finally:
        TokenPropagation.nearest = nearest


class Watched:
    """A complete edit: its start and its latents after every step, the inputs and outputs of its passes."""

    def __init__(self, case: Case, tokenflow: TokenFlow):
        self.tokenflow, self.model, self.x = tokenflow, tokenflow.model, []
        self.batches = len(tokenflow.key_frames.batches)
        self.begin = len(self.model.predictions) + len(tokenflow.inversion_timesteps) * self.batches
        with nearest_watched(self.model) as self.nearest:
            tokenflow(footage(tokenflow.num_frames), SOURCE, [Request(TARGET, checkpoint=self.keep)], "clip")

    def keep(self, checkpoint: Checkpoint, curves: list[dict]) -> None:
        """One checkpoint a step; of the last one before sampling, the latent with which it begins."""
        if "Z" in checkpoint:
            self.x.append(checkpoint["Z"].clone())
        else:
            Z_ref = self.model.encode(footage(self.tokenflow.num_frames).frames)
            inversion = Inversion(checkpoint["inverted"], checkpoint["trajectory"])
            self.x = [self.tokenflow.started(Z_ref, inversion, "clip")]

    def number(self, step: int, batch: int | None) -> int:
        """Of a pass over a batch of frames, or over the key frames."""
        return self.begin + step * (1 + self.batches) + (0 if batch is None else 1 + batch)

    def candidates(self) -> Iterator[tuple[int, int, int, int]]:
        """(step, batch, candidate, key frame), the candidates being the own key frame and the previous one."""
        for step in range(len(self.tokenflow.timesteps)):
            for batch in range(self.batches):
                for candidate, key in enumerate([batch, batch - 1][: 1 + min(batch, 1)]):
                    yield step, batch, candidate, key


def edit_points(case: Case, name: str, edit: Watched) -> Iterator[Point]:
    """The passes that are recorded, every latent, and every nearest neighbour."""
    passes = re.compile(rf"{name}\.step(\d+)\.(?:pivot|batch(\d+))\.(\w+)")
    for point, found in ((point, passes.fullmatch(point)) for point in case.arrays.files):
        if found:
            step, batch, what = int(found[1]), found[2] and int(found[2]), found[3]
            yield pass_point(case, point, edit, step, batch, what)
    yield case.of_largest(f"{name}.x", torch.stack([by_frame(x) for x in edit.x]), FINAL)
    if f"{name}.nn_all" in case:
        yield from nearest_points(case, name, edit)


def pass_point(case: Case, point: str, edit: Watched, step: int, batch: int | None, what: str) -> Point:
    """What is recorded of one pass: the prediction, an output in the watched block, or nearest neighbours there."""
    number, limit = edit.number(step, batch), LATER if step else UNET
    if what == "unet":
        return case.of_largest(point, rearrange(edit.model.predictions[number], "s c f h w -> (s f) c h w"), limit)
    if what in ("norm1", "attn1"):
        feature = edit.model.features.store.get(number, f"{WATCHED_BLOCK}.{what}")
        return case.of_largest(point, rearrange(feature, "(s k) l d -> s k l d", s=3), limit)
    key = {"nn_own": batch, "nn_prev": batch - 1}[what]
    return case.exact(point, edit.nearest[number, f"{WATCHED_BLOCK}.attn1", key][0])


def nearest_points(case: Case, name: str, edit: Watched) -> Iterator[Point]:
    """All indices of an edit, and the smallest margins."""
    layers = [f"{block}.attn1" for block in case.facts["nn_layer_order"]]
    margins, indices = np.full(case[f"{name}.nn_margin"].shape, np.inf), []
    for step, batch, candidate, key in edit.candidates():
        found = [edit.nearest[edit.number(step, batch), layer, key] for layer in layers]
        indices += [index.flatten() for index, _ in found]
        margins[step, batch, candidate] = min(margin for _, margin in found)
    yield case.exact(f"{name}.nn_all", torch.cat(indices))
    ours, theirs = case.pair(f"{name}.nn_margin", margins)
    differ = ours != theirs  # both are infinite where there is no candidate
    yield Point(f"{name}.nn_margin", float(np.abs(ours[differ] - theirs[differ]).max(initial=0)), MARGIN)


def per_frame_edit(case: Case, model: RecordingModel, sdedit: TokenFlow) -> Tensor:
    """Not TokenFlow: every frame sampled alone, from the same start."""
    ddim, z = DDIM(model.schedule, model.prediction), rearrange(case.tensor("start.sdedit"), "f c h w -> 1 c f h w")

    def predict(z: Tensor, t: int) -> Tensor:
        return guided_prediction(model, z, t, (TARGET,), sdedit.guidance_scale, NEGATIVE)

    for t, to in downwards(sdedit.timesteps):
        z = ddim.sampling_step(predict, z, t, to)
    return by_frame(z[0])
