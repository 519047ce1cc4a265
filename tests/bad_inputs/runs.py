"""Run directories and sweeps that were damaged, or that a stranger made."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from assd.runs.checkpoint import write_checkpoint
from assd.runs.cost import NOTHING
from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.given import SHAPES
from tests.bad_inputs.making import (
    EDIT,
    RUN,
    Maker,
    both,
    cut,
    file,
    hostile,
    link,
    remove,
    run,
    run_says,
    run_with,
    stopped_run,
)
from tests.commands import PAIR

GOES_ON = tuple(
    f"{RUN}/{name}" for name in ("config.yaml", "environment.json", "scores.csv", "report.html", "overview.png")
)
FAILS = (*GOES_ON, f"{EDIT}/edit.json")
EDIT_JSON = f"edits/{PAIR}/edit.json"
HEAD = "pair,video,metric,better,value,reason\n"
ROW = "01-black-to-green,edited,CLIP text,higher,0.5,\n"


def again(thing: str, remedy: str, make: Maker, writes: tuple[str, ...] = ()) -> BadInput:
    """A run that the same command can't go on with; the pair's failure is recorded where `writes` says so."""
    return BadInput(make=make, command=SHAPES, thing=thing, remedy=remedy, writes=writes)


def report(thing: str, remedy: str, make: Maker, of: str = RUN) -> BadInput:
    """A run of which there can be no page."""
    command = f"evaluation.report {{here}}/{of} --output {{here}}/report.html"
    return BadInput(make=make, command=command, thing=thing, remedy=remedy)


def shown(thing: str, remedy: str, make: Maker) -> BadInput:
    """A run whose page is written without a pair."""
    return replace(report(thing, remedy, make), writes=("report.html",))


def table(thing: str, remedy: str, make: Maker, more: str = "", of: str = RUN) -> BadInput:
    """A run of which there can be no table."""
    return BadInput(make=make, command=f"evaluation.tables {{here}}/{of} {more}", thing=thing, remedy=remedy)


def rescore(thing: str, remedy: str, make: Maker, more: str = "", of: str = RUN) -> BadInput:
    """A folder that can't be scored."""
    command = f"evaluation.run {{here}}/{of} metric=[clip_text] {more}"
    return BadInput(make=make, command=command, thing=thing, remedy=remedy)


