"""What the other programs are given: clips of the benchmark, studies, experiments."""

from tests.bad_inputs.entry import BadInput
from tests.bad_inputs.making import RUN, Maker, both, clip, cut, file, png_header, run, zipped

IMPORT = "assd.benchmark --root {here}/data import {here}/"


def clips(thing: str, remedy: str, make: Maker, path: str = "theirs") -> BadInput:
    """Clips that can't be sorted in; the data root may come to be, with nothing in it."""
    return BadInput(make=make, command=IMPORT + path, thing=thing, remedy=remedy)


BENCHMARK = {
    "no clips": clips("{here}/theirs", "zip file", lambda here: None),
    "text named bear.mp4": clips("bear.mp4", "get them again", file("theirs/bear.mp4", "no film\n" * 50)),
    "frames of a clip that are none": clips("bear", "get them again", file("theirs/bear/00000.jpg", "no picture")),
    "a frame of a clip that claims 60000 x 60000 pixels": clips(
        "00000.png", "get them again", file("theirs/bear/00000.png", png_header(60_000, 60_000))
    ),
    "text named .zip": clips("clips.zip", "get it again", file("clips.zip", "no zip"), "clips.zip"),
    "a zip file cut off": clips(
        "clips.zip", "get it again", both(zipped({"a": b"1" * 999}), cut("clips.zip", 0.7)), "clips.zip"
    ),
    "a zip file with text named bear.mp4": clips(
        "bear.mp4", "get them again", zipped({"bear.mp4": b"no film"}), "clips.zip"
    ),
    "an address that is none": BadInput(
        command="assd.benchmark --root {here}/data fetch davis --url nonsense", thing="nonsense", remedy="--url"
    ),
    "an address where nothing is": BadInput(
        command="assd.benchmark --root {here}/data fetch davis --url file:///nowhere.zip",
        thing="nowhere.zip",
        remedy="goes on",
    ),
    "a download that is no zip file": BadInput(
        make=file("data/DAVIS-2017-trainval-480p.zip", "no zip"),
        command="assd.benchmark --root {here}/data fetch davis",
        thing="DAVIS-2017-trainval-480p.zip",
        remedy="get it again",
    ),
    "a data root that is a file": BadInput(
        make=both(file("data"), zipped({"a": b""})),
        command=IMPORT + "clips.zip",
        thing="{here}/data",
        remedy="File exists",
    ),
    "a split that is not there": BadInput(
        command="assd.benchmark --root {here}/data status --split all", thing="--split", remedy="extended"
    ),
    "a dataset without clips": BadInput(
        command="assd.run output={here}/out device=cpu dataset=benchmark dataset.root={here}/data",
        thing="{here}/data",
        remedy="assd.benchmark status",
    ),
}
TWO = f"evaluation.study page a={{here}}/{RUN} b={{here}}/{RUN} --output {{here}}/study"

STUDIES = {
    "a study of one method": BadInput(
        make=run,
        command=f"evaluation.study page {{here}}/{RUN} --output {{here}}/study",
        thing="a study compares methods",
        remedy="two runs or more",
    ),
    "a study of no run": BadInput(
        command="evaluation.study page {here} --output {here}/study", thing="holds no run", remedy="outputs/"
    ),
    "two methods of one name": BadInput(
        make=run,
        command=f"evaluation.study page a={{here}}/{RUN} a={{here}}/{RUN} --output {{here}}/study",
        thing="two runs are called a",
        remedy="NAME=RUN",
    ),
    "no raters": BadInput(make=run, command=TWO + " --raters 0", thing="--raters", remedy="1 or more"),
    "a study in a folder that is there": BadInput(
        make=both(run, file("study/mine.txt")), command=TWO, thing="{here}/study", remedy="--output"
    ),
    "answers without a key": BadInput(
        make=file("s/a.jsonl", "{}"),
        command="evaluation.study analyse {here}/s/a.jsonl",
        thing="0 keys",
        remedy="--key",
    ),
    "a key that is no JSON": BadInput(
        make=both(file("a.jsonl", "{}"), file("key.json", "{")),
        command="evaluation.study analyse {here}/a.jsonl --key {here}/key.json",
        thing="key.json",
        remedy="page",
    ),
    "answers that are none": BadInput(
        make=file("a.csv", "1,2"),
        command="evaluation.study analyse {here}/a.csv --key {here}/key.json",
        thing="a.csv",
        remedy=".jsonl",
    ),
    "a study that is not there": BadInput(
        command="evaluation.study serve {here}/study --port 0", thing="{here}/study", remedy="page"
    ),
}

EXPERIMENTS = {
    "a parameter that the grid is about": BadInput(
        command="experiments.tune --output {here}/tune attention.lam=0.5",
        thing="attention.lam=0.5",
        remedy="conf/",
        writes=("tune/command.txt",),
    ),
    "a figure of videos that are none": BadInput(
        make=both(
            clip("videos/a.mp4"),
            file("videos/prompts.csv", "video,source_prompt,target_prompt\nb.mp4,a red circle,a blue circle\n"),
        ),
        command="experiments.figure5 --output {here}/figure device=cpu dataset=folder dataset.path={here}/videos",
        thing="videos/b.mp4",
        remedy="does not exist",
        writes=("figure/command.txt",),
    ),
    "a figure of a method that is not there": BadInput(
        command="experiments.figure6 --output {here}/figure method=nope",
        thing="method/nope",
        remedy="reconstruction",
        writes=("figure/command.txt",),
    ),
    "a figure below a file": BadInput(
        make=file("figure"),
        command="experiments.figure7 --output {here}/figure",
        thing="{here}/figure",
        remedy="File exists",
    ),
}
