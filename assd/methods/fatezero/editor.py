"""FateZero: DDIM inversion that keeps the attention maps, and sampling that takes them over."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.attention import processors_on
from assd.diffusion.features import PLACES, FeatureStore
from assd.diffusion.guidance import check_scale, guided_prediction
from assd.diffusion.inversion import DDIM, Predictor, downwards, upwards
from assd.diffusion.model import Model
from assd.errors import require
from assd.methods.fatezero.alignment import Tokens, read_tokens
from assd.methods.fatezero.control import Control, ControlledStep, blended_steps
from assd.methods.fatezero.layers import KeyFrames, Layers, frame_table
from assd.methods.fatezero.maps import SourceMaps, Tap, check_store
from assd.methods.fatezero.options import alignment, cross_windows, equalized, masked_words, mode
from assd.methods.fatezero.schedule import cross_shares, equalizer, read_window
from assd.methods.fatezero.temporal import read_weights, video_network
from assd.methods.method import Advance, Checkpoint, Edit, Request, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.models.inflation import Weights, image_unet, temporal_weights

ADVICE = "Try dtype float32 in the model, or a smaller guidance_scale"
RECOMPUTE = "recompute"


@dataclass(frozen=True)
class FateZero:
    """FateZero (arXiv 2303.09535): an image model edits a video with the attention maps of its inversion.

    The source video is inverted under its prompt without guidance. In sampling, the maps of the guided half's attention
    are mixed with those that the inversion had at the same timestep: see `Control`. What a dataset's columns
    `blend_words`, `equalizer_words`, `equalizer_values`, `cross_replace_steps`, `self_replace_steps` and `mode` say of
    one edit precedes the arguments here; where nobody says which words, it is those in which the prompts differ.

    model           an image model; its U-Net sees all frames as one video while it edits
    num_frames, height, width  the length and size at which it edits
    sampling_steps  N, of the inversion and as many of sampling
    kv_frames, least_channels, max_side, mask_level  which attention sees and exchanges what: see `Layers`
    cross_replace_steps, self_replace_steps  shares of the steps, from the noisiest on, in which attention to the prompt
                    and self-attention take the source video's maps: `0.8`, or `0.2:0.8`
    equalizer_values  factor of the maps of the words that a refined prompt adds
    blend_self_attention  whether self-attention stays the edit's own where the words are that are replaced
    blend_latents   whether the latent outside the masks of the old and the new words is the inverted one
    blend_threshold  of a mask, a share of its largest value
    store           place of the source video's maps: `device`, `cpu`, `disk`; or `recompute`, which keeps none and
                    costs one more pass of the network a step
    store_limit_gib  the most that they may take there
    tuned_weights   safetensors file of tuned weights, also of temporal layers; None edits zero-shot
    random_temporal_bias, cross_window_one_step_longer, padding_copies_words, unshifted_tail, blend_one_step_noisier
                    what the published code does beside the paper, see conf/method/fatezero.yaml
    """

    model: Model
    num_frames: int
    height: int
    width: int
    seed: int
    guidance_scale: float
    negative_prompt: str
    sampling_steps: int
    kv_frames: KeyFrames
    least_channels: int | None
    max_side: int
    mask_level: int | None
    cross_replace_steps: float | str
    self_replace_steps: float | str
    equalizer_values: float | str
    blend_self_attention: bool
    blend_latents: bool
    blend_threshold: float
    store: str
    store_limit_gib: float
    checkpoint_every: int
    checkpoint_seconds: float
    tuned_weights: str | None = None
    random_temporal_bias: bool = False
    cross_window_one_step_longer: bool = False
    padding_copies_words: bool = False
    unshifted_tail: bool = False
    blend_one_step_noisier: bool = False

    def __post_init__(self):
        image_unet(self.model, "FateZero")
        frame_table(self.kv_frames, self.num_frames)
        require(self.sampling_steps >= 1, f"sampling_steps must be >= 1; got {self.sampling_steps}")
        require(self.blend_threshold >= 0, f"blend_threshold must be >= 0; got {self.blend_threshold}")
        places = (*PLACES, RECOMPUTE)
        require(self.store in places, f"store must be one of {', '.join(places)}; got {self.store!r}")
        check_scale(self.guidance_scale)
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)

    @property
    def num_steps(self) -> int:
        """Inversion and sampling."""
        return 2 * self.sampling_steps

    @property
    def canvas(self) -> Canvas:
        """Of its own: the image model has none."""
        return Canvas(self.num_frames, self.height, self.width)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The model's network."""
        return image_unet(self.model, "FateZero")

    @functools.cached_property
    def weights(self) -> Weights:
        """What the network has beside its own weights, or instead of them."""
        if self.tuned_weights is not None:
            return read_weights(Path(self.tuned_weights), self.unet)
        if not self.random_temporal_bias:
            return {}
        return temporal_weights(self.unet, (self.seed, "FateZero"), random_bias=True, suffix="temporal")

    @torch.no_grad()
    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """See `assd.methods.method.Method`. The edits share the inversion and its maps."""
        for prompt in (source, *(request.target for request in requests)):
            self.model.check_prompt(prompt)
        words = read_tokens(self.model, source)
        controls = [self.control(words, read_tokens(self.model, r.target), r.options) for r in requests]
        recorder = Recorder(requests, clip, self.num_steps, every=self.checkpoint_every,
                            seconds=self.checkpoint_seconds, advance=advance, advice=ADVICE)  # fmt: skip
        Z_ref = self.model.encode(footage.frames)
        edited = self.edited(Z_ref, source, requests, controls, recorder)
        reconstruction = self.model.decode(Z_ref)
        return [Edit(self.model.decode(Z), reconstruction, {"Z_ref": Z_ref, "Z": Z}) for Z in edited]

    def control(self, source: Tokens, target: Tokens, options: Mapping[str, str]) -> Control:
        """What one edit does. Raises InputError for options that do not fit the prompts."""
        N = self.sampling_steps
        asked = {
            "cross_replace_steps": str(self.cross_replace_steps),
            "self_replace_steps": str(self.self_replace_steps),
            "equalizer_values": str(self.equalizer_values),
            **options,
        }
        kind = mode(asked, source, target)
        gone, new = masked_words(asked, source, target)
        default, of_words = cross_windows(asked, target)
        return Control(
            alignment=alignment(kind, source, target, self.padding_copies_words, self.unshifted_tail),
            equalizer=equalizer(equalized(asked, kind, source, target), target.length),
            cross_shares=cross_shares(default, of_words, target.length, N, self.cross_window_one_step_longer),
            self_steps=read_window(asked["self_replace_steps"], "self_replace_steps").steps(N),
            gone=gone,
            new=new,
            threshold=self.blend_threshold,
            blend_self_attention=self.blend_self_attention,
            blended_after=blended_steps(N) if self.blend_latents else range(0),
        )

    def edited(
        self,
        Z_ref: Float[Tensor, "c f h w"],
        source: str,
        requests: Sequence[Request],
        controls: Sequence[Control],
        recorder: Recorder,
    ) -> list[Float[Tensor, "c f h w"]]:
        """Inversion, then the sampling of all edits, a step of each at a time; from where they stopped."""
        resume = requests[0].resume
        trajectory = list(resume["trajectory"].to(Z_ref.device)[:, None]) if resume else [Z_ref[None]]
        layers, tap = self.layers(Z_ref), Tap()
        maps = self.source_maps(source, controls, layers, tap, trajectory)
        with (
            video_network(self.unet, layers.frames, self.weights),
            processors_on(self.unet, layers.processors(tap)),
        ):
            self.invert(source, trajectory, maps, recorder)
            branches = [Branch.begun(r, control, trajectory[-1]) for r, control in zip(requests, controls)]
            self.sample(branches, trajectory, layers, maps, recorder)
        return [branch.z[0] for branch in branches]

    def layers(self, Z: Float[Tensor, "c f h w"]) -> Layers:
        """The attention layers on a video's latent."""
        return Layers(self.unet, self.model.layers, self.kv_frames, self.least_channels, self.max_side, self.mask_level,
                      *Z.shape[1:])  # fmt: skip

    def source_maps(
        self, source: str, controls: Sequence[Control], layers: Layers, tap: Tap, trajectory: list[Tensor]
    ) -> SourceMaps:
        """Those that the edits need. Says how large they will be; raises InputError when that is too much."""
        N = self.sampling_steps
        store = None if self.store == RECOMPUTE else FeatureStore(self.store)

        def wanted(step: int, name: str) -> bool:
            return any(control.needs(N - 1 - step, name, layers) for control in controls)

        def again(step: int) -> None:
            self.predict_source(source)(trajectory[step], self.timesteps[N - 1 - step])

        maps = SourceMaps(tap, again, layers.mapped, wanted, store, self.model.device)
        if store is not None:
            sizes = {name: layers.nbytes(name, len(controls[0].equalizer)) for name in layers.mapped}
            check_store(sum(sizes[name] for k in range(N) for name in maps.wanted_at(k)), store, self.store_limit_gib)
        return maps

    @property
    def timesteps(self) -> list[int]:
        """Of sampling, the noisiest first."""
        return self.model.schedule.timesteps(self.sampling_steps)

    @property
    def ddim(self) -> DDIM:
        """Inversion asks the network at the target time, as published."""
        return DDIM(self.model.schedule, self.model.prediction, network_time="target")

    def predict_source(self, source: str) -> Predictor:
        """The network under the source prompt, without guidance."""
        return lambda z, t: guided_prediction(self.model, z, t, (source,), w=1)

    def invert(self, source: str, trajectory: list[Tensor], maps: SourceMaps, recorder: Recorder) -> None:
        """Prolongs the trajectory to noise, and keeps the maps of every step."""
        predict = self.predict_source(source)
        for step, (s, t) in recorder.phase(upwards(self.timesteps[::-1])):
            with maps.kept(step):
                trajectory.append(self.ddim.inversion_step(predict, trajectory[-1], s, t))
            measured = {"t": t, "latent_norm": trajectory[-1].norm()}
            recorder.note(step, [measured for _ in recorder.requests], lambda i: {"trajectory": torch.cat(trajectory)})

    def sample(
        self,
        branches: Sequence["Branch"],
        trajectory: Sequence[Tensor],
        layers: Layers,
        maps: SourceMaps,
        recorder: Recorder,
    ) -> None:
        """From the inverted latent to the edits."""
        N = self.sampling_steps
        for step, (i, (t, to)) in recorder.phase(list(enumerate(downwards(self.timesteps))), first=N):
            source = maps.at(N - 1 - i)
            z_inv = trajectory[N - i] if self.blend_one_step_noisier else trajectory[N - 1 - i]
            for branch in branches:
                controlled = ControlledStep(branch.control, i, layers, source)
                with maps.tap.through(controlled):
                    z = self.ddim.sampling_step(self.predict_target(branch.target), branch.z, t, to)
                branch.proceed(controlled, z, z_inv)
            measured = [{"t": t, "latent_norm": branch.z.norm()} for branch in branches]
            recorder.note(step, measured, lambda r: {"trajectory": torch.cat([*trajectory]), **branches[r].state})

    def predict_target(self, target: str) -> Predictor:
        """The network under a target prompt, with guidance."""
        return lambda z, t: guided_prediction(self.model, z, t, (target,), self.guidance_scale, self.negative_prompt)


@dataclass
class Branch:
    """One edit on its way.

    target   its prompt
    control  what it does to maps and latent
    z        the latent
    words    where it attended to the new words, summed over the steps done; 0 before the first
    """

    target: str
    control: Control
    z: Float[Tensor, "1 c f h w"]
    words: Float[Tensor, "f h w"] | float = 0.0

    @classmethod
    def begun(cls, request: Request, control: Control, inverted: Float[Tensor, "1 c f h w"]) -> "Branch":
        """Where it stopped, or at the inverted latent."""
        state = request.resume or {}
        z, words = state.get("Z"), state.get("words", 0.0)
        if isinstance(words, Tensor):
            words = words.to(inverted.device)
        return cls(request.target, control, inverted if z is None else z.to(inverted.device)[None], words)

    @property
    def state(self) -> Checkpoint:
        """What it needs to go on, beside the trajectory."""
        return {"Z": self.z[0], "words": self.words}

    def proceed(self, controlled: ControlledStep, z: Float[Tensor, "1 c f h w"], z_inv: Tensor) -> None:
        """After a step to z, of which the inverted latent has the noise."""
        if self.control.blended_after:
            self.words = self.words + controlled.target_words
        self.z = controlled.blended(z, z_inv, self.words)
