"""The study's folder: one page and its clips, to be opened from disk or put on any static host; beside it, the key."""

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from assd.errors import require
from evaluation.study.blind import QUESTIONS, Blind
from evaluation.study.clips import write_broken, write_like
from evaluation.study.edits import StudyEdit, comparable
from evaluation.study.key import Key, beside, write_key
from evaluation.study.plan import BROKEN, Plan, with_broken_clip

TITLE = "Which edit is better?"
SECONDS = {"pairwise": 20, "best_of": 45}  # that a trial takes, roughly: the page says how long it will be


def write_study(
    runs: dict[str, Path], output: Path, plan: Plan, secret: str, title: str = TITLE, post: str | None = None
) -> Key:
    """Writes the folder `output` and, beside it, `<output>-key.json`; returns the key.

    Args:
        runs: method names and their run directories.
        secret: 64 hexadecimal digits that nobody can guess (`secrets.token_hex(32)`).
        post: an address that each answer is posted to, as JSON; None leaves them to the page's download and to `serve`.

    Raises InputError where a study is there already, or the runs have nothing to compare.
    """
    key_file = beside(output, "key.json")
    for there in (output, key_file):
        require(not there.exists(), f"{there} is there already: give another --output, or remove that study")
    pairs = comparable(runs, complete=plan.design == "best_of")
    blind = Blind(secret, {pair: list(edits) for pair, edits in pairs.items()})
    key = blind.key(plan)
    partial = beside(output, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "clips").mkdir(parents=True)
    write_clips(partial / "clips", blind, pairs, plan)
    (partial / "index.html").write_text(html(title, served(key, blind, pairs, post)), encoding="utf-8")
    write_key(key, key_file)
    partial.rename(output)
    return key


def write_clips(folder: Path, blind: Blind, pairs: dict[str, dict[str, StudyEdit]], plan: Plan) -> None:
    """Every clip of every pair, each pair's in the size and length of its source."""
    rng = np.random.default_rng(plan.seed)
    for pair, name in enumerate(blind.pairs):
        edits = pairs[name]
        source = next(iter(edits.values())).source
        write_like(source, source, folder / f"{blind.source(pair)}.mp4")
        for method, edit in edits.items():
            write_like(source, edit.edited, folder / f"{blind.clip(pair, blind.methods.index(method))}.mp4")
        if plan.broken and pair in with_broken_clip(len(pairs)):
            write_broken(source, folder / f"{blind.clip(pair, BROKEN)}.mp4", rng)


def served(key: Key, blind: Blind, pairs: dict[str, dict[str, StudyEdit]], post: str | None) -> dict[str, Any]:
    """What the page's script is told."""
    shown = {}
    for pair, name in enumerate(blind.pairs):
        edit = next(iter(pairs[name].values()))
        shown[blind.pair(pair)] = {
            "source": blind.source(pair),
            "source_prompt": edit.source_prompt,
            "target_prompt": edit.target_prompt,
        }
    sheets = [
        {
            "signature": key.signatures[number],
            "trials": [{"id": trial.id, "pair": trial.pair, "clips": trial.clips} for trial in trials],
        }
        for number, trials in enumerate(key.sheets)
    ]
    questions = [asdict(question) for question in QUESTIONS]
    return dict(
        study=key.study, design=key.design, seed=key.seed, post=post, questions=questions, pairs=shown, sheets=sheets
    )


def html(title: str, study: dict[str, Any]) -> str:
    """The page. Everything that came from outside is escaped by the template."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.study", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["inline"] = lambda name: Markup(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    trials = study["sheets"][0]["trials"]
    return environment.get_template("page.html.j2").render(
        title=title,
        study=study,
        questions=QUESTIONS,
        edits=len(trials[0]["clips"]),
        minutes=math.ceil(len(trials) * SECONDS[study["design"]] / 60),
    )
