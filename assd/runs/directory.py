"""The run directory is the interface between editing, evaluation and tables.

    <run>/config.yaml        the resolved configuration
    <run>/environment.json   command, commit, versions, device
    <run>/scores.csv         one row per pair, video and metric
    <run>/report.html        everything a person wants to see, in one page
    <run>/overview.png       the finished pairs' filmstrips
    <run>/edits/<pair>/      source.mp4, edited.mp4, and both side by side in comparison.mp4 and filmstrip.png
                             difference.mp4, |edited - source|; truth.mp4, the true edit where it is known
                             edited.mkv without loss, which is scored, and reconstruction.mkv, the source through the
                             autoencoder: the best an edit can preserve
                             steps.jsonl, edit.json, scores.csv, latents.safetensors

Every file is written aside and renamed, but for steps.jsonl, which grows. A pair whose edit.json says `finished` is
never redone; one with a checkpoint goes on from it.
"""

import datetime
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import save_file

from assd import pictures
from assd.data import Footage, TextVideoPair
from assd.distillation import Edit, State
from assd.errors import InputError
from assd.video import to_bytes, write_frames, write_video

PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "hydra-core",
    "omegaconf",
    "av",
    "numpy",
    "open_clip_torch",
    "torchmetrics",
    "opencv-python-headless",
    "scipy",
)
CONFIG_YAML = "config.yaml"
ENVIRONMENT_JSON = "environment.json"


def write_text(path: Path, text: str) -> None:
    """Aside, then renamed."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, content: object) -> None:
    """Indented, for people."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def whole_lines(file: Path) -> list[dict]:
    """The records of a steps.jsonl, without a last one that a kill cut off."""
    records = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


@dataclass(frozen=True)
class RunDirectory:
    """One run on disk.

    incidental  keys of the configuration that never change a result, with all below them
    """

    path: Path
    incidental: Sequence[str] = ()

    def open(self, cfg: DictConfig, device: torch.device, overrides: Sequence[str] = ()) -> None:
        """Writes configuration, environment and the overrides that name the run.

        Raises InputError when the directory holds another configuration.
        """
        resolved = OmegaConf.to_container(cfg, resolve=True)
        config = self.path / CONFIG_YAML
        if config.exists():
            old, new = (result_keys(c, self.incidental) for c in (OmegaConf.load(config), OmegaConf.create(resolved)))
            changed = differences(old, new)
            if changed:
                raise InputError(
                    f"{self.path} was made with another configuration ({'; '.join(changed)}). Its results are kept: "
                    f"give this run another folder with output=..., or remove the old one"
                )
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(config, OmegaConf.to_yaml(OmegaConf.create(resolved)))
        write_json(self.path / ENVIRONMENT_JSON, {"overrides": list(overrides), **environment(device)})

    def edit(self, pair: TextVideoPair) -> "EditDirectory":
        """The folder of one pair."""
        folder = EditDirectory(self.path / "edits" / pair.id, pair)
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    def write_overview(self, pairs: list[TextVideoPair]) -> Path | None:
        """One picture of the finished pairs' filmstrips; None when there is none."""
        strips = [self.path / "edits" / pair.id / "filmstrip.png" for pair in pairs]
        strips = [strip for strip in strips if strip.exists()]
        if not strips:
            return None
        pictures.save(pictures.stack([Image.open(strip) for strip in strips]), self.path / "overview.png")
        return self.path / "overview.png"


