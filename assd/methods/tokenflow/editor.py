"""TokenFlow's phases: inversion of every frame, then sampling with key frames that are drawn anew at each step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.attention import processors_on
from assd.diffusion.draw import generator
from assd.diffusion.features import outputs_changed
from assd.diffusion.guidance import check_scale, lerp_halves
from assd.diffusion.inversion import DDIM, NetworkTime, downwards, upwards
from assd.diffusion.model import Embeddings, Model
from assd.diffusion.schedule import Level
from assd.errors import require
from assd.methods.method import Advance, Checkpoint, Edit, Request, check_prompts, decoded, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.methods.tokenflow.injection import Injection, from_source
from assd.methods.tokenflow.key_frames import KeyFrames, check_choices
from assd.methods.tokenflow.propagation import TokenPropagation
from assd.models.inflation import image_unet

ADVICE = "Try dtype float32 in the model, a smaller guidance_scale, or more steps"

CHOICES = {
    "variant": ("pnp", "sdedit"),
    "sdedit_slice": ("rounded", "truncated"),
    "start": ("inverted", "renoised", "noise"),
}


@dataclass
class Inversion:
    """How far a video is inverted.

    z           the noisiest latent yet
    trajectory  the latents at the timesteps at which the edit samples, noisiest first; zero where it has not been
    """

    z: Float[Tensor, "c f h w"]
    trajectory: Float[Tensor, "s c f h w"]

    @property
    def state(self) -> Checkpoint:
        """For a checkpoint."""
        return {"inverted": self.z, "trajectory": self.trajectory}


@dataclass(frozen=True)
class TokenFlow:
    """Edits a video with an image model, one pass over drawn key frames and one over each batch of frames a step.

    Every pass has the source's latent, inverted to its t, beside the edits: its tokens say which key frame's tokens a
    frame takes, and with Plug-and-Play it lends them its features. Several targets share inversion and source.

    model             an image model with a U-Net of diffusers
    num_frames, height, width  the canvas
    variant           `pnp`: all sampling steps, with injection; `sdedit`: the last part of them, without
    guidance_scale, negative_prompt  w, and what guidance leads away from
    inversion_steps   must visit all timesteps of the sampling steps: a multiple of them
    network_time      at which time the network is asked while inverting, see `DDIM`
    batch_size        frames of a pass; each batch has one key frame. The last batch may be smaller
    pnp_attn_t, pnp_f_t  shares of the sampling steps, from the first, at which Q and K of `injected_attention` and the
                      outputs of `injected_convolutions` are the source's; None is the published rule, see `Injection`
    sdedit_start      share of the sampling steps that `sdedit` does
    sdedit_slice      `rounded` to the nearest number of steps; `truncated` as published: the steps from number
                      int(1 - sdedit_start sampling_steps) on, one fewer, or all where that is 0
    start             `inverted`: the latent inverted to the first timestep; `renoised` as published: the source with
                      the noise in its noisiest inverted latent; `noise`: the source with one noise for all frames
    neighbours, weighting, distance, keyframe_offsets  from which key frames a frame takes, and how much: see
                      `KeyFrames`. Published are `previous`, `sigmoid` and `batch_centre`
    """

    model: Model
    num_frames: int
    height: int
    width: int
    seed: int
    variant: str
    guidance_scale: float
    negative_prompt: str
    inversion_steps: int
    sampling_steps: int
    network_time: NetworkTime
    batch_size: int
    pnp_attn_t: float
    pnp_f_t: float
    sdedit_start: float
    sdedit_slice: str
    start: str
    neighbours: str
    weighting: str
    distance: str
    checkpoint_every: int
    checkpoint_seconds: float
    injected_attention: Sequence[str] | None = None
    injected_convolutions: Sequence[str] | None = None
    keyframe_offsets: Sequence[Sequence[int]] | None = None

    def __post_init__(self):
        DDIM(self.model.schedule, self.model.prediction, self.network_time)
        check_scale(self.guidance_scale)
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)
        check_choices(self, CHOICES)
        for name in ("pnp_attn_t", "pnp_f_t", "sdedit_start"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"{name} must be in [0, 1], a share of the sampling steps; got {share}")
        image_unet(self.model, "TokenFlow")
        require(bool(self.model.layers.self_attention), "TokenFlow needs self-attention, and model has none")
        self.check_timesteps()
        _ = self.key_frames, self.injection  # which check theirs

    def check_timesteps(self) -> None:
        """Raises InputError unless the inversion comes by every timestep at which the edit samples."""
        steps = len(self.timesteps)
        require(steps > 0, f"sdedit_start={self.sdedit_start} of {self.sampling_steps} sampling_steps leaves none")
        missed = set(self.timesteps) - set(self.inversion_timesteps)
        require(
            not missed,
            f"the inversion must come by every sampling timestep, and {self.inversion_steps} steps miss "
            f"{len(missed)} of them: take a multiple of sampling_steps, {self.sampling_steps}, as inversion_steps",
        )
        rows = steps if self.keyframe_offsets is None else len(self.keyframe_offsets)
        require(rows == steps, f"keyframe_offsets needs {steps} rows, one a sampling step; got {rows}")

    @property
    def canvas(self) -> Canvas:
        """As the arguments say."""
        return Canvas(self.num_frames, self.height, self.width)

    @property
    def num_steps(self) -> int:
        """Of inversion and sampling."""
        return len(self.inversion_timesteps) + len(self.timesteps)

    @property
    def timesteps(self) -> list[int]:
        """At which the edit samples, noisiest first."""
        timesteps, N = self.model.schedule.timesteps(self.sampling_steps), self.sampling_steps
        if self.variant == "pnp":
            return timesteps
        if self.sdedit_slice == "truncated":
            return timesteps[int(1 - self.sdedit_start * N) :]
        return timesteps[N - round(self.sdedit_start * N) :]

    @property
    def inversion_timesteps(self) -> list[int]:
        """Ascending: all of the inversion's for a renoised start, else those up to where the edit starts."""
        ascending = self.model.schedule.timesteps(self.inversion_steps)[::-1]
        return [t for t in ascending if self.start == "renoised" or t <= self.timesteps[0]]

    @property
    def key_frames(self) -> KeyFrames:
        """As the arguments say."""
        return KeyFrames(
            num_frames=self.num_frames,
            batch_size=self.batch_size,
            neighbours=self.neighbours,
            weighting=self.weighting,
            distance=self.distance,
            offsets=self.keyframe_offsets,
        )

    @property
    def injection(self) -> Injection:
        """What Plug-and-Play injects; SDEdit nothing."""
        N = self.sampling_steps if self.variant == "pnp" else 0
        return Injection(
            self.model,
            attention_steps=int(N * self.pnp_attn_t),
            convolution_steps=int(N * self.pnp_f_t),
            attention=self.injected_attention,
            convolutions=self.injected_convolutions,
        )

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. The edits share the inversion and the source's part of every pass."""
        check_prompts(self.model, source, requests, self.negative_prompt)
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        Z_ref = self.model.encode(footage.frames)
        inversion = self.invert(Z_ref, source, recorder)
        return decoded(self.model, Z_ref, self.sample(Z_ref, inversion, source, clip, recorder))

    def invert(self, Z_ref: Float[Tensor, "c f h w"], source: str, recorder: Recorder) -> Inversion:
        """DDIM inversion of every frame alone, under the source prompt without guidance."""
        embeddings = self.model.embed((source,))
        inversion = self.begun_inversion(Z_ref, recorder.requests[0].resume)

        def predict(z: Float[Tensor, "1 c f h w"], t: int) -> Float[Tensor, "1 c f h w"]:
            return torch.cat([self.model.predict(part, t, embeddings) for part in z.split(self.batch_size, 2)], 2)

        ddim = DDIM(self.model.schedule, self.model.prediction, self.network_time)
        for step, (s, t) in recorder.phase(upwards(self.inversion_timesteps)):
            inversion.z = ddim.inversion_step(predict, inversion.z[None], s, t)[0]
            if t in self.timesteps:
                inversion.trajectory[self.timesteps.index(t)] = inversion.z
            measured = {"t": t, "latent_norm": inversion.z.norm()}
            recorder.note(step, [measured for _ in recorder.requests], lambda i: inversion.state)
        return inversion

    def begun_inversion(self, Z_ref: Float[Tensor, "c f h w"], resume: Checkpoint | None) -> Inversion:
        """At the source's latent, or where it stopped."""
        if resume:
            return Inversion(resume["inverted"].to(Z_ref.device), resume["trajectory"].to(Z_ref.device))
        return Inversion(Z_ref, Z_ref.new_zeros(len(self.timesteps), *Z_ref.shape))

    def sample(
        self, Z_ref: Float[Tensor, "c f h w"], inversion: Inversion, source: str, clip: str, recorder: Recorder
    ) -> Float[Tensor, "b c f h w"]:
        """DDIM sampling of all edits, one a request."""
        start, requests = self.started(Z_ref, inversion, clip), recorder.requests
        resumed = [request.resume.get("Z", start) if request.resume else start for request in requests]
        Z = torch.stack([Z_i.to(Z_ref.device) for Z_i in resumed])
        prompts = (source, *(self.negative_prompt for _ in requests), *(request.target for request in requests))
        embeddings, propagation = self.model.embed(prompts), TokenPropagation(streams=len(prompts))
        ddim, first = DDIM(self.model.schedule, self.model.prediction), len(self.inversion_timesteps)

        with processors_on(self.model.network, propagation.processors(self.model.layers.self_attention)):
            for step, (t, to) in recorder.phase(downwards(self.timesteps), first):
                streams = torch.cat([inversion.trajectory[step - first][None], Z, Z])
                drawn = self.key_frames.drawn(self.seed, clip, step - first, t)
                predictions = self.predict(propagation, streams, t, embeddings, drawn)
                Z[:] = ddim.step(lerp_halves(predictions[1:], self.guidance_scale), Z, t, to)
                measured = [{"t": t, "latent_norm": Z_i.norm()} for Z_i in Z]
                recorder.note(step, measured, lambda i: {**inversion.state, "Z": Z[i]})
        return Z

    def started(self, Z_ref: Float[Tensor, "c f h w"], inversion: Inversion, clip: str) -> Float[Tensor, "c f h w"]:
        """The latent with which every edit begins; see `start`."""
        level = self.model.schedule[self.timesteps[0]]
        if self.start == "inverted":
            return inversion.trajectory[0]
        if self.start == "renoised":
            noisiest = self.model.schedule[self.inversion_timesteps[-1]]
            return level.add_noise(Z_ref, noise_in(inversion.z, Z_ref, noisiest))
        eps = torch.randn(Z_ref[:, :1].shape, generator=generator(self.seed, clip, "start"))
        return level.add_noise(Z_ref, eps.to(Z_ref.device))

    def predict(
        self,
        propagation: TokenPropagation,
        streams: Float[Tensor, "s c f h w"],
        t: int,
        embeddings: Embeddings,
        key_frames: list[int],
    ) -> Float[Tensor, "s c f h w"]:
        """A pass over the key frames, whose prediction is not used, and one over each batch of frames."""
        injected = self.injection.layers(self.timesteps.index(t))
        weights = self.key_frames.weights(key_frames)
        predictions = []
        with outputs_changed(self.model.network, injected, from_source(len(streams))):
            propagation.weights = None
            self.model.predict(streams[:, :, key_frames], t, embeddings)
            for batch in self.key_frames.batches:
                propagation.weights = weights[list(batch)]
                predictions.append(self.model.predict(streams[:, :, list(batch)], t, embeddings))
        return torch.cat(predictions, dim=2)


def noise_in(z_t: Float[Tensor, "c f h w"], z: Float[Tensor, "c f h w"], level: Level) -> Float[Tensor, "c f h w"]:
    """The noise that makes z_t of z: eps = (z_t - alpha z) / sigma."""
    return (z_t - level.alpha * z) / level.sigma
