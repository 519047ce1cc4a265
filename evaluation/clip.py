"""CLIP through open_clip: the small one that knows the embedded world, or any of open_clip's."""

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from assd.errors import InputError
from assd.models import resolve_folder
from assd.video import fill

EMBEDDED_CLIP = "local-dir:" + resolve_folder("pkg://assd.shapes/weights/clip")


class ClipScorer:
    """Normalised embeddings of frames and prompts; a cosine is their dot product.

    name        open_clip's name, such as ViT-L-14, or `local-dir:` and a folder
    pretrained  open_clip's tag of the weights, such as openai; none for a folder
    """

    def __init__(self, name: str = EMBEDDED_CLIP, pretrained: str | None = None, device: str = "cpu"):
        try:
            self.model, _, _ = open_clip.create_model_and_transforms(name, pretrained=pretrained, device=device)
            self.tokenizer = open_clip.get_tokenizer(name)
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"CLIP model {name!r} with weights {pretrained!r} can't be loaded: {error}") from error
        self.model.eval().requires_grad_(False)
        self.device = torch.device(device)
        preprocess = self.model.visual.preprocess_cfg
        self.mean, self.std = (torch.tensor(preprocess[key]).view(3, 1, 1) for key in ("mean", "std"))

    @torch.no_grad()
    def embed_frames(self, frames: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n d"]:
        """Pixels in [-1, 1], resized and cropped to the model's input."""
        size = self.model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        pixels = ((fill(frames, height, width) + 1) / 2 - self.mean) / self.std
        return F.normalize(self.model.encode_image(pixels.to(self.device)).float().cpu(), dim=-1)

    @torch.no_grad()
    def embed_prompts(self, prompts: list[str]) -> Float[Tensor, "b d"]:
        """One row a prompt."""
        return F.normalize(self.model.encode_text(self.tokenizer(prompts).to(self.device)).float().cpu(), dim=-1)