@dataclass(frozen=True)
class EditDirectory:
    """The files of one pair."""

    path: Path
    pair: TextVideoPair

    @property
    def record(self) -> dict:
        """edit.json, or an empty record."""
        file = self.path / "edit.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    @property
    def finished(self) -> bool:
        """Whether this pair is done."""
        return self.record.get("status") == "finished"

    @property
    def step(self) -> int:
        """Steps done at the last checkpoint."""
        return self._stored["step"] if self._checkpoint.exists() else 0

    def resume(self) -> State | None:
        """The last checkpoint, if there is one; curves of later steps are dropped, they will be written again."""
        if not self._checkpoint.exists():
            self._steps.unlink(missing_ok=True)
            return None
        state = State(**self._stored)
        kept = [record for record in whole_lines(self._steps) if record["step"] < state.step]
        write_text(self._steps, "".join(json.dumps(record) + "\n" for record in kept))
        return state

    def checkpoint(self, state: State, steps: list[dict]) -> None:
        """Appends the curves, then replaces the checkpoint."""
        with self._steps.open("a") as file:
            file.writelines(json.dumps(step) + "\n" for step in steps)
        partial = self._checkpoint.with_suffix(".partial")
        torch.save({"step": state.step, "Z": state.Z.clone(), "optimizer": state.optimizer}, partial)
        partial.replace(self._checkpoint)

    def finish(self, edit: Edit, footage: Footage, seed: int, seconds: float, save_frames: bool) -> None:
        """Writes everything a person or a metric looks at, edit.json last; then the checkpoint can go."""
        source, edited = to_bytes(footage.frames), to_bytes(edit.frames)
        truth = to_bytes(footage.truth) if footage.truth is not None else None
        write_video(self.path / "source.mp4", source, footage.fps)
        write_video(self.path / "edited.mp4", edited, footage.fps)
        write_video(self.path / "edited.mkv", edited, footage.fps)
        write_video(self.path / "reconstruction.mkv", to_bytes(edit.reconstruction), footage.fps)
        write_video(self.path / "difference.mp4", pictures.difference(edited, source), footage.fps)
        if truth is not None:
            write_video(self.path / "truth.mp4", truth, footage.fps)
        rows = {"source": source, "edited": edited} | ({} if truth is None else {"true edit": truth})
        write_video(self.path / "comparison.mp4", pictures.side_by_side(rows), footage.fps)
        pictures.save(pictures.filmstrip(self.pair.prompts, rows), self.path / "filmstrip.png")
        if save_frames:
            write_frames(self.path / "source", source)
            write_frames(self.path / "edited", edited)
        latents = {"Z_ref": edit.Z_ref.cpu(), "Z": edit.Z.cpu()}
        partial = self.path / "latents.partial"
        save_file({name: latent.contiguous() for name, latent in latents.items()}, partial)
        partial.replace(self.path / "latents.safetensors")
        self._write_record("finished", seed=seed, seconds=round(seconds, 2), fps=footage.fps)
        self._checkpoint.unlink(missing_ok=True)

    def fail(self, error: Exception, seed: int) -> None:
        """Keeps the reason."""
        self._write_record("failed", seed=seed, reason=str(error))

    def _write_record(self, status: str, **more: object) -> None:
        prompts = {"source_prompt": self.pair.prompts.source, "target_prompt": self.pair.prompts.target}
        write_json(self.path / "edit.json", {"id": self.pair.id, **prompts, "status": status, **more})

    @property
    def _stored(self) -> dict:
        """The checkpoint, on the CPU: the run may go on on another device."""
        return torch.load(self._checkpoint, weights_only=True, map_location="cpu")

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def _steps(self) -> Path:
        return self.path / "steps.jsonl"


def result_keys(cfg: DictConfig, incidental: Sequence[str]) -> dict[str, object]:
    """The configuration's leaves by dotted name, without those that never change a result."""
    leaves: dict[str, object] = {}

    def walk(node: object, name: str) -> None:
        if name in incidental:
            return
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}.{key}" if name else str(key))
        elif not name.endswith(".device"):
            leaves[name] = node

    walk(OmegaConf.to_container(cfg), "")
    return leaves


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """`key: old -> new` for every leaf that differs."""
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names]


def environment(device: torch.device) -> dict:
    """What a later reader needs to repeat the run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": sys.argv,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: importlib.metadata.version(package) for package in PACKAGES},
        "device": {"type": device.type, "name": name, "cpu_threads": torch.get_num_threads()},
    }


def commit() -> str | None:
    """The clone's commit, `-dirty` with uncommitted changes; None when this is no clone."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
