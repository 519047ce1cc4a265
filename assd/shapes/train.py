"""Trains the embedded models: `python -m assd.shapes.train`.

The stages run in the order of `STEPS`, each from the weights of those before it. A stage is checkpointed every minute
and continues where it stopped; batch and noise of a step are drawn from (seed, stage, step), so an interrupted training
ends in the same weights. The progress bar says how long each takes.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import open_clip
import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import nn

from assd.device import resolve_device
from assd.errors import one_sentence
from assd.shapes import networks, stages
from assd.shapes.corpus import Corpus, directed_clips
from assd.shapes.fit import SEED, console, fit
from assd.shapes.stages import Captions, Denoising
from assd.shapes.world import MOTIONS

WEIGHTS = Path(__file__).with_name("weights")
CLIPS = 6000
PURE_NOISE = 1000  # as an exponent of t's density: every t is 99 % of the last or more
STEPS = {
    "autoencoder": 2000,
    "decoder": 700,
    "clip": 3000,
    "text_to_image": 5000,
    "text_to_shape": 4000,
    "control_net": 1000,
    "small_text_to_image": 4000,
    "motion": 240,
    "text_to_video": 2500,
}


def save_half(module: nn.Module, folder: Path) -> None:
    """A diffusers or transformers module as half-precision safetensors, which loads in any precision."""
    module.to(torch.float16).save_pretrained(folder)
    module.float()


def save_clip(clip: nn.Module, folder: Path) -> None:
    """The layout that open_clip's `local-dir:` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(networks.clip_config(), indent=2) + "\n")
    weights = {name: value.half().contiguous() for name, value in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    networks.tokenizer().save_pretrained(folder)


def build_clip() -> nn.Module:
    """open_clip's model class from our own configuration."""
    cfg = networks.clip_config()["model_cfg"]
    return open_clip.CLIP(
        cfg["embed_dim"], open_clip.CLIPVisionCfg(**cfg["vision_cfg"]), open_clip.CLIPTextCfg(**cfg["text_cfg"])
    )


def start_from(folder: Path, modules: dict[str, nn.Module]) -> None:
    """Reads each module's weights from its folder in an earlier training's `weights`."""
    for name, module in modules.items():
        (file,) = (folder / name).glob("*.safetensors")
        module.load_state_dict({key: value.float() for key, value in load_file(file).items()})


class Trainer:
    """The networks and the corpus, and one method a group of stages.

    Every network starts at random. With the folder `first` autoencoder, CLIP, text encoder and image U-Net start from
    its weights, and ControlNet, video U-Net and its text encoder do so where they are not trained from the image U-Net.
    """

    def __init__(
        self, weights: Path, work: Path, device: torch.device, steps: dict[str, int], clips: int, first: Path | None
    ):
        self.weights, self.work, self.device, self.steps = weights, work, device, steps
        work.mkdir(parents=True, exist_ok=True)
        console.print(f"rendering {clips} clips")
        self.corpus = Corpus.render(directed_clips("train", clips))
        self.captions = Captions(self.corpus.clips, device)
        torch.manual_seed(SEED)
        self.vae, self.clip, self.text = networks.autoencoder(), build_clip(), networks.text_encoder()
        self.image, self.small = networks.image_unet(), networks.small_image_unet()
        if first:
            start_from(first, {"vae": self.vae, "text_encoder": self.text, "image_unet": self.image, "clip": self.clip})
        for module in (self.vae, self.clip, self.text, self.image, self.small):
            module.to(device).eval()  # no dropout: it costs a tenth of the time and helps nothing
        self.first = first

    def fit(self, stage: stages.Stage) -> None:
        """Trains one stage."""
        fit(stage, self.work, self.device)

    def diffusion(
        self,
        name: str,
        unet: nn.Module,
        text: nn.Module,
        task: Denoising,
        lr: float,
        captions: Captions | None = None,
        reader: stages.Reader | None = None,
        teacher: stages.Teacher | None = None,
    ) -> None:
        """Trains a U-Net and a text encoder on one denoising task.

        By the corpus's captions and with a new reader, unless others are given.
        """
        captions, steps = captions or self.captions, self.steps[name]
        reader = (reader or stages.Reader()).to(self.device)
        self.fit(stages.diffusion_stage(name, unet, text, task, captions, self.device, steps, lr, reader, teacher))

    def autoencoder_and_clip(self) -> None:
        """Both need nothing but frames; then every frame is encoded once."""
        data = {"corpus": self.corpus, "device": self.device}
        self.fit(stages.autoencoder_stage(self.vae, **data, steps=self.steps["autoencoder"]))
        self.fit(stages.decoder_stage(self.vae, **data, steps=self.steps["decoder"]))
        self.fit(stages.clip_stage(self.clip, vae=self.vae, **data, steps=self.steps["clip"]))
        save_clip(self.clip, self.weights / "clip")
        self.latents = stages.encode(self.vae, self.corpus, self.device)
        save_half(self.vae, self.weights / "vae")

    def text_to_image(self) -> None:
        """The image U-Net on single frames, with the text encoder, of which the video U-Net gets a copy."""
        task = Denoising(self.frames(), batch=32)
        self.diffusion("text_to_image", self.image, self.text, task, lr=1.2e-3)

    def frames(self) -> torch.Tensor:
        """Single latents, frame-major: index % clips is the clip."""
        return rearrange(self.latents, "b n c h w -> (n b) c h w")

    def text_to_shape(self) -> None:
        """The image U-Net again, at high noise above all: there a shape is decided, and there it was still unsure."""
        task = Denoising(self.frames(), batch=32, high_noise=1)
        self.diffusion("text_to_shape", self.image, self.text, task, lr=1e-3)
        networks.tokenizer().save_pretrained(self.weights / "tokenizer")
        networks.scheduler().save_pretrained(self.weights / "scheduler")
        save_half(self.text, self.weights / "text_encoder")
        save_half(self.image, self.weights / "image_unet")

    def control_net(self) -> None:
        """Starts as the image U-Net's encoder, and as no influence at all."""
        network = networks.control_net(self.image).to(self.device).eval()
        if self.first and not self.steps["control_net"]:
            start_from(self.first, {"control_net": network})
        frozen = {"unet": self.image, "text_encoder": self.text, "captions": self.captions, "corpus": self.corpus}
        task, steps = Denoising(self.frames(), batch=32), self.steps["control_net"]
        self.fit(stages.control_net_stage(network, task=task, **frozen, device=self.device, steps=steps))
        save_half(network, self.weights / "control_net")

    def text_to_video(self) -> None:
        """The video U-Net: still frames first, then which way things move, then clips.

        Stills it learns from the image model. Which way an object moves is decided where its place can't be seen; it is
        the product of a word, a place in time and a place in the frame, which single clips hide and their mean shows.
        The reader stays: a new one would turn the embeddings, to which the U-Net has grown used.
        """
        reader = stages.Reader()
        text, clips = copy.deepcopy(self.text), rearrange(self.latents, "b n c h w -> b c n h w").contiguous()
        stills = Denoising(self.frames(), batch=32, high_noise=1)
        teacher = stages.prediction_of(self.image, self.text)
        self.diffusion("small_text_to_image", self.small, text, stills, lr=2e-3, reader=reader, teacher=teacher)
        video = networks.video_unet(self.small).to(self.device).eval()
        if self.first and not self.steps["small_text_to_image"]:
            start_from(self.first, {"video_unet": video, "video_text_encoder": text})
        described, means = stages.foretold(self.corpus.clips, clips)
        directions = Denoising(means, batch=16, high_noise=PURE_NOISE, group=len(MOTIONS), apart=30)
        of_groups = Captions(described, self.device)
        self.diffusion("motion", video, text, directions, lr=2e-3, captions=of_groups, reader=reader)
        moving = Denoising(clips, batch=8, high_noise=1, group=len(MOTIONS))
        self.diffusion("text_to_video", video, text, moving, lr=1.5e-3, reader=reader)
        save_half(text, self.weights / "video_text_encoder")
        save_half(video, self.weights / "video_unet")


def train(
    weights: Path, work: Path, device: torch.device, steps: dict[str, int], clips: int, first: Path | None = None
) -> None:
    """The stages that have steps, in order; finished ones are read back from their checkpoints in `work`."""
    started = time.monotonic()
    trainer = Trainer(weights, work, device, steps, clips, first)
    trainer.autoencoder_and_clip()
    trainer.text_to_image()
    trainer.text_to_shape()
    trainer.control_net()
    trainer.text_to_video()
    console.print(f"weights in {weights}, {(time.monotonic() - started) / 60:.0f} minutes")


@one_sentence()
def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where the trained weights go")
    parser.add_argument(
        "--work", type=Path, default=Path("outputs/shapes-training"), help="checkpoints and loss curves"
    )
    parser.add_argument("--start-from", type=Path, help="begin with the weights in this folder instead of at random")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--clips", type=int, default=CLIPS, help="size of the training corpus")
    for name, count in STEPS.items():
        parser.add_argument(f"--{name.replace('_', '-')}-steps", type=int, default=count, help="0 skips the stage")
    options = parser.parse_args()
    steps = {name: getattr(options, f"{name}_steps") for name in STEPS}
    train(options.weights, options.work, resolve_device(options.device), steps, options.clips, options.start_from)


if __name__ == "__main__":
    main()
