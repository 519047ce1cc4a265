"""A study under names that tell nothing: its questions, and the plan carried out for given methods and pairs."""

from dataclasses import dataclass

from evaluation.study.key import Key, KeyTrial, Rule, sign
from evaluation.study.plan import BROKEN, Plan, Trial, with_broken_clip


@dataclass(frozen=True)
class Question:
    """What is asked about every trial."""

    id: str
    text: str


QUESTIONS = [  # the three criteria in the paper's words
    Question("alignment", "Alignment between the edited video and the target text prompt"),
    Question(
        "consistency",
        "Inter-frame consistency and the continuity of motion between adjacent frames of the edited video",
    ),
    Question("preservation", "Preservation of the original video's motion patterns and unedited regions"),
]

# Of six edits that are nearly as good, an attentive rater may well prefer another one the second time.
RULES = {"pairwise": Rule(), "best_of": Rule(reversed_share=1.0)}


class Blind:
    """Names that tell nothing, made from the secret; and methods and pairs in the order of such names.

    So neither a name nor the plan, whose seed is known, leads to a method.
    """

    def __init__(self, secret: str, finished: dict[str, list[str]]) -> None:
        """`finished` lists each pair's methods."""
        self.secret = secret
        self.pairs = sorted(finished, key=lambda pair: self.name("pair", pair))
        methods = {method for methods in finished.values() for method in methods}
        self.methods = sorted(methods, key=lambda method: self.name("method", method))
        self.finished = [[self.methods.index(method) for method in finished[pair]] for pair in self.pairs]

    def name(self, *of: str | int) -> str:
        """Twelve hexadecimal digits."""
        return sign(self.secret, "/".join(map(str, of)))[:12]

    def pair(self, pair: int) -> str:
        """A pair's name on the page."""
        return self.name("pair", self.pairs[pair])

    def clip(self, pair: int, method: int) -> str:
        """The name of an edit, or of a pair's broken clip."""
        shown = ("broken",) if method == BROKEN else ("edit", self.methods[method])
        return self.name(*shown, self.pairs[pair])

    def source(self, pair: int) -> str:
        """The name of a pair's source video."""
        return self.name("source", self.pairs[pair])

    def sheet(self, number: int, trials: list[Trial]) -> list[KeyTrial]:
        """A sheet by names."""
        ids = [self.name("trial", number, place) for place in range(len(trials))]
        return [
            KeyTrial(
                id=id,
                pair=self.pair(trial.pair),
                clips=[self.clip(trial.pair, method) for method in trial.methods],
                kind=trial.kind,
                repeats=None if trial.repeats is None else ids[trial.repeats],
            )
            for id, trial in zip(ids, trials)
        ]

    def key(self, plan: Plan) -> Key:
        """The plan carried out, and every name with its meaning."""
        clips: dict[str, str | None] = {self.clip(pair, BROKEN): None for pair in with_broken_clip(len(self.pairs))}
        for pair, methods in enumerate(self.finished):
            clips |= {self.clip(pair, method): self.methods[method] for method in methods}
        return Key(
            study=self.name("study"),
            secret=self.secret,
            design=plan.design,
            seed=plan.seed,
            methods=sorted(self.methods),
            questions=[question.id for question in QUESTIONS],
            pairs={self.pair(pair): name for pair, name in enumerate(self.pairs)},
            clips=clips,
            sheets=[self.sheet(number, trials) for number, trials in enumerate(plan.deal(self.finished))],
            rule=RULES[plan.design],
        )
