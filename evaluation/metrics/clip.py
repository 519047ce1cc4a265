"""CLIP through open_clip: the small one that knows the embedded world, or any of open_clip's."""

import functools
import logging

import open_clip
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedTokenizerBase

from assd.data.video import fill
from assd.device import resolve_device
from assd.errors import InputError, require
from assd.models import resolve_folder, unknown_words
from evaluation.case import Case, check_choice

FOLDER = "local-dir:"  # open_clip's mark of a folder


class ClipScorer:
    """Normalised, projected embeddings of frames and prompts; a cosine is their dot product.

    name        open_clip's name, such as ViT-L-14, or `local-dir:` and a folder (`pkg://package/folder` is one)
    pretrained  open_clip's tag of the weights, such as openai; none for a folder
    label       what tables call it; by default `CLIP`, name and pretrained: no other weights go by the same name

    Raises InputError when the model can't be loaded.
    """

    def __init__(self, name: str, pretrained: str | None = None, label: str | None = None, device: str = "auto"):
        self.label = label or " ".join(["CLIP", name.removeprefix(FOLDER), *filter(None, [pretrained])])
        self.device = resolve_device(device)
        if name.startswith(FOLDER):
            name = FOLDER + resolve_folder(name.removeprefix(FOLDER))
        logging.disable(logging.INFO)  # open_clip tells the root logger how it reads a name
        try:
            self.model = open_clip.create_model(
                name, pretrained=pretrained, device=self.device, require_pretrained=not name.startswith(FOLDER)
            )
            self.tokenizer = open_clip.get_tokenizer(name)
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(
                f"CLIP model {name!r} with weights {pretrained!r} can't be loaded: {error}. "
                f"clip=embedded needs no download"
            ) from error
        finally:
            logging.disable(logging.NOTSET)
        self.model.eval().requires_grad_(False)
        preprocess = self.model.visual.preprocess_cfg
        self.mean, self.std = (torch.tensor(preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))
        self.interpolation = preprocess.get("interpolation", "bicubic")
        self._remembered = WeakIdKeyDictionary()  # embeddings of videos that are still being looked at

    @classmethod
    @functools.cache
    def load(
        cls, name: str, pretrained: str | None = None, label: str | None = None, device: str = "auto"
    ) -> "ClipScorer":
        """The same arguments give the same object, so that metrics share one model."""
        return cls(name, pretrained, label, device)

    @torch.no_grad()
    def embed_frames(self, frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n d"]:
        """Pixels in [-1, 1], resized and cropped to the model's input; computed once for each tensor."""
        if frames not in self._remembered:
            size = self.model.visual.image_size
            height, width = (size, size) if isinstance(size, int) else size
            pixels = ((fill(frames, height, width, self.interpolation) + 1) / 2 - self.mean) / self.std
            self._remembered[frames] = F.normalize(
                self.model.encode_image(pixels.to(self.device)).float().cpu(), dim=-1
            )
        return self._remembered[frames]

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> Float[Tensor, "b d"]:
        """One row a prompt. Raises InputError for words that this CLIP has no token for."""
        words = getattr(self.tokenizer, "tokenizer", None)  # open_clip's wrapper of a transformers tokenizer
        if isinstance(words, PreTrainedTokenizerBase):
            unknown = [word for prompt in prompts for word in unknown_words(words, prompt)]
            require(
                not unknown, f"{self.label} does not know {', '.join(map(repr, unknown))}: take another, clip=vit_l_14"
            )
        return F.normalize(self.model.encode_text(self.tokenizer(prompts).to(self.device)).float().cpu(), dim=-1)

    def to_target(self, case: Case) -> Float[Tensor, " n"]:
        """The cosine between each frame and the target prompt."""
        return (self.embed_frames(case.frames) @ self.embed_prompts([case.prompts.target]).T)[:, 0]


def cosines(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Row by row, of normalised rows."""
    return einsum(a, b, "n d, n d -> n")


class ClipText:
    """Text alignment: the mean over frames of the cosine between frame and target prompt (the paper's definition)."""

    better = "higher"

    def __init__(self, clip: ClipScorer):
        self.clip = clip
        self.name = f"CLIP text ({clip.label}, cosine)"

    def __call__(self, case: Case) -> float:
        """In [-1, 1]."""
        return self.clip.to_target(case).mean().item()


class ClipScore:
    """torchmetrics' CLIPScore with the target prompt: max(100 cos, 0) of each frame, and their mean."""

    better = "higher"

    def __init__(self, clip: ClipScorer):
        self.clip = clip
        self.name = f"CLIP score ({clip.label}, of 100)"

    def __call__(self, case: Case) -> float:
        """In [0, 100]."""
        return 100 * self.clip.to_target(case).clamp(min=0).mean().item()


class ClipConsistency:
    """Frame consistency: mean cosine between frames, over `consecutive` pairs (Gen-1) or `all` (LOVEU-TGVE)."""

    better = "higher"

    def __init__(self, clip: ClipScorer, pairs: str = "consecutive"):
        check_choice("pairs", pairs, ("consecutive", "all"))
        self.clip, self.pairs = clip, pairs
        self.name = f"CLIP consistency ({clip.label}, {pairs} pairs, cosine)"

    def __call__(self, case: Case) -> float:
        """At most 1, the value of a still video."""
        case.require_several_frames()
        frames = self.clip.embed_frames(case.frames)
        if self.pairs == "consecutive":
            return cosines(frames[1:], frames[:-1]).mean().item()
        i, j = torch.triu_indices(len(frames), len(frames), offset=1)
        return cosines(frames[i], frames[j]).mean().item()


class ClipDirection:
    """Directional similarity (StyleGAN-NADA): cosine between the change of the image and the change of the prompt."""

    better = "higher"

    def __init__(self, clip: ClipScorer):
        self.clip = clip
        self.name = f"CLIP direction ({clip.label}, cosine)"

    def __call__(self, case: Case) -> float:
        """The mean over frames, each against the source's frame of the same number; 0 where nothing changed."""
        change = self.clip.embed_frames(case.frames) - self.clip.embed_frames(case.source)
        source, target = self.clip.embed_prompts([*case.prompts])
        asked = F.normalize(target - source, dim=-1).expand_as(change)
        return cosines(F.normalize(change, dim=-1), asked).mean().item()


class ClipFrameAccuracy:
    """Share of frames whose cosine to the target prompt exceeds that to the source prompt (FateZero)."""

    better = "higher"

    def __init__(self, clip: ClipScorer):
        self.clip = clip
        self.name = f"frames nearer to target prompt ({clip.label}, share)"

    def __call__(self, case: Case) -> float:
        """In [0, 1]."""
        source, target = (self.clip.embed_frames(case.frames) @ self.clip.embed_prompts([*case.prompts]).T).T
        return (target > source).float().mean().item()
