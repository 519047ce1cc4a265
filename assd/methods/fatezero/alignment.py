"""Which tokens of the source prompt a target prompt's tokens take their attention maps from (Prompt-to-Prompt).

Hertz et al. 2022 (arXiv 2208.01626), section 3.2. Of a cross-attention map's columns, one a token: S those of the
source prompt, E those of the target prompt, C what the edit shows in their place. Axes beside those of `assd`: m heads,
q queries.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from assd.diffusion.model import Model

Positions: TypeAlias = tuple[int, ...]  # of tokens in a padded prompt; 0 is the start token


@dataclass(frozen=True)
class Tokens:
    """A prompt as its text encoder reads it.

    ids     start token, the words' tokens, end token
    words   the words, parted at single spaces, each with the positions of its tokens
    length  of the padded prompt: the columns of its cross-attention maps
    """

    ids: tuple[int, ...]
    words: tuple[tuple[str, Positions], ...]
    length: int

    def positions(self, word: str) -> Positions:
        """The tokens of all occurrences of a word, which has to be equal letter by letter; none if it is not there."""
        return tuple(position for known, positions in self.words if known == word for position in positions)


def read_tokens(model: Model, prompt: str) -> Tokens:
    """A prompt by a model's tokenizer. What the text encoder cuts has no positions."""
    tokenizer: PreTrainedTokenizerBase = getattr(model, "tokenizer")  # noqa: B009  (no part of the contract)
    length = tokenizer.model_max_length
    words, begin = [], 1
    for word in prompt.split(" "):
        end = begin + len(tokenizer(word, add_special_tokens=False).input_ids)
        words.append((word, tuple(range(begin, min(end, length - 1)))))
        begin = end
    return Tokens(tuple(tokenizer(prompt, truncation=True, max_length=length).input_ids), tuple(words), length)


def differing(source: Tokens, target: Tokens) -> tuple[Positions, Positions]:
    """The tokens of the words of the source prompt that are gone, and of those that are new in the target prompt."""
    before, after = ([word for word, _ in tokens.words] for tokens in (source, target))
    gone, new = [], []
    for kind, i, i_end, j, j_end in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            gone += [position for _, positions in source.words[i:i_end] for position in positions]
            new += [position for _, positions in target.words[j:j_end] for position in positions]
    return tuple(gone), tuple(new)


def are_replaceable(source: Tokens, target: Tokens) -> bool:
    """Whether both prompts have as many words, as `replace` asks."""
    return len(source.words) == len(target.words)


@dataclass(frozen=True)
class Refinement:
    """C_n = A_n S_m(n) + (1 - A_n) E_n: a token that the source prompt has too keeps its map, a new one its own.

    columns  m, of the source prompt, one a column of the target prompt; -1 for a token that is not aligned
    aligned  A, 1 or 0
    """

    columns: Int[Tensor, " l"]
    aligned: Float[Tensor, " l"]

    def __call__(self, S: Float[Tensor, "f m q l"], E: Float[Tensor, "f m q l"]) -> Float[Tensor, "f m q l"]:
        """C."""
        A = self.aligned.to(E)
        return A * S[..., self.columns.to(E.device)] + (1 - A) * E


@dataclass(frozen=True)
class Replacement:
    """C = S M: each word's map becomes that of the word which stands in its place.

    matrix  M, rows of the source prompt, columns of the target prompt
    """

    matrix: Float[Tensor, "l l"]

    def __call__(self, S: Float[Tensor, "f m q l"], E: Float[Tensor, "f m q l"]) -> Float[Tensor, "f m q l"]:
        """C; E has no part in it."""
        return S @ self.matrix.to(E)


Alignment: TypeAlias = Refinement | Replacement


def refinement(source: Tokens, target: Tokens, padding_copies_words: bool = False) -> Refinement:
    """By the best global alignment of the two prompts' tokens.

    The padding behind the target prompt takes the source prompt's padding. Where the source prompt is longer, the
    target prompt's first columns of padding meet words there, and keep their own maps; with `padding_copies_words`, as
    published, they take those words' maps.
    """
    padding = range(len(target.ids), target.length)
    meets_padding = [padding_copies_words or n >= len(source.ids) for n in padding]
    columns = align(source.ids, target.ids) + [n if meets else -1 for n, meets in zip(padding, meets_padding)]
    m = torch.tensor(columns)
    return Refinement(m, (m >= 0).float())


def align(source: Sequence[int], target: Sequence[int]) -> list[int]:
    """Global alignment (Needleman and Wunsch 1970): +1 for equal tokens, -1 for unequal ones, 0 for a gap.

    Returns for each target token the position of its source token, or -1. Of equally good alignments the one is taken
    that, from the end on, rather leaves out a target token than a source token, and either rather than aligning two.

    >>> align([0, 7, 8, 9], [0, 5, 8, 9])
    [0, -1, 2, 3]
    """
    skip_target, skip_source = 0, 1
    score = np.zeros((len(source) + 1, len(target) + 1), dtype=int)
    move = np.zeros_like(score)
    for i, s in enumerate(source, start=1):
        for j, t in enumerate(target, start=1):
            options = (score[i, j - 1], score[i - 1, j], score[i - 1, j - 1] + (1 if s == t else -1))
            score[i, j], move[i, j] = max(options), int(np.argmax(options))
    aligned = [-1] * len(target)
    i, j = len(source), len(target)
    while i and j:
        if move[i, j] == skip_target:
            j -= 1
        elif move[i, j] == skip_source:
            i -= 1
        else:
            i, j = i - 1, j - 1
            aligned[j] = i
    return aligned


def replacement(source: Tokens, target: Tokens, unshifted_tail: bool = False) -> Replacement:
    """Word by word, for prompts of equally many words.

    A changed word of s tokens gives its maps to one of n tokens: one to one where s = n, else their sum to each, by
    1/n, so that the attention to the word stays what it was. All other tokens keep their maps, shifted by what the
    changed words before them are longer or shorter. With `unshifted_tail`, as published, they aren't shifted behind the
    last changed word: where s != n the rest of the sentence takes maps of wrong words.
    """
    changed = [(s, n) for (before, s), (after, n) in zip(source.words, target.words) if before != after and s and n]
    M = torch.zeros(source.length, source.length)
    i = j = 0
    for s, n in changed:
        unchanged = s[0] - i
        M[i : s[0], j : n[0]] = torch.eye(unchanged)
        M[s[0] : s[-1] + 1, n[0] : n[-1] + 1] = torch.eye(len(s)) if len(s) == len(n) else 1 / len(n)
        i, j = s[-1] + 1, n[-1] + 1
    tail = source.length - max(i, j)
    row = j if unshifted_tail else i
    M[row : row + tail, j : j + tail] = torch.eye(tail)
    return Replacement(M)
