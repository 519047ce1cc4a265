"""The writer of a run directory; `assd.runs.reader` is its reader.

    <run>/config.yaml        the resolved configuration
    <run>/environment.json   command, overrides, commit, versions, device
    <run>/scores.csv         one row per pair, video and metric
    <run>/report.html        everything a person wants to see, in one page
    <run>/overview.png       the finished pairs' filmstrips
    <run>/edits/<pair>/      source.mp4, edited.mp4, and both side by side in comparison.mp4 and filmstrip.png
                             difference.mp4, |edited - source|; truth.mp4, the true edit where it is known
                             edited.mkv without loss, which is scored, and reconstruction.mkv, the source through the
                             autoencoder: the best an edit can preserve
                             steps.jsonl, edit.json, scores.csv, latents.safetensors

Every file is written aside and renamed, but for steps.jsonl, which grows. Several jobs may share a run, each with pairs
of its own. A pair whose edit.json says `finished` is
never redone; one with a checkpoint goes on from it. Both belong to prompts, seed, options and video: where one of them
has changed, the pair is refused and its files are kept.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from safetensors.torch import save_file

from assd.data.pairs import Footage, TextVideoPair
from assd.data.video import read_video, to_bytes, write_frames, write_video
from assd.errors import DivergedError, require
from assd.files import aside, remove_partial, write_json, write_text
from assd.methods.method import Checkpoint, Edit
from assd.runs import pictures
from assd.runs.checkpoint import own, read_checkpoint, read_notes, write_checkpoint
from assd.runs.cost import NOTHING, Cost
from assd.runs.environment import environment
from assd.runs.reader import (
    CONFIG_YAML,
    EDIT_JSON,
    ENVIRONMENT_JSON,
    FAILED,
    FINISHED,
    FinishedEdit,
    edits_of,
    read_config,
)

RESULT = ("method", "dataset", "seed")  # of the configuration: with what they read, resolved, they make the result


@dataclass(frozen=True)
class RunDirectory:
    """Writes one run; `assd.runs.lock.one_writer` keeps others out.

    incidental  keys of the configuration that never change a result, with all below them
    """

    path: Path
    incidental: Sequence[str] = ()

    def open(self, cfg: DictConfig, device: torch.device, overrides: Sequence[str] = ()) -> None:
        """Writes configuration, environment and the command's overrides, from which the run can be composed again.

        Raises InputError when the directory holds another configuration.
        """
        resolved = OmegaConf.to_container(cfg, resolve=True)
        config = self.path / CONFIG_YAML
        if config.exists():
            old, new = (result_keys(c, self.incidental) for c in (read_config(config), DictConfig(resolved)))
            changed = differences(old, new)
            require(
                not changed,
                f"{self.path} was made with another configuration ({'; '.join(changed)}). Its results are kept: "
                f"give this run another folder with output=..., or remove the old one",
            )
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(config, OmegaConf.to_yaml(OmegaConf.create(resolved)))
        write_json(self.path / ENVIRONMENT_JSON, {"overrides": list(overrides), **environment(device)})

    def edit(self, pair: TextVideoPair) -> "EditDirectory":
        """The folder of one pair. Raises InputError for an id that would lead out of the run directory."""
        folder = self.path / "edits" / pair.id
        inside = "\0" not in pair.id and folder.resolve().parent == (self.path / "edits").resolve()
        require(inside, f"the pair's id {pair.id!r} is no plain folder name: rename the video")
        folder.mkdir(parents=True, exist_ok=True)
        return EditDirectory(folder, pair)

    def write_overview(self) -> Path | None:
        """One picture of all finished pairs' filmstrips; None when there is none."""
        strips = [strip for edit in edits_of(self.path) if (strip := edit.filmstrip)]
        if not strips:
            return None
        pictures.save(pictures.stack([Image.open(strip) for strip in strips]), self.path / "overview.png")
        return self.path / "overview.png"


