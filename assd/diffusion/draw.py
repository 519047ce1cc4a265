"""Noise belongs to (seed, clip, step): every rule, ablation, target prompt and resumed run sees the same."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from assd.errors import require


@dataclass(frozen=True)
class Draw:
    """What is random in one optimisation step: a timestep and a standard normal noise, shared by all branches."""

    t: int
    eps: Float[Tensor, "c f h w"]


def generator(*key: object) -> torch.Generator:
    """A CPU generator that depends on nothing but its key."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def draw_step(seed: int, clip: str, step: int, like: Float[Tensor, "c f h w"], timesteps: Sequence[int]) -> Draw:
    """The draw of one step: t uniform over the integers first..last, eps ~ N(0, I) shaped and placed like `like`.

    Drawn on the CPU, so that it is the same on every device.
    """
    first, last = timesteps
    rng = generator(seed, clip, step)
    t = int(torch.randint(first, last + 1, (), generator=rng))
    eps = torch.randn(like.shape, generator=rng)
    if like.is_cuda:
        eps = eps.pin_memory()  # so that the copy does not wait for the GPU
    return Draw(t, eps.to(like.device, non_blocking=True))


def check_timesteps(timesteps: Sequence[int], available: int) -> None:
    """Raises `InputError` unless 0 <= first <= last < available."""
    first, last = timesteps
    require(
        0 <= first <= last < available,
        f"timesteps must be two integers first <= last within 0..{available - 1}, the model's schedule; "
        f"got {first}, {last}. The default is 50, 949.",
    )
