"""FLATTEN's phases: trajectories, inversion with its features, sampling with injection."""

import contextlib
import functools
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data.flow import FLOWS, RaftFlow, enlarged
from assd.data.pairs import Canvas, Footage
from assd.diffusion.attention import processors_on
from assd.diffusion.draw import generator
from assd.diffusion.features import PLACES, Features, FeatureStore, named, queries_and_keys
from assd.diffusion.guidance import check_scale, guided_prediction
from assd.diffusion.inversion import DDIM
from assd.diffusion.model import Model, check_self_attention
from assd.diffusion.trajectories import Trajectories, trajectories
from assd.errors import InputError, require
from assd.files import require_weights
from assd.methods.flatten.attention import FlowGuidedAttention
from assd.methods.flatten.inverted import Inverted, begun
from assd.methods.flatten.layers import finest_self_attention, injected_attention, injected_convolutions
from assd.methods.flatten.steps import Steps
from assd.methods.method import Advance, Edit, Request, check_prompts, decoded, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.models.inflation import image_unet, joint_group_norm

log = logging.getLogger(__name__)
ADVICE = "Try dtype float32 in the model, a smaller guidance_scale, or more steps"
TRUE = "true"  # the flow that a dataset knows
RECOMPUTE = "recompute"
WINDOW = 2  # of published trajectories, in cells


