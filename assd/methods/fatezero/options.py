"""What is asked of one edit: words and schedules, from a dataset's columns or derived from the two prompts."""

import logging
from collections.abc import Mapping, Sequence

from assd.errors import InputError, require
from assd.methods.fatezero.alignment import (
    Alignment,
    Positions,
    Tokens,
    are_replaceable,
    differing,
    refinement,
    replacement,
)
from assd.methods.fatezero.schedule import Window, read_window

log = logging.getLogger(__name__)
MODES = ("replace", "refine")
Options = Mapping[str, str]


def mode(options: Options, source: Tokens, target: Tokens) -> str:
    """`replace` where both prompts have as many words, else `refine`; or what `mode` asks."""
    possible = "replace" if are_replaceable(source, target) else "refine"
    asked = options.get("mode", possible)
    require(asked in MODES, f"mode must be one of {', '.join(MODES)}; got {asked!r}")
    if asked == "replace" and possible == "refine":
        log.warning(
            "mode=replace needs prompts of equally many words, and these have %d and %d: refine is taken",
            len(source.words), len(target.words),
        )  # fmt: skip
        return possible
    return asked


def alignment(kind: str, source: Tokens, target: Tokens, padding_copies_words: bool, unshifted_tail: bool) -> Alignment:
    """Of the mode."""
    if kind == "replace":
        return replacement(source, target, unshifted_tail)
    return refinement(source, target, padding_copies_words)


def masked_words(options: Options, source: Tokens, target: Tokens) -> tuple[Positions, Positions]:
    """The tokens of `blend_words`, such as `silver jeep | Porsche car`: words of the source, words of the target.

    A side that is not given has the words that are gone, or that are new.
    """
    sides = [side.split() for side in options.get("blend_words", "").split("|")]
    require(len(sides) <= 2, f"blend_words must be words, or words | words; got {options.get('blend_words')!r}")
    given = dict(zip(("source", "target"), sides))
    derived = differing(source, target)
    chosen = [
        found("blend_words", given[side], tokens, side) if given.get(side) else positions
        for side, tokens, positions in zip(("source", "target"), (source, target), derived)
    ]
    return chosen[0], chosen[1]


def cross_windows(options: Options, target: Tokens) -> tuple[Window, dict[Positions, Window]]:
    """`cross_replace_steps`, such as `0.8` or `0.6 watercolor=0.3:0.7`: for all tokens, and for those of some words.

    Where only words have windows, all others have all steps.
    """
    name = "cross_replace_steps"
    entries = [entry.rpartition("=")[::2] for entry in options[name].split()]
    default = [read_window(text, name) for word, text in entries if not word]
    require(len(default) <= 1, f"{name} must have one window without a word; got {options[name]!r}")
    words = {found(name, [word], target, "target"): read_window(text, name) for word, text in entries if word}
    return (default or [Window(0.0, 1.0)])[0], words


def equalized(options: Options, kind: str, source: Tokens, target: Tokens) -> dict[Positions, float]:
    """`equalizer_values` of `equalizer_words`, one for all or one a word.

    Without words it is, where a prompt is refined, the new ones'; where words are replaced, none.
    """
    name = "equalizer_values"
    try:
        values = [float(value) for value in options[name].split()]
    except ValueError:
        raise InputError(f"{name} must be numbers, such as 10 or 10 2; got {options[name]!r}") from None
    words = options.get("equalizer_words", "").split()
    if not words and kind == "refine":
        positions = [(position,) for position in differing(source, target)[1]]
    else:
        positions = [found("equalizer_words", [word], target, "target") for word in words]
    require(
        len(values) in (1, len(words)),
        f"{name} must be one number, or one a word of equalizer_words; got {len(values)} for {len(words)} words",
    )
    return dict(zip(positions, values * len(positions) if len(values) == 1 else values))


def found(option: str, words: Sequence[str], tokens: Tokens, prompt: str) -> Positions:
    """The tokens of some words. Raises InputError for a word that the prompt does not have."""
    missing = [word for word in words if not tokens.positions(word)]
    known = " ".join(dict.fromkeys(word for word, _ in tokens.words))
    require(
        not missing,
        f"{option}: the {prompt} prompt has no {', '.join(map(repr, missing))}; its words, parted at spaces and equal "
        f"letter by letter, are: {known}",
    )
    return tuple(position for word in words for position in tokens.positions(word))
