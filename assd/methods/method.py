"""What an editing method is: it takes a source video and target prompts, and returns edited videos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from assd.data.pairs import Canvas, Footage
from assd.diffusion.model import Model

Checkpoint: TypeAlias = dict[str, Any]
"""Everything that an interrupted edit needs to go on: tensors, numbers and texts. Under `step` stands how many of the
method's steps are done; the other names belong to the method, and nobody else looks into them."""

Advance: TypeAlias = Callable[[int], None]


def ignore_progress(step: int) -> None:
    """Nobody wants to know how many steps are done."""


def keep_nothing(checkpoint: Checkpoint, curves: list[dict]) -> None:
    """An edit that cannot be resumed."""


@dataclass(frozen=True)
class Request:
    """What one video shall become.

    target      the prompt y*
    options     what the dataset says of this edit alone, such as {"blend_words": "jeep"}
    resume      where an interrupted edit stopped; None is the beginning
    checkpoint  receives a checkpoint, and the curves of the steps since the last one: one dictionary a step, with
                `step` and whatever the method measures. A checkpoint's tensors are the live ones: who keeps them copies
    """

    target: str
    options: dict[str, str] = field(default_factory=dict)
    resume: Checkpoint | None = None
    checkpoint: Callable[[Checkpoint, list[dict]], None] = keep_nothing

    @property
    def begin(self) -> int:
        """The number of steps done before."""
        return int(self.resume["step"]) if self.resume else 0


@dataclass(frozen=True)
class Edit:
    """What a method returns for one request.

    frames          the edited video, pixels in [-1, 1]
    reconstruction  the source video through the method's autoencoder, the most that an edit can preserve; None where
                    the method has none
    latents         by name, such as `Z` and `Z_ref`; they are kept beside the videos
    """

    frames: Float[Tensor, "n 3 H W"]
    reconstruction: Float[Tensor, "n 3 H W"] | None = None
    latents: dict[str, Float[Tensor, "..."]] = field(default_factory=dict)


@runtime_checkable
class Method(Protocol):
    """An editing method.

    num_steps  of all its phases together: the length of the progress bar
    canvas     the length and size at which it works
    """

    @property
    def num_steps(self) -> int:
        """See above."""
        ...

    @property
    def canvas(self) -> Canvas:
        """See above."""
        ...

    def __call__(
        self,
        footage: Footage,
        source: str,
        requests: Sequence[Request],
        clip: str,
        advance: Advance = ignore_progress,
    ) -> list[Edit]:
        """Edits a video, which the prompt `source` describes, to each request's target.

        Requests on one video share what they can, such as a reference branch or an inversion; their results are those
        of separate calls to rounding. `clip` names the video and seeds all that is random; `advance` receives the
        number of steps done, and may raise to stop: a checkpoint is made first.

        Raises InputError for what cannot be edited, and when the requests resume at different steps; DivergedError when
        a number becomes NaN or Inf. Checkpoints made before stay.
        """
        ...


def check_prompts(model: Model, source: str, requests: Sequence[Request], *more: str | None) -> None:
    """Raises InputError where the model cannot read a prompt; warns where it reads only a part of one.

    more  what else it is given, such as a negative prompt; there the empty prompt is one, and None is none
    """
    for prompt in (source, *(request.target for request in requests), *filter(None, more)):
        model.check_prompt(prompt)


def decoded(model: Model, Z_ref: Float[Tensor, "c f h w"], edited: Iterable[Float[Tensor, "c f h w"]]) -> list[Edit]:
    """The edits whose latents these are, each with the source through the autoencoder."""
    reconstruction = model.decode(Z_ref)
    return [Edit(model.decode(Z), reconstruction, {"Z_ref": Z_ref, "Z": Z}) for Z in edited]
