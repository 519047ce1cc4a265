"""The reader of a run directory, finished or not, of this version or an earlier one: it needs no dataset and no model.

What a file holds is never trusted: a damaged one is an error that names it, and nothing in it is run.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from assd.data.pairs import Prompts
from assd.errors import InputError, require
from assd.runs.cost import Cost

CONFIG_YAML = "config.yaml"
ENVIRONMENT_JSON = "environment.json"
EDIT_JSON = "edit.json"
FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True)
class FinishedEdit:
    """Reads the files of one pair, finished or not; it needs no dataset and no model."""

    path: Path

    @property
    def record(self) -> dict:
        """edit.json, or an empty record. Raises InputError for a damaged file, which it names."""
        file = self.path / EDIT_JSON
        if not file.exists():
            return {}
        try:
            record = json.loads(file.read_text(encoding="utf-8"))
            require(record["status"] in (FINISHED, FAILED), f"unknown status {record['status']!r}")
            texts = record["source_prompt"], record["target_prompt"], record.get("reason", "")
            require(
                all(isinstance(text, str) for text in texts), "source_prompt, target_prompt and reason must be texts"
            )
            return record
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file} is damaged ({type(error).__name__}: {error}): remove it, and the same command edits the pair "
                f"again"
            ) from error

    @property
    def damage(self) -> str | None:
        """What is wrong with edit.json; None where nothing is."""
        try:
            _ = self.record
        except InputError as error:
            return str(error)
        return None

    @property
    def id(self) -> str:
        """The pair's id: its folder's name."""
        return self.path.name

    @property
    def clip(self) -> str | None:
        """The video that it edits, of which there may be other pairs; None where its record doesn't say."""
        identity = self.record.get("identity")
        clip = identity.get("clip") if isinstance(identity, dict) else None
        return clip if isinstance(clip, str) else None

    @property
    def prompts(self) -> Prompts:
        """Source and target prompt."""
        return Prompts(self.record["source_prompt"], self.record["target_prompt"])

    @property
    def finished(self) -> bool:
        """Whether this pair is done."""
        return self.record.get("status") == FINISHED

    @property
    def reason(self) -> str | None:
        """Why it failed; None where it did not."""
        return self.record.get("reason")

    @property
    def cost(self) -> Cost | None:
        """What a finished edit cost, as far as its record says so; None where it is not finished or says nothing."""
        seconds, peak, device = (self.record.get(name) for name in ("seconds", "peak_memory_gib", "device"))
        if not (self.finished and isinstance(seconds, (int, float))):
            return None
        peak = float(peak) if isinstance(peak, (int, float)) else None
        return Cost(seconds=float(seconds), peak_memory_gib=peak, device=None if device is None else str(device))

    def video(self, name: str, suffix: str = ".mp4") -> Path | None:
        """The file of a video by its name, such as `source` or `edited`; None where there is none."""
        file = self.path / f"{name}{suffix}"
        return file if is_own(file) else None

    @property
    def filmstrip(self) -> Path | None:
        """The picture of a finished pair."""
        return self.video("filmstrip", ".png")

    @property
    def curves(self) -> list[dict]:
        """What was measured at each step; without a last line that a kill cut off."""
        return whole_lines(self.path / "steps.jsonl")


def edits_of(run: Path) -> list[FinishedEdit]:
    """The pairs of a run directory that have a record, by id. A folder that a link leads out of the run is left out."""
    root = (run / "edits").resolve()
    folders = sorted(file.parent for file in root.glob(f"*/{EDIT_JSON}"))
    return [FinishedEdit(folder) for folder in folders if folder.resolve().is_relative_to(root)]


def whole_lines(file: Path) -> list[dict]:
    """The records of a steps.jsonl up to the first line that is none."""
    records: list[dict] = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            break
        if not (isinstance(record, dict) and isinstance(record.get("step"), int)):
            break
        records.append(record)
    return records


def read_config(file: Path) -> DictConfig:
    """A run's configuration. Raises InputError for a damaged file, which it names."""
    try:
        cfg = OmegaConf.load(file)
    except Exception as error:  # YAML's own errors have no common ancestor
        raise InputError(f"{file} can't be read as YAML ({error}): restore it, or remove the run") from error
    require(isinstance(cfg, DictConfig) and len(cfg) > 0, f"{file} holds no configuration: restore it")
    assert isinstance(cfg, DictConfig)
    return cfg


def read_dataset(run: Path) -> Mapping:
    """What a run's configuration says of its dataset."""
    dataset = read_config(run / CONFIG_YAML).get("dataset", {})
    require(isinstance(dataset, Mapping), f"{run / CONFIG_YAML}: dataset must be a group of keys: restore it")
    return dataset


def kept_options(run: Path) -> dict[str, object]:
    """What a run's command said of its dataset that is no part of the run's name: how many pairs, and where."""
    dataset = read_dataset(run)
    return {f"dataset.{key}": dataset[key] for key in ("limit", "root") if dataset.get(key) is not None}


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory."""
    return is_own(path / CONFIG_YAML)


def is_own(file: Path) -> bool:
    """Whether this is a file, and no link: a run that came from elsewhere brings nobody else's files into a report."""
    return file.is_file() and not file.is_symlink()


def read_environment(run: Path) -> dict:
    """environment.json, or an empty record. Raises InputError for a damaged file, which it names."""
    file = run / ENVIRONMENT_JSON
    if not is_own(file):
        return {}
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is damaged ({error}): restore it, or remove the run") from error
    require(isinstance(said, dict), f"{file} holds no record: restore it, or remove the run")
    return said


def run_overrides(run: Path) -> list[str]:
    """The overrides that made a run: as it says itself, else by its folder's name.

    >>> run_overrides(Path("ablation=full,loss=[assd,sds],seed=1"))
    ['ablation=full', 'loss=[assd,sds]', 'seed=1']
    """
    parts = re.split(r",(?![^\[]*\])", run.resolve().name)  # at commas outside brackets
    said = read_environment(run).get("overrides", [part for part in parts if part != "default"])
    require(
        isinstance(said, list) and all(isinstance(override, str) for override in said),
        f"{run / ENVIRONMENT_JSON}: overrides must be a list of texts; restore it, or remove the run",
    )
    return said
