"""In which steps of sampling an edit takes the source video's attention maps."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from assd.errors import InputError, require
from assd.methods.fatezero.alignment import Positions


class Window(NamedTuple):
    """A part of the sampling steps: shares of them, 0 <= begin <= end <= 1, of which the first is the noisiest."""

    begin: float
    end: float

    def steps(self, num_steps: int) -> range:
        """int(begin N) ... int(end N) - 1.

        >>> Window(0, 0.8).steps(8)
        range(0, 6)
        """
        return range(int(self.begin * num_steps), int(self.end * num_steps))


def read_window(text: str, name: str) -> Window:
    """From an end, `0.8`, or from a begin and an end, `0.2:0.8`. Raises InputError; `name` is the option's."""
    try:
        begin, end = map(float, text.split(":")) if ":" in text else (0.0, float(text))
    except ValueError:
        raise InputError(f"{name} must be a number, such as 0.8, or two, such as 0.2:0.8; got {text!r}") from None
    require(0 <= begin <= end <= 1, f"{name} must be shares of the steps, 0 <= begin <= end <= 1; got {text!r}")
    return Window(begin, end)


def cross_shares(
    default: Window, words: Mapping[Positions, Window], length: int, num_steps: int, one_step_longer: bool = False
) -> Float[Tensor, "i l"]:
    """alpha: 1 where a step takes the aligned column of a target token, else 0.

    Every column follows the default window, those of `words` their own. With `one_step_longer`, as published, windows
    are shares of N + 1 steps, while the self-attention's are shares of N; there is then a row for a step N too.
    """
    rows = num_steps + one_step_longer
    alpha = torch.zeros(rows, length)
    alpha[list(default.steps(rows))] = 1
    for columns, window in words.items():
        alpha[:, list(columns)] = 0
        for row in window.steps(rows):
            alpha[row, list(columns)] = 1
    return alpha


def equalizer(values: Mapping[Positions, float], length: int) -> Float[Tensor, " l"]:
    """What the maps of tokens are multiplied by, 1 where nothing is said. Rows of a map then no longer sum to 1."""
    scale = torch.ones(length)
    for columns, value in values.items():
        scale[list(columns)] = value
    return scale
