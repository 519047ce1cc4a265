"""The source video as it comes back from where an edit would start: the most that an editor can preserve."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.guidance import guided_prediction
from assd.diffusion.inversion import DDIM, NetworkTime, downwards, upwards
from assd.diffusion.model import Model, canvas_of
from assd.errors import require
from assd.methods.method import Advance, Edit, Request, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints

ADVICE = "Try dtype float32 in the model, or more steps"


@dataclass(frozen=True)
class Reconstruction:
    """The source through the autoencoder; with `inversion`, through DDIM inversion and sampling as well.

    Without inversion it is the ceiling of every editor on this autoencoder; with it, of every editor that begins with
    DDIM inversion. The target prompt is not used.

    model         encodes, decodes and, with inversion, predicts, under the source prompt without guidance
    inversion     whether the latent is inverted to noise and sampled back
    sampling_steps  of the inversion, and as many of sampling
    network_time  at which time the network is asked while inverting: `target` or `source`, see `DDIM`
    """

    model: Model
    inversion: bool
    sampling_steps: int
    network_time: NetworkTime
    checkpoint_every: int
    checkpoint_seconds: float

    def __post_init__(self):
        DDIM(self.model.schedule, self.model.prediction, self.network_time)
        require(self.sampling_steps >= 1, f"sampling_steps must be >= 1; got {self.sampling_steps}")
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)

    @property
    def num_steps(self) -> int:
        """Inversion and sampling; one, the autoencoder, without inversion."""
        return 2 * self.sampling_steps if self.inversion else 1

    @property
    def canvas(self) -> Canvas:
        """The model's."""
        return canvas_of(self.model)

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. All requests get the same video."""
        self.model.check_prompt(source)
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        Z_ref = self.model.encode(footage.frames)
        Z = self.round_trip(Z_ref, source, recorder) if self.inversion else Z_ref
        if not self.inversion:
            advance(self.num_steps)
        reconstruction = self.model.decode(Z_ref)
        frames = self.model.decode(Z) if self.inversion else reconstruction
        return [Edit(frames, reconstruction, {"Z_ref": Z_ref, "Z": Z}) for _ in requests]

    def round_trip(self, Z_ref: Float[Tensor, "c f h w"], source: str, recorder: Recorder) -> Float[Tensor, "c f h w"]:
        """To noise and back."""
        model, timesteps = self.model, self.model.schedule.timesteps(self.sampling_steps)
        ddim = DDIM(model.schedule, model.prediction, self.network_time)
        resume = recorder.requests[0].resume
        z = resume["Z"].to(Z_ref.device)[None] if resume else Z_ref[None]

        def predict(z: Tensor, t: int) -> Tensor:
            return guided_prediction(model, z, t, (source,), w=1)

        def note(step: int, t: int) -> None:
            measured = {"t": t, "latent_norm": z.norm()}
            recorder.note(step, [measured for _ in recorder.requests], lambda i: {"Z": z[0]})

        for step, (s, t) in recorder.phase(upwards(timesteps[::-1])):
            z = ddim.inversion_step(predict, z, s, t)
            note(step, t)
        for step, (t, to) in recorder.phase(downwards(timesteps), first=len(timesteps)):
            z = ddim.sampling_step(predict, z, t, to)
            note(step, t)
        return z[0]
