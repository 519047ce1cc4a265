"""The editor: DDIM sampling under a prompt, beside a ControlNet that sees the source's control maps."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.attention import processors_on
from assd.diffusion.draw import generator
from assd.diffusion.frames import FrameAttention, FrameTable, all_frames
from assd.diffusion.guidance import check_scale, guided_prediction
from assd.diffusion.inversion import downwards
from assd.diffusion.model import Model, check_self_attention
from assd.diffusion.schedule import split
from assd.errors import require
from assd.methods.control_video.smoother import INTERPOLATIONS, smoothed
from assd.methods.control_video.windows import SEEN, SHORTEST, key_frames, window_clips, window_table
from assd.methods.method import Advance, Edit, Request, decoded, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.models.conditions import Condition, control_maps
from assd.models.control_net import ControlNet, adding_in_place
from assd.models.inflation import image_unet, joint_group_norm

ADVICE = "Try dtype float32 in the model and the ControlNet"


@dataclass(frozen=True)
class ControlVideo:
    """ControlVideo (Zhang et al. 2023): nothing of the source enters but its control maps; nothing is inverted.

    One noise, the same in every frame, is sampled under the target prompt. In the U-Net's self-attention every frame
    sees all frames (fully cross-frame interaction); the ControlNet sees each frame alone; the GroupNorms of both take
    their statistics over all frames. At a few steps every other frame is interpolated (interleaved-frame smoother).

    model, control_net  an image model, and a ControlNet that was trained beside it
    condition           makes the control map of a frame
    num_frames, height, width  of the videos that are edited
    guidance_scale      w
    prompt_suffix       is put behind every target prompt
    conditioning_scale  the ControlNet's residuals are multiplied by it
    smooth_steps        steps at which the smoother acts, counted from the end of sampling: 1 is the last step
    interpolation       of the smoother: `flow`, both neighbours moved half-way by optical flow, or `average`
    window              frames from one key frame to the next, both counted, for long videos (hierarchical sampler): in
                        each step the key frames are one clip, and those between two of them another. None: one clip
    window_sees         what frames between two key frames attend to: both `keys`; or, as the published code does,
                        `first_and_last` of a clip [left key, right key, others], which is no right key
    residuals_in_place  as published: the last skip connection's residual also enters the mid block
    wrap_control_frames  as published: `condition` sees frames whose dark half has overflowed, see `wrapped`
    cross_frame_layers  self-attention layers of the U-Net that see all frames; None: all of them, as published
    checkpoint_every, checkpoint_seconds  a checkpoint follows the last one after so many steps, or so much time
    """

    model: Model
    control_net: ControlNet
    condition: Condition
    num_frames: int
    height: int
    width: int
    seed: int
    guidance_scale: float
    prompt_suffix: str
    negative_prompt: str
    sampling_steps: int
    conditioning_scale: float
    smooth_steps: Sequence[int]
    interpolation: str
    window: int | None
    window_sees: str
    residuals_in_place: bool
    wrap_control_frames: bool
    checkpoint_every: int
    checkpoint_seconds: float
    cross_frame_layers: Sequence[str] | None = None

    def __post_init__(self):
        self.control_net.check_beside(image_unet(self.model, "ControlVideo"))
        self.model.schedule.timesteps(self.sampling_steps)
        check_scale(self.guidance_scale)
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)
        require(self.conditioning_scale >= 0, f"conditioning_scale must be >= 0; got {self.conditioning_scale}")
        self.check_layers()
        self.check_smoother()
        self.check_windows()

    def check_layers(self) -> None:
        """Raises InputError for layers that are no self-attention of the model, or where there are none."""
        require(bool(self.layers), "ControlVideo needs self-attention layers, and this model's U-Net has none")
        check_self_attention(self.model, "cross_frame_layers", self.layers)

    def check_smoother(self) -> None:
        """Raises InputError for steps that there are not, and an unknown interpolation."""
        require(
            all(1 <= step <= self.sampling_steps for step in self.smooth_steps),
            f"smooth_steps are counted from the end and must be in 1..{self.sampling_steps}, the sampling_steps; "
            f"got {[*self.smooth_steps]}",
        )
        require(
            self.interpolation in INTERPOLATIONS,
            f"interpolation must be one of {', '.join(INTERPOLATIONS)}; got {self.interpolation!r}",
        )

    def check_windows(self) -> None:
        """Raises InputError for a window without a frame between its key frames, and for what it can't see."""
        require(
            self.window is None or self.window >= SHORTEST,
            f"window must be >= {SHORTEST}, two key frames and one between, or null for one clip; got {self.window}",
        )
        require(self.window_sees in SEEN, f"window_sees must be one of {', '.join(SEEN)}; got {self.window_sees!r}")

    @property
    def num_steps(self) -> int:
        """Those of sampling."""
        return self.sampling_steps

    @property
    def canvas(self) -> Canvas:
        """The length and size of the videos that are edited."""
        return Canvas(self.num_frames, self.height, self.width)

    @property
    def layers(self) -> Sequence[str]:
        """The attention layers that see all frames."""
        return self.model.layers.self_attention if self.cross_frame_layers is None else self.cross_frame_layers

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. The edits share control maps and initial noise; `source` is not used."""
        prompts = self.prompts(requests)
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        Z_ref = self.model.encode(footage.frames)
        control = control_maps(footage.frames, self.condition, self.wrap_control_frames).to(Z_ref.device)
        noise = self.noise(Z_ref, clip)
        begun = [request.resume["Z"].to(noise.device) if request.resume else noise for request in requests]
        return decoded(self.model, Z_ref, self.sample(torch.stack(begun), prompts, control, recorder))

    def sample(
        self,
        z: Float[Tensor, "b c f h w"],
        prompts: Sequence[str],
        control: Float[Tensor, "f 3 H W"],
        recorder: Recorder,
    ) -> Float[Tensor, "b c f h w"]:
        """From noise, or where it stopped, to the clean latents of all prompts."""
        for step, (t, to) in recorder.phase(downwards(self.model.schedule.timesteps(self.sampling_steps))):
            z = self.step(self.predict(z, t, prompts, control), z, step, t, to)
            measured = [{"t": t, "latent_norm": Z.norm()} for Z in z]
            recorder.note(step, measured, lambda i, z=z: {"Z": z[i]})
        return z

    def prompts(self, requests: Sequence[Request]) -> tuple[str, ...]:
        """The target prompts as the model gets them. Raises InputError for one that it cannot read."""
        prompts = tuple(request.target + self.prompt_suffix for request in requests)
        for prompt in filter(None, (*prompts, self.negative_prompt)):
            self.model.check_prompt(prompt)
        return prompts

    def noise(self, like: Float[Tensor, "c f h w"], clip: str) -> Float[Tensor, "c f h w"]:
        """What sampling starts from: one frame's noise in every frame, drawn on the CPU."""
        one_frame = torch.randn(like[:, :1].shape, generator=generator(self.seed, clip))
        return one_frame.to(like.device).expand_as(like)

    def predict(
        self, z: Float[Tensor, "b c f h w"], t: int, prompts: Sequence[str], control: Float[Tensor, "f 3 H W"]
    ) -> Float[Tensor, "b c f h w"]:
        """The guided prediction: of one clip, or of the key frames and of each window between them.

        A window's clip holds its two key frames first, which are predicted with the other keys, not here.
        """
        frames = z.shape[2]
        if self.window is None:
            return self.predict_clip(z, t, prompts, control, all_frames(frames))
        prediction, keys = torch.empty_like(z), key_frames(frames, self.window)
        prediction[:, :, keys] = self.predict_clip(z[:, :, keys], t, prompts, control[keys], all_frames(len(keys)))
        for clip in window_clips(keys):
            table = window_table(len(clip), self.window_sees)
            prediction[:, :, clip[2:]] = self.predict_clip(z[:, :, clip], t, prompts, control[clip], table)[:, :, 2:]
        return prediction

    def predict_clip(
        self,
        z: Float[Tensor, "b c f h w"],
        t: int,
        prompts: Sequence[str],
        control: Float[Tensor, "f 3 H W"],
        table: FrameTable,
    ) -> Float[Tensor, "b c f h w"]:
        """The guided prediction of frames that are one clip."""
        with self.as_clip(control, table):
            return guided_prediction(self.model, z, t, prompts, self.guidance_scale, self.negative_prompt)

    @contextlib.contextmanager
    def as_clip(self, control: Float[Tensor, "f 3 H W"], table: FrameTable) -> Iterator[None]:
        """Within it the model takes its frames for one clip, under a control map each; they see what the table says."""
        unet, frames = self.model.network, len(table)
        with (
            processors_on(unet, dict.fromkeys(self.layers, FrameAttention(table))),
            joint_group_norm(unet, frames),
            joint_group_norm(self.control_net.network, frames),
            self.control_net.beside(unet, control, self.conditioning_scale),
            adding_in_place(unet) if self.residuals_in_place else contextlib.nullcontext(),
        ):
            yield

    def step(
        self, prediction: Float[Tensor, "b c f h w"], z: Float[Tensor, "b c f h w"], step: int, t: int, to: int
    ) -> Float[Tensor, "b c f h w"]:
        """DDIM (Song et al. 2021, Eq. 12) from t to a less noisy time; the smoother changes x0, and not eps."""
        schedule = self.model.schedule
        x0, eps = split(self.model.prediction, prediction, z, schedule[t])
        if self.sampling_steps - step in self.smooth_steps:
            x0 = torch.stack([self.smooth(Z, step) for Z in x0])
        return schedule[to].add_noise(x0, eps)

    def smooth(self, x0: Float[Tensor, "c f h w"], step: int) -> Float[Tensor, "c f h w"]:
        """A predicted clean latent through the smoother, in pixels: all frames go there and back."""
        pixels = smoothed(self.model.decode(x0), step, INTERPOLATIONS[self.interpolation])
        return self.model.encode(pixels).to(x0.device)
