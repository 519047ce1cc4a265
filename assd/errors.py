"""The two ways a run can go wrong that are not a bug: what came in cannot be used, or the optimisation diverged."""


class InputError(ValueError):
    """What the user gave cannot be used. The message says which argument, what was expected, what came, what to do."""


class DivergedError(ArithmeticError):
    """The gradient became NaN or Inf. The message says at which pair, step and t; the last checkpoint is kept."""


def require(holds: bool, sentence: str) -> None:
    """Raises `InputError(sentence)` unless `holds`."""
    if not holds:
        raise InputError(sentence)