@dataclass(frozen=True)
class Flatten:
    """Edits a video with an image model that sees its frames together and follows its motion.

    model             an image model with a U-Net of diffusers
    num_frames, height, width  the canvas: at least two frames, sides of multiples of 8
    seed              decides, with the clip's name, which trajectory goes on where several meet
    guidance_scale, negative_prompt  w of sampling, and what guidance leads away from
    inversion_steps   must visit the sampling timesteps that take features: a multiple of `sampling_steps`
    injection_steps   of sampling, from its beginning: they take features of the inversion
    inversion_prompt  under which the video is inverted, without guidance; None is the source prompt
    old_qk            whether attention along trajectories compares the layer's own queries and keys; else what dense
                      attention put out
    flow              `dis`, `raft` where torchvision's weights are present, or `true` where the dataset knows it
    flow_layers       self-attention that follows the flow; None is the published rule, all at the finest level. Without
                      any, attention is dense and no flow is sought
    injected_attention, injected_convolutions  layers of which Q and K, and the outputs, are injected. None is the
                      published rule, see `layers`
    attention_chunk   queries that attend at once; None is all, which a fused kernel does without the scores in memory
    store             place of the features: `device`, `cpu`, `disk`; or `recompute`, which keeps none and costs one
                      more pass of the network in each step with injection
    fill_short_tracks, shifted_levels, match_by_position
                      what the published code does beside the paper, see conf/method/flatten.yaml
    """

    model: Model
    num_frames: int
    height: int
    width: int
    seed: int
    guidance_scale: float
    negative_prompt: str
    inversion_steps: int
    sampling_steps: int
    injection_steps: int
    inversion_prompt: str | None
    old_qk: bool
    flow: str | bool
    attention_chunk: int | None
    store: str
    checkpoint_every: int
    checkpoint_seconds: float
    flow_layers: Sequence[str] | None = None
    injected_attention: Sequence[str] | None = None
    injected_convolutions: Sequence[str] | None = None
    fill_short_tracks: bool = False
    shifted_levels: bool = False
    match_by_position: bool = False

    def __post_init__(self):
        image_unet(self.model, "FLATTEN")
        check_scale(self.guidance_scale)
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)
        self.check_canvas()
        flows, places = (*FLOWS, TRUE), (*PLACES, RECOMPUTE)
        object.__setattr__(self, "flow", str(self.flow).lower())  # YAML reads `true` as a truth value
        require(self.flow in flows, f"flow must be one of {', '.join(flows)}; got {self.flow!r}")
        if self.flow == "raft":
            require_weights("flow=raft (flow=dis needs none)", RaftFlow.weights)
        require(self.store in places, f"store must be one of {', '.join(places)}; got {self.store!r}")
        chunk = self.attention_chunk
        require(chunk is None or chunk >= 1, f"attention_chunk must be >= 1, or null for all queries; got {chunk}")
        self.check_layers()
        _ = self.steps.sources

    def check_canvas(self) -> None:
        """Raises InputError for a canvas on which there is no motion, or that the network can't halve."""
        require(self.num_frames >= 2, f"num_frames must be >= 2, for one frame doesn't move; got {self.num_frames}")
        require(
            self.height % 8 == 0 and self.width % 8 == 0,
            f"height and width must be multiples of 8; got {self.height} x {self.width}",
        )

    def check_layers(self) -> None:
        """Raises InputError unless the network has the layers with flow and those to inject into."""
        check_self_attention(self.model, "flow_layers", self.flow_layers or ())
        check_self_attention(self.model, "injected_attention", self.injected_attention or ())
        named(self.model.network, (*self.guided_layers, *self.injected_layers), "injected_convolutions")

    @property
    def canvas(self) -> Canvas:
        """As the arguments say."""
        return Canvas(self.num_frames, self.height, self.width)

    @property
    def num_steps(self) -> int:
        """Of inversion and sampling."""
        return len(self.steps.inversion) + self.sampling_steps

    @functools.cached_property
    def steps(self) -> Steps:
        """Of inversion and sampling."""
        return Steps(
            schedule=self.model.schedule,
            inversion_steps=self.inversion_steps,
            sampling_steps=self.sampling_steps,
            injection_steps=self.injection_steps,
            shifted_levels=self.shifted_levels,
            match_by_position=self.match_by_position,
        )

    @property
    def guided_layers(self) -> tuple[str, ...]:
        """See `flow_layers`."""
        if self.flow_layers is not None:
            return tuple(self.flow_layers)
        return finest_self_attention(image_unet(self.model, "FLATTEN"), self.model.layers)

    @property
    def injected_layers(self) -> tuple[str, ...]:
        """See `injected_attention` and `injected_convolutions`."""
        layers, attention, convolutions = self.model.layers, self.injected_attention, self.injected_convolutions
        attention = injected_attention(layers) if attention is None else attention
        convolutions = injected_convolutions(layers) if convolutions is None else convolutions
        return (*convolutions, *queries_and_keys(attention))

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. The edits share the inversion, and are sampled as one batch."""
        check_prompts(self.model, source, requests, self.negative_prompt, self.inversion_prompt)
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        Z_ref = self.model.encode(footage.frames)
        along = self.trajectories(footage, clip, *Z_ref.shape[-2:]) if self.guided_layers else None
        return decoded(self.model, Z_ref, self.edited(Z_ref, source, along, recorder))

    def trajectories(self, footage: Footage, clip: str, h: int, w: int) -> Trajectories:
        """Of the latent's cells along the source's flow, drawn from (seed, clip) where they meet."""
        draws = random.Random(generator(self.seed, clip, "trajectories").initial_seed())
        return self.along(forward_flow(str(self.flow), footage, self.model.device), h, w, draws).to(self.model.device)

    def along(self, flow: Float[Tensor, "m 2 H W"], h: int, w: int, draws: random.Random) -> Trajectories:
        """What the layers with flow see of the trajectories; as many cells as frames, where short ones are filled."""
        if self.fill_short_tracks:
            return trajectories(flow, h, w, draws, WINDOW).itself_and_last(len(flow))
        return trajectories(flow, h, w, draws)

    def edited(
        self, Z_ref: Float[Tensor, "c f h w"], source: str, along: Trajectories | None, recorder: Recorder
    ) -> Float[Tensor, "b c f h w"]:
        """The latent of every edit, from where they stopped."""
        prompt = source if self.inversion_prompt is None else self.inversion_prompt
        inverted = Inverted(self.model, prompt, self.features(Z_ref), begun(recorder.requests[0], Z_ref.device))
        z = torch.stack([r.resume["Z"].to(Z_ref.device) if r.resume else Z_ref for r in recorder.requests])
        with self.inflated(Z_ref.shape[1], along):
            if recorder.begin < len(self.steps.inversion):
                z = self.invert(z[:1], inverted, recorder).repeat(len(z), 1, 1, 1, 1)
            return self.sample(z, inverted, recorder)

    def features(self, Z_ref: Float[Tensor, "c f h w"]) -> Features:
        """A store for those of the inversion. Says beforehand how large it grows; raises InputError without room."""
        place, steps = ("device", 1) if self.store == RECOMPUTE else (self.store, len(self.steps.sources))
        features = Features(self.model.network, self.injected_layers, FeatureStore(place))
        of_frame = features.nbytes_of(lambda: self.model.predict(Z_ref[None, :, :1], 0, self.model.embed(("",))))
        nbytes = of_frame * Z_ref.shape[1] * steps
        features.store.check_room(nbytes, f"injection_steps={self.injection_steps} of FLATTEN")
        tokens = Z_ref[0].numel()
        scores = 4 * tokens * min(self.attention_chunk or tokens, tokens)
        log.info(
            "FLATTEN keeps %.2f GiB of features (store: %s). Dense attention is among %d tokens; unless its kernel is "
            "fused its scores take %.2f GiB a head (attention_chunk: %s)",
            nbytes / 2**30, self.store, tokens, scores / 2**30, self.attention_chunk,
        )  # fmt: skip
        return features

    @contextlib.contextmanager
    def inflated(self, frames: int, along: Trajectories | None) -> Iterator[None]:
        """Within it the network treats the frames in its batch as one video."""
        network, guided = self.model.network, self.guided_layers
        processors = {
            name: FlowGuidedAttention(frames, along if name in guided else None, self.old_qk, self.attention_chunk)
            for name in self.model.layers.self_attention
        }
        with joint_group_norm(network, frames), processors_on(network, processors):
            yield

    def invert(
        self, z: Float[Tensor, "1 c f h w"], inverted: Inverted, recorder: Recorder
    ) -> Float[Tensor, "1 c f h w"]:
        """To noise, the network asked at the time of the latent; what sampling takes over is kept."""
        ddim, wanted = DDIM(self.model.schedule, self.model.prediction, "source"), self.steps.sources.values()
        kept = wanted if self.store != RECOMPUTE else ()
        for step, (s, t) in recorder.phase(self.steps.inversion):
            if s in wanted:
                inverted.latents[s] = z
            with inverted.features.tapped(s) if s in kept else contextlib.nullcontext():
                z = ddim.inversion_step(inverted.predict, z, s, t)
            if t in wanted:
                inverted.latents[t] = z
            measured, shared = {"t": t, "latent_norm": z.norm()}, z.expand(len(recorder.requests), -1, -1, -1, -1)
            recorder.note(step, [measured for _ in shared], functools.partial(inverted.checkpoint, shared))
        return z

    def sample(
        self, z: Float[Tensor, "b c f h w"], inverted: Inverted, recorder: Recorder
    ) -> Float[Tensor, "b c f h w"]:
        """From noise to the edits."""
        ddim, targets = DDIM(self.model.schedule, self.model.prediction), [r.target for r in recorder.requests]

        def predict(z: Float[Tensor, "b c f h w"], t: int) -> Float[Tensor, "b c f h w"]:
            return guided_prediction(self.model, z, t, targets, self.guidance_scale, self.negative_prompt)

        for step, (t, to) in recorder.phase(self.steps.sampling, first=len(self.steps.inversion)):
            with inverted.injected(self.steps.sources[t]) if t in self.steps.sources else contextlib.nullcontext():
                z = ddim.sampling_step(predict, z, t, to)
            measured = [{"t": t, "latent_norm": z_i.norm()} for z_i in z]
            recorder.note(step, measured, functools.partial(inverted.checkpoint, z))
        return z


def forward_flow(kind: str, footage: Footage, device: torch.device) -> Float[Tensor, "m 2 H W"]:
    """Of each frame to the next, small frames being enlarged. Raises InputError where a true flow isn't known."""
    if kind == TRUE:
        if footage.flow is None:
            raise InputError("flow=true needs a dataset that knows its videos' motion, such as dataset=shapes: use dis")
        return footage.flow
    frames = enlarged(footage.frames)
    return FLOWS[kind](str(device))(frames[:-1], frames[1:])