@dataclass(frozen=True)
class EditDirectory(FinishedEdit):
    """Writes the files of one pair."""

    pair: TextVideoPair

    def identity(self, footage: Footage, seed: int) -> dict:
        """What an edit belongs to: clip, seed, prompts, options, and a digest of the source video."""
        frames = to_bytes(footage.frames).numpy().tobytes()
        return {
            "clip": self.pair.clip,
            "seed": seed,
            **self._prompts,
            "options": self.pair.options,
            "video": hashlib.blake2b(frames, digest_size=16).hexdigest(),
        }

    def check_belongs(self, identity: dict) -> None:
        """Raises InputError where the result or checkpoint that is there was made from something else."""
        record = self.record if self.finished else {}  # what failed has made nothing that is to be kept
        made_from = record.get("identity") or self._notes[1]
        known = {key: value for key, value in record.items() if key in identity} | made_from
        changed = differences(known, {key: identity[key] for key in known})
        require(
            not changed,
            f"{self.path} was made from something else ({'; '.join(changed)}). It is kept: give this run another "
            f"folder with output=..., or remove this one",
        )

    @property
    def step(self) -> int:
        """Steps done at the last checkpoint."""
        return self._notes[0]

    @property
    def spent(self) -> Cost:
        """What an edit that was interrupted had cost at its last checkpoint."""
        return self._notes[2]

    def resume(self) -> Checkpoint | None:
        """The last checkpoint, if there is one; curves of later steps are dropped, they will be written again."""
        remove_partial(self.path)
        if not self._checkpoint.exists():
            self._steps.unlink(missing_ok=True)
            return None
        checkpoint = read_checkpoint(self._checkpoint)
        kept = [record for record in self.curves if record["step"] < checkpoint["step"]]
        write_text(self._steps, "".join(json.dumps(record) + "\n" for record in kept))
        return checkpoint

    def checkpoint(self, checkpoint: Checkpoint, curves: list[dict], identity: dict, cost: Cost) -> None:
        """Appends the curves, then replaces the checkpoint."""
        with self._steps.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(point) + "\n" for point in curves)
        write_checkpoint(self._checkpoint, checkpoint, identity, cost)

    def finish(self, edit: Edit, footage: Footage, identity: dict, cost: Cost, save_frames: bool) -> None:
        """Writes everything a person or a metric looks at, edit.json last; then the checkpoint can go.

        Raises DivergedError when a latent or a pixel is NaN or Inf.
        """
        check_finite(edit, self.pair.id)
        source, edited = to_bytes(footage.frames), to_bytes(edit.frames)
        videos = {"source": source, "edited": edited, "difference": pictures.difference(edited, source)}
        rows = {"source": source, "edited": edited}
        if footage.truth is not None:
            rows["true edit"] = videos["truth"] = to_bytes(footage.truth)
        videos["comparison"] = pictures.side_by_side(rows)
        for name, frames in videos.items():
            write_video(self.path / f"{name}.mp4", frames, footage.fps)
        write_video(self.path / "edited.mkv", edited, footage.fps)
        if edit.reconstruction is not None:
            write_video(self.path / "reconstruction.mkv", to_bytes(edit.reconstruction), footage.fps)
        pictures.save(pictures.filmstrip(self.pair.prompts, rows), self.path / "filmstrip.png")
        if save_frames:
            for name, frames in (("source", source), ("edited", edited)):
                write_frames(self.path / name, frames)
        with aside(self.path / "latents.safetensors") as partial:
            save_file({name: own(latent) for name, latent in edit.latents.items()}, partial)
        self._write_record(FINISHED, seed=identity["seed"], **cost.rounded(), fps=footage.fps, identity=identity)
        self._checkpoint.unlink(missing_ok=True)

    def add_frames(self, footage: Footage) -> None:
        """Writes the PNG frames of source and edit that are missing of a pair which was finished without them.

        Raises InputError when edited.mkv, which has the edit's, can't be read.
        """

        def is_missing(name: str) -> bool:
            return len(list((self.path / name).glob("*.png"))) < len(footage.frames)

        if is_missing("source"):
            write_frames(self.path / "source", to_bytes(footage.frames))
        if is_missing("edited"):
            write_frames(self.path / "edited", read_video(self.path / "edited.mkv", None).frames)

    def fail(self, error: Exception, seed: int) -> None:
        """Keeps the reason, of a pair that nobody else writes. A result that is there stays."""
        if not self.finished:
            self._write_record(FAILED, seed=seed, reason=str(error))

    def _write_record(self, status: str, **more: object) -> None:
        write_json(self.path / EDIT_JSON, {"id": self.pair.id, **self._prompts, "status": status, **more})

    @property
    def _prompts(self) -> dict[str, str]:
        return {"source_prompt": self.pair.prompts.source, "target_prompt": self.pair.prompts.target}

    @property
    def _notes(self) -> tuple[int, dict, Cost]:
        return read_notes(self._checkpoint) if self._checkpoint.exists() else (0, {}, NOTHING)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    @property
    def _steps(self) -> Path:
        return self.path / "steps.jsonl"


def check_finite(edit: Edit, pair: str) -> None:
    """Raises DivergedError when a latent or a pixel of an edit is NaN or Inf."""
    for name, tensor in {**edit.latents, "frames": edit.frames}.items():
        if not tensor.isfinite().all():
            raise DivergedError(
                f"{pair}: the edit's {name} holds NaN or Inf after the last step. Try a smaller optimizer.lr, or dtype "
                f"float32 in the model"
            )


def result_keys(cfg: DictConfig, incidental: Sequence[str]) -> dict[str, object]:
    """The leaves by dotted name of what makes the result, without those that never change it."""
    leaves: dict[str, object] = {}

    def walk(node: object, name: str) -> None:
        if name in incidental:
            return
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{name}.{key}" if name else str(key))
        elif not name.endswith(".device"):
            leaves[name] = node

    walk(OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(RESULT))), "")
    return leaves


def differences(old: dict[str, object], new: dict[str, object]) -> list[str]:
    """`key: old -> new` for every entry that differs."""
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names]
