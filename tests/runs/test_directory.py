"""The writer of a run directory, without a model: what belongs to what, and what is kept."""

import json
from dataclasses import replace

import pytest
import torch
from omegaconf import DictConfig

from assd.config import composed
from assd.data.pairs import Canvas, Footage, Prompts, TextVideoPair
from assd.data.video import read_video, to_bytes
from assd.errors import DivergedError, InputError
from assd.methods.method import Edit
from assd.runs.cost import Cost
from assd.runs.directory import RunDirectory
from tests.commands import contents, record, steps

FRAMES = torch.rand((3, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
FOOTAGE = Footage(FRAMES, 8.0)
COST = Cost(seconds=1.234, peak_memory_gib=0.51234)
PROMPTS, CANVAS = Prompts("a car", "a bus"), Canvas(3, 16, 16)
PAIR = TextVideoPair("01-car", PROMPTS, lambda canvas: FOOTAGE, "car", CANVAS, {"word": "car"})
EDIT = Edit(-FRAMES, FRAMES, {"Z": torch.ones(4, 3, 2, 2), "Z_ref": torch.zeros(4, 3, 2, 2)})
CHANGED = {
    "target prompt": (dict(prompts=Prompts("a car", "a tram")), {}, r"target_prompt: a bus -> a tram"),
    "source prompt": (dict(prompts=Prompts("a jeep", "a bus")), {}, r"source_prompt: a car -> a jeep"),
    "clip": (dict(clip="jeep"), {}, r"clip: car -> jeep"),
    "options": (dict(options={"word": "jeep"}), {}, r"options: .*car.* -> .*jeep"),
    "seed": ({}, dict(seed=1), r"seed: 0 -> 1"),
    "video": ({}, dict(footage=replace(FOOTAGE, frames=-FRAMES)), r"video: \w+ -> \w+"),
}


def curve(step):
    """What a method measures at a step."""
    return {"step": step, "t": 500, "gradient_norm": 1.0}


def finished(path, pair=PAIR):
    """A finished pair's folder."""
    folder = RunDirectory(path).edit(pair)
    identity = folder.identity(FOOTAGE, 0)
    folder.checkpoint({"step": 2, "Z": torch.zeros(2)}, [curve(0), curve(1)], identity, COST)
    folder.finish(EDIT, FOOTAGE, identity, COST, save_frames=False)
    return folder


def interrupted(path, pair=PAIR):
    """A folder with a checkpoint after two steps, and the curve of a third that reached none."""
    folder = RunDirectory(path).edit(pair)
    folder.checkpoint({"step": 2, "Z": torch.arange(2.0)}, [curve(0), curve(1)], folder.identity(FOOTAGE, 0), COST)
    with (folder.path / "steps.jsonl").open("a") as file:
        file.write(json.dumps(curve(2)) + "\n")
    return folder


@pytest.mark.parametrize("make", [finished, interrupted])
@pytest.mark.parametrize("change", CHANGED)
def test_a_pair_made_from_something_else_is_refused(tmp_path, make, change):
    """What a result or a checkpoint belongs to has changed: it is said, and the files are kept."""
    of_pair, of_call, said = CHANGED[change]
    before = contents(make(tmp_path).path)
    folder = RunDirectory(tmp_path).edit(replace(PAIR, **of_pair))
    with pytest.raises(InputError, match=said) as error:
        folder.check_belongs(folder.identity(**dict(footage=FOOTAGE, seed=0) | of_call))
    assert "It is kept" in str(error.value)
    assert str(folder.path) in str(error.value)
    assert contents(folder.path) == before


@pytest.mark.parametrize("make", [finished, interrupted])
def test_the_same_pair_belongs(tmp_path, make):
    """Nothing has changed: nothing is said; and a folder in which nothing is belongs to anybody."""
    folder = make(tmp_path)
    folder.check_belongs(folder.identity(FOOTAGE, 0))
    empty = RunDirectory(tmp_path).edit(replace(PAIR, id="02-car"))
    empty.check_belongs(empty.identity(FOOTAGE, 7))


def test_a_result_of_an_earlier_version_belongs_to_what_it_says(tmp_path):
    """Before there were identities edit.json had prompts and seed: these are compared."""
    folder = finished(tmp_path)
    old = {key: value for key, value in record(folder.path).items() if key != "identity"}
    (folder.path / "edit.json").write_text(json.dumps(old))
    folder.check_belongs(folder.identity(FOOTAGE, 0))
    with pytest.raises(InputError, match="seed: 0 -> 1"):
        folder.check_belongs(folder.identity(FOOTAGE, 1))


def test_rounding_is_no_other_video(tmp_path):
    """The digest is of bytes: the same file decoded on another machine is the same video."""
    folder = finished(tmp_path)
    nearly = to_bytes(FRAMES).float().permute(0, 3, 1, 2) / 127.5 - 1
    folder.check_belongs(folder.identity(replace(FOOTAGE, frames=nearly), 0))


def test_finished_files(tmp_path):
    """Videos without loss where they are scored, the latents by name, the record last; the checkpoint is gone."""
    folder = finished(tmp_path)
    assert folder.finished
    assert folder.step == 0
    assert torch.equal(read_video(folder.path / "edited.mkv", 3).frames, to_bytes(-FRAMES))
    assert torch.equal(read_video(folder.path / "reconstruction.mkv", 3).frames, to_bytes(FRAMES))
    said = record(folder.path)
    assert (said["status"], said["seed"], said["seconds"], said["fps"]) == ("finished", 0, 1.23, 8.0)
    assert said["peak_memory_gib"] == 0.512
    names = {path.name for path in folder.path.iterdir()}
    assert "checkpoint.safetensors" not in names
    assert not {name for name in names if "partial" in name or "truth" in name}


def test_a_method_without_autoencoder_has_no_reconstruction(tmp_path):
    """Nothing pretends to be one."""
    folder = RunDirectory(tmp_path).edit(PAIR)
    folder.finish(Edit(-FRAMES), FOOTAGE, folder.identity(FOOTAGE, 0), COST, save_frames=False)
    assert folder.finished
    assert not list(folder.path.glob("reconstruction*"))


@pytest.mark.parametrize("where", ["Z", "frames"])
def test_a_result_that_is_no_number_is_not_finished(tmp_path, where):
    """NaN in a latent or a pixel is named, and nothing is written as a result."""
    bad = torch.full((3, 3, 16, 16), float("nan"))
    edit = replace(EDIT, frames=bad) if where == "frames" else replace(EDIT, latents={"Z": bad})
    folder = RunDirectory(tmp_path).edit(PAIR)
    with pytest.raises(DivergedError, match=f"01-car: the edit's {where} holds NaN"):
        folder.finish(edit, FOOTAGE, folder.identity(FOOTAGE, 0), COST, save_frames=False)
    assert not folder.finished


def test_resuming_drops_what_will_be_written_again(tmp_path):
    """Curves after the checkpoint go, and a half line with them; every step will be there once."""
    folder = interrupted(tmp_path)
    with (folder.path / "steps.jsonl").open("a") as file:
        file.write('{"step": 3, "t": 4')
    assert folder.step == 2
    checkpoint = folder.resume()
    assert checkpoint["step"] == 2
    assert torch.equal(checkpoint["Z"], torch.arange(2.0))
    assert steps(folder.path) == [0, 1]


def test_without_a_checkpoint_a_pair_begins_anew(tmp_path):
    """Curves that reached no checkpoint are removed, and so is what a killed program left half written."""
    folder = interrupted(tmp_path)
    (folder.path / "checkpoint.safetensors").unlink()
    (folder.path / ".edited-12345678.partial.mkv").write_text("half")
    assert folder.resume() is None
    assert not list(folder.path.iterdir())


def test_a_failure_never_replaces_a_result(tmp_path):
    """The reason is kept where there is no result; a finished pair stays finished."""
    folder = finished(tmp_path)
    folder.fail(InputError("it rained"), 0)
    assert folder.finished
    other = RunDirectory(tmp_path).edit(replace(PAIR, id="02-car"))
    other.fail(InputError("it rained"), 0)
    assert other.reason == "it rained"


def test_a_failed_pair_belongs_to_no_prompt(tmp_path):
    """What never had a result or a checkpoint may be tried with the prompt that is right."""
    folder = RunDirectory(tmp_path).edit(PAIR)
    folder.fail(InputError("unknown word"), 0)
    mended = RunDirectory(tmp_path).edit(replace(PAIR, prompts=Prompts("a car", "a tram")))
    mended.check_belongs(mended.identity(FOOTAGE, 0))


@pytest.mark.parametrize("name", ["../out", "a/b", "..", "", "a\0b"])
def test_an_id_that_leads_out_is_refused(tmp_path, name):
    """A pair's folder lies in the run directory, whatever its video is called."""
    with pytest.raises(InputError, match="no plain folder name"):
        RunDirectory(tmp_path / "run").edit(replace(PAIR, id=name))


def test_another_configuration_is_refused(tmp_path):
    """What differs is named; what never changes a result, and the device, may differ."""
    first = {"seed": 0, "device": "cpu", "method": {"lr": 0.1, "checkpoint_every": 1}, "model": {"device": "cpu"}}
    directory = RunDirectory(tmp_path, ["device", "method.checkpoint_every"])
    directory.open(DictConfig(first), torch.device("cpu"), ["seed=0"])
    free = first | {"device": "cuda", "model": {"device": "cuda"}, "method": {"lr": 0.1, "checkpoint_every": 9}}
    directory.open(DictConfig(free), torch.device("cpu"), ["seed=0"])
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(InputError, match=r"method\.lr: 0\.1 -> 0\.2; seed: 0 -> 3"):
        directory.open(DictConfig(first | {"seed": 3, "method": {"lr": 0.2}}), torch.device("cpu"))
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_number_that_the_method_does_not_read_belongs_to_no_result(tmp_path):
    """TokenFlow has no steps of distillation: a run with others is the same run. Other sampling steps are another."""
    directory, cpu = RunDirectory(tmp_path / "run"), torch.device("cpu")
    directory.open(composed(["method=tokenflow", "steps.distillation=30"]), cpu)
    directory.open(composed(["method=tokenflow", "steps.distillation=45"]), cpu)
    with pytest.raises(InputError, match=r"method.sampling_steps: 25 -> 20"):
        directory.open(composed(["method=tokenflow", "steps.sampling=20"]), cpu)
