"""From files of answers to judgements: whose answers count, and what they say."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assd.errors import InputError, require
from evaluation.study.key import NO_DIFFERENCE, Key, KeyTrial, Refused, read_key
from evaluation.study.store import read_lines

SUFFIXES = (".json", ".jsonl")


@dataclass
class Session:
    """What one rater answered, by trial."""

    rater: str
    sheet: int
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether a program answered: one such answer is enough."""
        return any(answer.get("simulated", False) for answer in self.answers.values())


def answer_files(paths: Iterable[Path]) -> list[Path]:
    """The files themselves, and of folders all that hold answers; a key is none."""
    files = []
    for path in paths:
        require(path.exists(), f"{path} does not exist (looked from {Path.cwd()})")
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [file for file in found if file.suffix in SUFFIXES and not file.name.endswith("-key.json")]
    require(bool(files), f"no answers in {', '.join(map(str, paths))}: they are files {' and '.join(SUFFIXES)}")
    return files


def find_key(files: list[Path], given: Path | None) -> Key:
    """The key that was given, or the only one beside the answers or one folder up."""
    if given:
        return read_key(given)
    folders = {folder for file in files for folder in (file.resolve().parent, file.resolve().parent.parent)}
    found = sorted(key for folder in folders for key in folder.glob("*-key.json"))
    require(len(found) == 1, f"{len(found)} keys lie beside the answers ({', '.join(map(str, found))}): give --key")
    return read_key(found[0])


def raw_answers(file: Path) -> Iterator[dict[str, Any]]:
    """The answers of the server's file, or of one that a rater downloaded."""
    if file.suffix == ".jsonl":
        yield from (record for record in read_lines(file) if "trial" in record)
        return
    try:
        session = json.loads(file.read_text(encoding="utf-8"))
        yield from ({**session, **answer} for answer in session["answers"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} holds no answers ({error})") from error


def read_sessions(files: Iterable[Path], key: Key) -> tuple[list[Session], list[str]]:
    """Sessions in the order of their first answers, and why answers were refused.

    The server's rules hold here too: an answer has to be one to what was served, the first answer to a trial counts,
    and a rater has one sheet. The same answer from two files, sent and downloaded, is one.
    """
    sessions: dict[str, Session] = {}
    refused = []
    for file in files:
        for raw in raw_answers(file):
            try:
                take(key.check(raw), sessions)
            except Refused as reason:
                refused.append(f"{file.name}: {reason}")
    return list(sessions.values()), refused


def take(answer: dict[str, Any], sessions: dict[str, Session]) -> None:
    """Into its session; raises Refused where it contradicts what is there."""
    session = sessions.setdefault(answer["rater"], Session(answer["rater"], answer["sheet"]))
    if session.sheet != answer["sheet"]:
        raise Refused(403, f"rater {session.rater} answers sheet {session.sheet}, not {answer['sheet']}")
    first = session.answers.setdefault(answer["trial"], answer)
    if first["choices"] != answer["choices"]:
        raise Refused(409, f"rater {session.rater} has answered trial {answer['trial']} before, and otherwise")


# ---- Whose answers count.


def chosen_clips(answer: dict[str, Any]) -> list[str | None]:
    """For each question, the clip that was chosen, or None for no difference."""
    return [None if choice is NO_DIFFERENCE else answer["clips"][choice] for choice in answer["choices"].values()]


def caught(session: Session, key: Key) -> list[str]:
    """Why a session does not count by the key's rule; empty where it does."""
    sheet = key.sheets[session.sheet]
    missing = sum(trial.id not in session.answers for trial in sheet)
    if missing:
        return [f"unfinished: {missing} of {len(sheet)} trials not answered"]
    reasons = []
    rule = key.rule
    seen = intact_preferred(session, key, sheet)
    if seen and np.mean(seen) < rule.broken_share:
        reasons.append(f"preferred the edit to a broken clip in {sum(seen)} of {len(seen)} answers")
    turned = reversals(session, sheet)
    if turned and np.mean(turned) > rule.reversed_share:
        reasons.append(f"preferred the other edit in {sum(turned)} of {len(turned)} repeated answers")
    seconds = float(np.median([answer["seconds"] for answer in session.answers.values()]))
    if seconds < rule.seconds:
        reasons.append(f"took {seconds:.1f} s a trial, less than {rule.seconds:g} s")
    return reasons


def intact_preferred(session: Session, key: Key, sheet: list[KeyTrial]) -> list[bool]:
    """For each answer to a trial with a broken clip, whether it prefers an edit."""
    answers = [session.answers[trial.id] for trial in sheet if trial.kind == "broken"]
    return [clip is not None and key.clips[clip] is not None for answer in answers for clip in chosen_clips(answer)]


def reversals(session: Session, sheet: list[KeyTrial]) -> list[bool]:
    """For each answer to a repeated trial, whether it prefers another edit than before. No difference reverses none."""
    turned = []
    for trial in sheet:
        if trial.repeats is not None:
            before, after = (chosen_clips(session.answers[id]) for id in (trial.repeats, trial.id))
            turned += [None not in (first, second) and first != second for first, second in zip(before, after)]
    return turned


# ---- What the answers say.


@dataclass(frozen=True, kw_only=True)
class Judgements:
    """The answers that count: `table` has a row per rater, pair and question.

    Its column `cell` is a number: in the pairwise design 3 * duel + outcome, the outcome being 0 where the duel's first
    method was preferred, 1 for no difference, 2 where the second was; in the best-of design the method chosen.
    """

    design: str
    methods: list[str]
    questions: list[str]
    duels: list[tuple[int, int]]
    table: pd.DataFrame

    @property
    def cells(self) -> int:
        """How many different outcomes a question has."""
        return 3 * len(self.duels) if self.design == "pairwise" else len(self.methods)


def judgements(sessions: Iterable[Session], key: Key) -> Judgements:
    """Of judged trials only: catch trials are for the rule. Columns: rater, pair, question, unit, cell.

    `unit` is what several raters may have judged: a pair and the methods that were shown.
    """
    methods = {method: number for number, method in enumerate(key.methods)}
    duels = [(a, b) for a in methods.values() for b in methods.values() if a < b]
    rows = []
    for session in sessions:
        for trial in key.sheets[session.sheet]:
            if trial.kind == "judged":
                choices = session.answers[trial.id]["choices"]
                shown = [methods[str(key.clips[clip])] for clip in trial.clips]
                unit = f"{trial.pair}/{'-'.join(map(str, sorted(shown)))}"
                for question, choice in choices.items():
                    cell = duel_cell(shown, choice, duels) if key.design == "pairwise" else shown[choice]
                    rows.append((session.rater, trial.pair, question, unit, cell))
    table = pd.DataFrame(rows, columns=["rater", "pair", "question", "unit", "cell"])
    return Judgements(design=key.design, methods=key.methods, questions=key.questions, duels=duels, table=table)


def duel_cell(shown: list[int], choice: int | None, duels: list[tuple[int, int]]) -> int:
    """See `Judgements`."""
    first, second = sorted(shown)
    outcome = 1 if choice is None else 0 if shown[choice] == first else 2
    return 3 * duels.index((first, second)) + outcome
