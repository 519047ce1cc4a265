"""Structure distance: how far the frames' self-similarity moved, by the keys of DINO's last attention layer."""

import functools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2
from transformers import ViTModel

from assd.device import resolve_device
from assd.errors import InputError
from evaluation.case import Case, unit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
SHORT, LONG = 224, 480  # the shorter side becomes 224 pixels, the longer one at most 480
BYTES = 255.0  # FiVE-Bench's code subtracts ImageNet's mean from bytes, where DINO was trained on [0, 1]


class StructureDistance:
    """Splice's structure distance (Tumanyan et al., CVPR 2022) as FiVE-Bench and PIE-Bench compute it.

        S(x)_ij = cos(k_i(x), k_j(x)),   distance = mean over i, j of (S(edit) - S(source))_ij^2

    k_i is the key of token i in the last attention layer of DINO ViT-B/8, all heads together; one is the class token.

    path    a folder with the weights in transformers' layout, or a name on the hub that is in its cache; nothing is
            downloaded
    device  where DINO runs
    """

    name = "structure distance (DINO ViT-B/8, MSE)"
    better = "lower"

    def __init__(self, path: str, device: str = "auto"):
        self.path, self.device = path, resolve_device(device)

    def __call__(self, case: Case) -> float:
        """The mean over frames; 0 for the source. Raises InputError where the weights are not here."""
        pairs = zip(case.frames.split(1), case.source.split(1))
        distances = [F.mse_loss(self.similarity(frame), self.similarity(source)).item() for frame, source in pairs]
        return sum(distances) / len(distances)

    @torch.no_grad()
    def similarity(self, frame: Float[Tensor, "1 3 H W"]) -> Float[Tensor, "t t"]:
        """S: cosines between the keys of all tokens."""
        resized = v2.functional.resize(BYTES * unit(frame), [SHORT], max_size=LONG, antialias=True)
        dino, keys = load_dino(self.path, self.device)
        found: list[Tensor] = []
        with keys.register_forward_hook(lambda module, given, key: found.append(key)):
            dino(v2.functional.normalize(resized, [*MEAN], [*STD]).to(self.device), interpolate_pos_encoding=True)
        k = F.normalize(found[0][0].float().cpu(), dim=-1)
        return k @ k.T


@functools.cache
def load_dino(path: str, device: torch.device) -> tuple[ViTModel, torch.nn.Module]:
    """The network, and the module of it that makes the last layer's keys. Raises InputError."""
    try:
        dino = ViTModel.from_pretrained(path, local_files_only=True, add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"DINO ViT-B/8 is not here: {path!r} is no folder with its weights, and the hub's cache does not hold it. "
            f"Put facebook/dino-vitb8 there, or give metric.five_structure.metric.path"
        ) from error
    keys = [module for name, module in dino.named_modules() if name.endswith((".key", ".k_proj"))]
    return dino.to(device).eval().requires_grad_(False), keys[-1]
