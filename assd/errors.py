"""The two ways a run can go wrong that are not a bug, and how a program says so: in one sentence, without traceback."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Sequence

import yaml
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException


class InputError(ValueError):
    """What the user gave cannot be used. The message says which argument, what was expected, what came, what to do."""


class NotHereError(InputError):
    """A clip that has to be got elsewhere is not on this machine. The message says where it is to be had."""


class DivergedError(ArithmeticError):
    """The gradient became NaN or Inf. The message says at which pair, step and t; the last checkpoint is kept."""


def require(holds: bool, sentence: str) -> None:
    """Raises `InputError(sentence)` unless `holds`."""
    if not holds:
        raise InputError(sentence)


def some(names: Sequence[str], shown: int = 3) -> str:
    """The first few, for a message.

    >>> some(["a", "b", "c", "d"])
    'such as a, b, c'
    """
    return f"such as {', '.join(names[:shown])}" if names else "of which there are none"


EXPECTED = (InputError, DivergedError, HydraException, OmegaConfBaseException, yaml.YAMLError, OSError)


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Ends the program with exit code 1 and what an expected error says; also a decorator of a `main`.

    Any other error keeps its traceback, and HYDRA_FULL_ERROR=1 gives every one.
    """
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {sentence(error)}")


def sentence(error: Exception) -> str:
    """What an error says to a person; of a component that refused its arguments, its own words and its name."""
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, InputError):
        where = str(error).rpartition("full_key: ")[2]
        return f"{where}: {error.__cause__}" if where else str(error.__cause__)
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {error}\nPut a value with brackets, commas or spaces in quotes"
    if isinstance(error, ConfigCompositionException) and isinstance(error.__cause__, OmegaConfBaseException):
        return f"{error}: {error.__cause__.msg}"
    if isinstance(error, yaml.YAMLError):
        return f"a configuration file is no YAML: mend it. {error}"
    if found := re.match(r"In 'ablation/([^']*)': Could not override '(\w+)'", str(error)):
        name, group = found.groups()
        return (
            f"ablation={name} changes {group}, which this run's method does not have: ablations belong to "
            f"method=score_distillation. Leave +ablation={name} or method=... out"
        )
    return str(error)
