"""FateZero: DDIM inversion that keeps the attention maps, and sampling that takes them over."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
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
from assd.methods.fatezero.state import Branch, Inversion, resumed_trajectory
from assd.methods.fatezero.temporal import in_place_of, read_weights, video_network
from assd.methods.method import Advance, Checkpoint, Edit, Request, check_prompts, decoded, ignore_progress
from assd.methods.recorder import Recorder, check_checkpoints
from assd.methods.tune_a_video.tuning import Tuning
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
    tuning          of Tune-A-Video, on the source video first, as changes of shape ask for; None edits zero-shot
    tuned_weights   instead, a safetensors file of tuned weights, also of temporal layers
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
    tuning: Tuning | None = None
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
        require(self.tuning is None or self.tuned_weights is None, "tuning and tuned_weights cannot both be given")
        if self.tuning is not None:
            self.tuning.check(self.model)
        check_scale(self.guidance_scale)
        check_checkpoints(self.checkpoint_every, self.checkpoint_seconds)

    @property
    def num_steps(self) -> int:
        """Tuning, inversion and sampling."""
        return self.tuning_steps + 2 * self.sampling_steps

    @property
    def canvas(self) -> Canvas:
        """Of its own: the image model has none."""
        return Canvas(self.num_frames, self.height, self.width)

    @property
    def unet(self) -> UNet2DConditionModel:
        """The model's network."""
        return image_unet(self.model, "FateZero")

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
        check_prompts(self.model, source, requests, self.negative_prompt)
        words = read_tokens(self.model, source)
        controls = [self.control(words, read_tokens(self.model, r.target), r.options) for r in requests]
        recorder = Recorder.of(self, requests, clip, advance, ADVICE)
        Z_ref = self.model.encode(footage.frames)
        return decoded(self.model, Z_ref, self.edited(Z_ref, source, requests, controls, recorder))

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
        """All phases, from where they stopped; of sampling a step of each edit at a time."""
        weights, tuned = self.weights(Z_ref, source, recorder)
        inversion = self.inversion(resumed_trajectory(requests[0], Z_ref), source, controls, tuned)
        with self.video_network(inversion, weights):
            self.invert(inversion, recorder)
            branches = [Branch.begun(r, c, inversion.trajectory[-1]) for r, c in zip(requests, controls)]
            self.sample(branches, inversion, recorder)
        return [branch.z[0] for branch in branches]

    def weights(self, Z_ref: Float[Tensor, "c f h w"], source: str, recorder: Recorder) -> tuple[Weights, Checkpoint]:
        """What the network has beside its own weights, or instead of them; and what checkpoints keep of that."""
        if self.tuning is not None:
            weights = self.tuning(self.model, Z_ref, source, (self.seed, recorder.clip), recorder)
            return weights, self.tuning.kept(weights)
        if self.tuned_weights is not None:
            return read_weights(Path(self.tuned_weights), self.unet), {}
        if self.random_temporal_bias:
            drawn = temporal_weights(self.unet, (self.seed, recorder.clip), random_bias=True, suffix="temporal")
            return in_place_of(drawn, self.unet), {}
        return {}, {}

    def inversion(
        self, trajectory: list[Tensor], source: str, controls: Sequence[Control], tuned: Checkpoint | None = None
    ) -> Inversion:
        """The source video, and room for its maps. Says how large they will be; InputError when that is too much."""
        N, tap = self.sampling_steps, Tap()
        _, _, *size = trajectory[0].shape
        layers = Layers(self.unet, self.model.layers, self.kv_frames, self.least_channels, self.max_side,
                        self.mask_level, *size)  # fmt: skip

        def wanted(step: int, name: str) -> bool:
            return any(control.needs(N - 1 - step, name, layers) for control in controls)

        def again(step: int) -> None:
            self.predict_source(source)(trajectory[step], self.timesteps[N - 1 - step])

        store = None if self.store == RECOMPUTE else FeatureStore(self.store)
        maps = SourceMaps(tap, again, layers.mapped, wanted, store, self.model.device)
        if store is not None:
            sizes = {name: layers.nbytes(name, len(controls[0].equalizer)) for name in layers.mapped}
            check_store(sum(sizes[name] for k in range(N) for name in maps.wanted_at(k)), store, self.store_limit_gib)
        return Inversion(source, trajectory, layers, maps, tuned or {})

    @contextlib.contextmanager
    def video_network(self, inversion: Inversion, weights: Weights) -> Iterator[None]:
        """Within it the U-Net sees the video, with these weights, and its maps pass the tap."""
        layers, dtype = inversion.layers, self.unet.dtype
        with (
            video_network(self.unet, layers.frames, weights),
            processors_on(self.unet, layers.processors(inversion.maps.tap)),
            torch.autocast(self.model.device.type, dtype, enabled=self.tuning is not None and dtype != torch.float32),
        ):
            yield

    @property
    def timesteps(self) -> list[int]:
        """Of sampling, the noisiest first."""
        return self.model.schedule.timesteps(self.sampling_steps)

    @property
    def ddim(self) -> DDIM:
        """Inversion asks the network at the target time, as published."""
        return DDIM(self.model.schedule, self.model.prediction, network_time="target")

    @property
    def tuning_steps(self) -> int:
        """Before the inversion."""
        return 0 if self.tuning is None else self.tuning.steps

    def invert(self, inversion: Inversion, recorder: Recorder) -> None:
        """To noise, under the source prompt without guidance; keeps the maps of every step."""
        predict, trajectory, first = self.predict_source(inversion.prompt), inversion.trajectory, self.tuning_steps
        for step, (s, t) in recorder.phase(upwards(self.timesteps[::-1]), first):
            with inversion.maps.kept(step - first):
                trajectory.append(self.ddim.inversion_step(predict, trajectory[-1], s, t))
            measured = {"t": t, "latent_norm": trajectory[-1].norm()}
            recorder.note(step, [measured for _ in recorder.requests], lambda i: inversion.state)

    def sample(self, branches: Sequence[Branch], inversion: Inversion, recorder: Recorder) -> None:
        """From the inverted latent to the edits."""
        N = self.sampling_steps
        steps = list(enumerate(downwards(self.timesteps)))
        for step, (i, (t, to)) in recorder.phase(steps, self.tuning_steps + N):
            source = inversion.maps.at(N - 1 - i)
            z_inv = inversion.trajectory[N - i if self.blend_one_step_noisier else N - 1 - i]
            for branch in branches:
                controlled = ControlledStep(branch.control, i, inversion.layers, source)
                with inversion.maps.tap.through(controlled):
                    z = self.ddim.sampling_step(self.predict_target(branch.target), branch.z, t, to)
                branch.proceed(controlled, z, z_inv)
            measured = [{"t": t, "latent_norm": branch.z.norm()} for branch in branches]
            recorder.note(step, measured, lambda r: inversion.state | branches[r].state)

    def predict_source(self, source: str) -> Predictor:
        """The network under the source prompt, without guidance."""
        return lambda z, t: guided_prediction(self.model, z, t, (source,), w=1)

    def predict_target(self, target: str) -> Predictor:
        """The network under a target prompt, with guidance."""
        return lambda z, t: guided_prediction(self.model, z, t, (target,), self.guidance_scale, self.negative_prompt)
