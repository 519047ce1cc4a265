"""Tune-A-Video (Wu et al., ICCV 2023, arXiv 2212.11565): an image U-Net is made to see time and tuned on the one video.

Every frame attends to the first one and the one before; temporal attention is added behind every feed-forward. What the
tuned network makes of the inverted video under a new prompt is the edit. Nothing else is carried over from the source.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.draw import generator
from assd.diffusion.guidance import EMPTY, check_scale, guided_prediction
from assd.diffusion.inversion import DDIM, NetworkTime, downwards, upwards
from assd.diffusion.model import Model
from assd.errors import require
from assd.methods.method import Advance, Checkpoint, Edit, Request, check_prompts, decoded, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.methods.tune_a_video.tuning import Tuning, inflated
from assd.models.inflation import Weights

ADVICE = "Try a smaller tuning.learning_rate, or dtype float32 in the model"


@dataclass(frozen=True)
class TuneAVideo:
    """Tunes on the video, inverts it with the tuned network, and samples under the target prompt.

    model           an image model with a U-Net
    tuning          see `Tuning`; all requests share it, and the inversion
    num_frames, height, width  the canvas
    inversion_steps  of DDIM inversion under the empty prompt, without guidance; 0 samples from noise
    sampling_steps  of DDIM sampling, at `guidance_scale` away from `negative_prompt`
    network_time    at which time the network is asked while inverting: `target`, as published, or `source`, see `DDIM`

    The authors draw a new latent from the autoencoder's posterior in every step of the tuning and invert the last one;
    here it is the posterior's mean throughout. The model itself is not changed: the tuned weights live in the call.
    """

    model: Model
    tuning: Tuning
    num_frames: int
    height: int
    width: int
    seed: int
    inversion_steps: int
    sampling_steps: int
    guidance_scale: float
    negative_prompt: str
    network_time: NetworkTime
    checkpoint_every: int
    checkpoint_seconds: float

    def __post_init__(self):
        self.tuning.check(self.model)
        DDIM(self.model.schedule, self.model.prediction, self.network_time)
        T = len(self.model.schedule)
        require(0 <= self.inversion_steps <= T, f"inversion_steps must be in 0..{T}; got {self.inversion_steps}")
        require(1 <= self.sampling_steps <= T, f"sampling_steps must be in 1..{T}; got {self.sampling_steps}")
        check_scale(self.guidance_scale)
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)

    @property
    def num_steps(self) -> int:
        """Tuning, inversion and sampling."""
        return self.tuning.steps + self.inversion_steps + self.sampling_steps

    @property
    def canvas(self) -> Canvas:
        """As asked for: an image model has none of its own."""
        return Canvas(self.num_frames, self.height, self.width)

    @property
    def ddim(self) -> DDIM:
        """The sampler, in both directions."""
        return DDIM(self.model.schedule, self.model.prediction, self.network_time)

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. The edits share the tuning and the inversion."""
        check_prompts(self.model, source, requests, self.negative_prompt)
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        Z_ref = self.model.encode(footage.frames)
        weights = self.tuning(self.model, Z_ref, source, (self.seed, clip), recorder)
        with inflated(self.model, weights, Z_ref.shape[1]):
            Z_T = self.invert(self.start(Z_ref, clip), weights, recorder)
            Z = self.sample(Z_T, weights, recorder)
        return decoded(self.model, Z_ref, Z)

    def start(self, Z_ref: Float[Tensor, "c f h w"], clip: str) -> Float[Tensor, "c f h w"]:
        """What is inverted; without inversion, the noise from which sampling starts."""
        if self.inversion_steps:
            return Z_ref
        return torch.randn(Z_ref.shape, generator=generator(self.seed, clip, "start")).to(Z_ref.device)

    def invert(self, Z: Float[Tensor, "c f h w"], weights: Weights, recorder: Recorder) -> Float[Tensor, "c f h w"]:
        """To noise, under the empty prompt."""
        timesteps = self.model.schedule.timesteps(self.inversion_steps)[::-1] if self.inversion_steps else []
        first, all_requests = self.tuning.steps, len(recorder.requests)
        Z = where_it_stopped(recorder.requests[0], first, Z)
        for step, (s, t) in recorder.phase(upwards(timesteps), first):
            Z = self.ddim.inversion_step(functools.partial(self.predict, EMPTY, 1), Z[None], s, t)[0]
            measured = {"t": t, "latent_norm": Z.norm()}
            recorder.note(step, [measured] * all_requests, self.checkpoints(weights, [Z] * all_requests))
        return Z

    def sample(
        self, Z_T: Float[Tensor, "c f h w"], weights: Weights, recorder: Recorder
    ) -> list[Float[Tensor, "c f h w"]]:
        """From noise, one edit after the other, which bounds the memory."""
        steps, first = (
            downwards(self.model.schedule.timesteps(self.sampling_steps)),
            self.num_steps - self.sampling_steps,
        )
        Z = [where_it_stopped(request, first, Z_T) for request in recorder.requests]
        for step, (t, to) in recorder.phase(steps, first):
            for i, request in enumerate(recorder.requests):
                predict = functools.partial(self.predict, request.target, self.guidance_scale)
                Z[i] = self.ddim.sampling_step(predict, Z[i][None], t, to)[0]
            measured = [{"t": t, "latent_norm": Z_i.norm()} for Z_i in Z]
            recorder.note(step, measured, self.checkpoints(weights, Z))
        return Z

    def checkpoints(self, weights: Weights, Z: list[Float[Tensor, "c f h w"]]) -> Callable[[int], Checkpoint]:
        """Of each request its latent, and the tuned weights."""
        return lambda i: {"Z": Z[i], **self.tuning.kept(weights)}

    def predict(self, prompt: str, w: float, z: Float[Tensor, "b c f h w"], t: int) -> Float[Tensor, "b c f h w"]:
        """What the network predicts under a prompt, guided."""
        return guided_prediction(self.model, z, t, (prompt,), w, self.negative_prompt)


def where_it_stopped(request: Request, first: int, Z: Float[Tensor, "c f h w"]) -> Float[Tensor, "c f h w"]:
    """The latent that a request's checkpoint keeps of the phase from step `first` on; else the one given."""
    return request.resume["Z"].to(Z.device) if request.resume and request.begin > first else Z
