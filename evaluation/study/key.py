"""The study's key: what its folder must not tell. It lies beside the folder, for the server and the analysis.

It says whose edit each clip is, which trials are catch trials and by which rule raters are excluded. It holds the
secret that the names of clips and the signatures of sheets are made with.
"""

import hashlib
import hmac
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from assd.errors import InputError, require

FORMAT = 1
NO_DIFFERENCE = None  # the choice of a rater who sees none
LONGEST_NAME = 64  # of a rater


class Refused(InputError):
    """An answer that can't be taken, and the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Whose answers count, fixed before the first of them.

    Args:
        broken_share: of the answers to trials with a broken clip, at least this share prefers the edit.
        reversed_share: of the answers to repeated trials, at most this share prefers the other edit than before. An
            attentive rater turns some of them, where the edits are close; one who always takes the same side, all.
        seconds: a trial takes at least this long, in the median.
    """

    broken_share: float = 0.8
    reversed_share: float = 0.8
    seconds: float = 3.0


@dataclass(frozen=True, kw_only=True)
class KeyTrial:
    """A trial by the names of its clips; `repeats` is the id of the trial that it shows again."""

    id: str
    pair: str
    clips: list[str]
    kind: str
    repeats: str | None = None


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything about a study. `clips` maps a clip's name to its method, or to None where it is broken."""

    study: str
    secret: str
    design: str
    seed: int
    methods: list[str]
    questions: list[str]
    pairs: dict[str, str]
    clips: dict[str, str | None]
    sheets: list[list[KeyTrial]]
    rule: Rule = field(default_factory=Rule)
    format: int = FORMAT

    @cached_property
    def signatures(self) -> list[str]:
        """HMAC-SHA256 of each sheet as it is served."""
        served = [[[trial.id, trial.pair, *trial.clips] for trial in sheet] for sheet in self.sheets]
        return [sign(self.secret, json.dumps([self.study, number, sheet])) for number, sheet in enumerate(served)]

    @cached_property
    def trials(self) -> list[dict[str, KeyTrial]]:
        """Each sheet's trials by their ids."""
        return [{trial.id: trial for trial in sheet} for sheet in self.sheets]

    def check(self, answer: Any) -> dict[str, Any]:
        """The answer, without what it may hold beside an answer. Raises Refused unless it answers what was served."""
        refuse_unless(isinstance(answer, dict), 400, "an answer is a JSON object")
        check_fields(answer)
        sheet = answer["sheet"]
        refuse_unless(answer["study"] == self.study, 403, "this is an answer to another study")
        refuse_unless(0 <= sheet < len(self.sheets), 403, f"there is no sheet {sheet}")
        signed = hmac.compare_digest(answer["signature"].encode(), self.signatures[sheet].encode())
        refuse_unless(signed, 403, f"the signature is not that of sheet {sheet}")
        trials = self.trials[sheet]
        refuse_unless(answer["trial"] in trials, 403, f"sheet {sheet} has no trial {answer['trial']!r}")
        served = trials[answer["trial"]]
        refuse_unless(answer["clips"] == served.clips, 403, "these are not the clips of this trial, in their order")
        self.check_choices(answer["choices"], len(served.clips))
        return {name: answer[name] for name in (*FIELDS, *OPTIONAL) if name in answer}

    def check_choices(self, choices: dict[str, Any], shown: int) -> None:
        """Raises Refused unless each question has a choice that there was."""
        refuse_unless({*choices} == {*self.questions}, 400, f"the questions are {', '.join(self.questions)}")
        for question, choice in choices.items():
            if choice is NO_DIFFERENCE:
                refuse_unless(self.design == "pairwise", 400, f"{question}: one edit has to be chosen")
            else:
                whole = isinstance(choice, int) and not isinstance(choice, bool)
                refuse_unless(whole and 0 <= choice < shown, 400, f"{question}: a choice is a number below {shown}")


FIELDS = {  # of an answer
    "study": str,
    "rater": str,
    "sheet": int,
    "signature": str,
    "trial": str,
    "clips": list,
    "choices": dict,
    "seconds": (int, float),
}
OPTIONAL = {"loops": int, "answered": str, "simulated": bool}


def check_fields(answer: dict[str, Any]) -> None:
    """Raises Refused where a field is missing or of another type."""
    for name in FIELDS:
        refuse_unless(name in answer, 400, f"an answer has a field {name}")
    for name, kind in (FIELDS | OPTIONAL).items():
        value = answer.get(name)
        known = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        refuse_unless(name not in answer or known, 400, f"{name} is of the wrong type")
    rater = answer["rater"]
    refuse_unless(is_rater(rater), 400, f"a rater's name has 1 to {LONGEST_NAME} characters that print")
    refuse_unless(0 <= answer["seconds"] < math.inf, 400, "seconds is no length of time")
    refuse_unless(len(answer.get("answered", "")) <= LONGEST_NAME, 400, "answered is no time")


def is_rater(name: str) -> bool:
    """Whether a rater can be called so."""
    return 0 < len(name) <= LONGEST_NAME and name.isprintable()


def refuse_unless(holds: bool, status: int, reason: str) -> None:
    """Raises Refused unless `holds`."""
    if not holds:
        raise Refused(status, reason)


def sign(secret: str, text: str) -> str:
    """HMAC-SHA256, in hexadecimal digits."""
    return hmac.new(bytes.fromhex(secret), text.encode(), hashlib.sha256).hexdigest()


def write_key(key: Key, path: Path) -> None:
    """As JSON, aside and then renamed, readable to its owner alone."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # an old one keeps its mode
    partial.touch(mode=0o600)
    partial.write_text(json.dumps(asdict(key), indent=1), encoding="utf-8")
    partial.replace(path)


def read_key(path: Path) -> Key:
    """Raises InputError where there is no key."""
    require(path.is_file(), f"there is no key {path}: `page` writes it beside the study's folder; give it with --key")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        require(fields.get("format") == FORMAT, f"{path} has format {fields.get('format')}, and {FORMAT} is known")
        sheets = [[KeyTrial(**trial) for trial in sheet] for sheet in fields.pop("sheets")]
        return Key(**fields | {"sheets": sheets, "rule": Rule(**fields["rule"])})
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no key of a study ({error}): `page` writes one; give it with --key") from error


def beside(study: Path, name: str) -> Path:
    """A file that belongs to a study's folder and is not served: `study/` has `study-key.json`."""
    folder = study.resolve()
    return folder.with_name(f"{folder.name}-{name}")