def half_a_checkpoint(here: Path) -> bytes:
    """As a disk that failed leaves it."""
    write_checkpoint(here / "whole", {"step": 1, "Z": torch.zeros(4, 8, 16, 16)}, {}, NOTHING)
    content = (here / "whole").read_bytes()
    (here / "whole").unlink()
    return content[: len(content) // 2]


def stepless_checkpoint(here: Path) -> bytes:
    """One that does not say where it was."""
    write_checkpoint(here / "whole", {"step": None, "Z": torch.zeros(1)}, {}, NOTHING)
    content = (here / "whole").read_bytes()
    (here / "whole").unlink()
    return content


def stranger(here: Path) -> None:
    """A run that asks for a pickle to be loaded."""
    run(here)
    (here / "evil.pkl").write_bytes(hostile(here))
    said = ["dataset._target_=pandas.read_pickle", f"dataset.filepath_or_buffer={here / 'evil.pkl'}"]
    (here / RUN / "environment.json").write_text(json.dumps({"overrides": said}))


def sweep(**content: object) -> Maker:
    """A sweep's folder with a good run, whose list says this."""
    return both(run, file("out/sweep.json", json.dumps({"overrides": [], **content})))


RESUMED = {
    "half a checkpoint": again("checkpoint.safetensors", "remove it", stopped_run(half_a_checkpoint), FAILS),
    "a checkpoint that is a hostile pickle": again("checkpoint.safetensors", "remove it", stopped_run(hostile), FAILS),
    "a checkpoint without its step": again(
        "checkpoint.safetensors", "remove it", stopped_run(stepless_checkpoint), FAILS
    ),
    "a checkpoint of no bytes": again("checkpoint.safetensors", "remove it", stopped_run(lambda here: b""), FAILS),
    "edit.json cut off": again("edit.json", "remove it", both(run, cut(f"{RUN}/{EDIT_JSON}", 0.5)), GOES_ON),
    "edit.json is {}": again("edit.json", "remove it", run_with(EDIT_JSON, "{}"), GOES_ON),
    "edit.json is a list": again("edit.json", "remove it", run_with(EDIT_JSON, "[]"), GOES_ON),
    "a result of another prompt": again(
        "target_prompt",
        "output=...",
        run_says(EDIT_JSON, target_prompt="a dog", identity={}),
        GOES_ON,
    ),
    "config.yaml is no YAML": again("config.yaml", "restore it", run_with("config.yaml", "a: [")),
    "config.yaml is empty": again("config.yaml", "restore it", run_with("config.yaml", "")),
    "config.yaml is another run's": again("seed: 3", "output=...", run_with("config.yaml", "seed: 3\n")),
    "scores.csv of a pair is half a file": again(
        f"{PAIR}/scores.csv", "remove it", both(run, cut(f"{EDIT}/scores.csv", 0.8)), GOES_ON
    ),
}

READ = {
    "edit.json without prompts": shown("edit.json", "remove it", run_with(EDIT_JSON, '{"status": "finished"}')),
    "edit.json with a prompt that is none": shown("edit.json", "remove it", run_says(EDIT_JSON, source_prompt=3)),
    "environment.json cut off": report(
        "environment.json", "restore it", both(run, cut(f"{RUN}/environment.json", 0.5))
    ),
    "a command that is a number": report("environment.json", "list of texts", run_says("environment.json", command=3)),
    "overrides that are a number": report(
        "environment.json", "list of texts", run_says("environment.json", overrides=3)
    ),
    "a configuration without a dataset": report("config.yaml", "restore it", run_with("config.yaml", "dataset: 3\n")),
    "a page of no run": report("no run directory", "outputs/", lambda here: (here / "empty").mkdir(), of="empty"),
    "config.yaml leads to a secret": report(
        "no run directory",
        "outputs/",
        both(run, file("secret", "password: 1234"), link(f"{RUN}/config.yaml", "../../secret")),
    ),
    "a page into a folder that is not there": BadInput(
        make=run,
        command=f"evaluation.report {{here}}/{RUN} --output {{here}}/nowhere/a.html",
        thing="nowhere",
        remedy="No such file",
    ),
    "scores.csv cut within a row": table("scores.csv", "score the run again", both(run, cut(f"{RUN}/scores.csv", 0.9))),
    "scores.csv cut within its head": table("scores.csv", "score the run again", run_with("scores.csv", "pair,vid")),
    "scores.csv of no bytes": table("scores.csv", "score the run again", run_with("scores.csv", "")),
    "scores.csv with a row too short": table(
        "scores.csv", "score the run again", run_with("scores.csv", HEAD + ROW + "a,edited,CLIP\n")
    ),
    "scores.csv with a word for a value": table(
        "scores.csv", "score the run again", run_with("scores.csv", HEAD + ROW.replace("0.5", "good"))
    ),
    "scores.csv in Latin-1": table(
        "scores.csv", "score the run again", run_with("scores.csv", (HEAD + ROW.replace("text", "é")).encode("latin-1"))
    ),
    "scores.csv of another program": table("scores.csv", "pair, video, metric", run_with("scores.csv", "x,y\n1,2\n")),
    "a metric that is better sideways": table(
        "scores.csv", "higher", run_with("scores.csv", HEAD + ROW.replace("higher", "sideways"))
    ),
    "a run without scores": table("scores.csv", "evaluation.run", both(run, remove(f"{RUN}/scores.csv"))),
    "a reference that is no row": table("--reference", "source, unedited", run, "--reference nope"),
    "a metric that was not measured": table("--metric", "CLIP text", run, "--metric nope"),
    "a form of table that is not known": table("--format", "latex", run, "--format docx"),
    "sweep.json cut off": table(
        "sweep.json", "start the sweep again", both(run, file("out/sweep.json", '{"runs')), of="out"
    ),
    "sweep.json that leads out of the folder": table(
        "sweep.json", "start the sweep again", sweep(runs={"../../secret": []}), of="out"
    ),
    "sweep.json whose runs are a number": table("sweep.json", "start the sweep again", sweep(runs=3), of="out"),
    "a sweep whose runs are gone": report("no run directory", "outputs/", sweep(runs={"seed=7": []}), of="out"),
}

SCORED = {
    "no such folder": rescore("{here}/nowhere", "give run directories", lambda here: None, of="nowhere"),
    "a folder of something else": rescore("{here}/theirs", "01-black-to-green.mp4", file("theirs/a.txt"), of="theirs"),
    "no path at all": BadInput(
        command="evaluation.run metric=[clip_text]", thing="no path", remedy="give run directories"
    ),
    "a stranger's run that loads a pickle": rescore("pandas.read_pickle", "--trust", stranger),
    "a stranger's run that starts a program": rescore(
        "os.system", "--trust", run_says("environment.json", overrides=["metric.clip_text._target_=os.system"])
    ),
    "a stranger's run whose overrides are none": rescore(
        "environment.json", "restore it", run_says("environment.json", overrides=["dataset.limit=["])
    ),
    "a stranger's run with a dataset that is none": rescore(
        "config.yaml", "restore it", run_with("config.yaml", "dataset: 3\n")
    ),
    "another method for a run that is there": rescore("method", "dataset, metric", run, "method=reconstruction"),
    "a pair's scores cut off": replace(
        rescore(f"{PAIR}/scores.csv", "remove it", both(run, cut(f"{EDIT}/scores.csv", 0.8))),
        writes=(f"{RUN}/scores.csv", f"{RUN}/report.html"),  # of the other pairs
    ),
}
