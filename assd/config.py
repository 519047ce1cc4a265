"""How configuration files become one checked configuration: where `conf/` lies, its schema, and the run's name."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

_CLONE = Path(__file__).resolve().parent.parent / "conf"
CONFIG_PATH = str(_CLONE) if (_CLONE.parent / "pyproject.toml").is_file() else "pkg://assd.conf"
NAME_LENGTH = 100


@dataclass
class Config:
    """The keys of a run. A group's own keys are its constructor's arguments, checked when it is called."""

    model: Any = MISSING
    image_model: Any = MISSING
    loss: dict[str, Any] = MISSING
    attention: Any = MISSING
    optimizer: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    metric: dict[str, Any] = MISSING
    clip: Any = MISSING
    tracking: Any = MISSING
    seed: int = MISSING
    guidance_scale: float = MISSING
    key_frame_stride: int = MISSING
    device: str = MISSING
    output: str = MISSING
    save_frames: bool = MISSING
    targets_together: int = MISSING


def checked(cfg: DictConfig) -> DictConfig:
    """The configuration merged over its schema again: also a key added with `+` must be known.

    Raises omegaconf's ConfigKeyError for an unknown key and MissingMandatoryValue for one that must be given.
    """
    merged = DictConfig(OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.to_container(cfg, resolve=False)))
    OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    return merged


def composed(overrides: list[str]) -> DictConfig:
    """`conf/config.yaml` under overrides in Hydra's words, checked; for programs that are no Hydra application."""
    register()
    package = CONFIG_PATH.removeprefix("pkg://")
    in_package = package != CONFIG_PATH
    start = (
        initialize_config_module(package, version_base="1.3")
        if in_package
        else initialize_config_dir(CONFIG_PATH, version_base="1.3")
    )
    with start:
        return checked(compose("config", overrides))


def run_name(overrides: str) -> str:
    """A run directory's name: the command's overrides, safe as a file name, cut with a hash where they are long.

    >>> run_name(""), run_name("+ablation=no_waf,seed=1")
    ('default', 'ablation=no_waf,seed=1')
    """
    name = as_file_name(overrides) or "default"
    if name in (overrides.replace("+", ""), "default") and len(name) <= NAME_LENGTH:
        return name
    seed = re.search(r"(?:^|,)(seed=\d+)(?=,|$)", overrides)  # stays readable: seeds of one setting are one method
    rest = overrides.replace(seed[0], "", 1) if seed else overrides
    end = f"-{hashlib.blake2b(rest.encode(), digest_size=4).hexdigest()}" + (f",{seed[1]}" if seed else "")
    return as_file_name(rest)[: NAME_LENGTH - len(end)] + end


def without(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The overrides of other keys than these, as they were typed but for Hydra's `+`.

    >>> without(["+ablation=full", "device=cpu", "seed=1"], ["device"])
    ['ablation=full', 'seed=1']
    """
    bare = [override.lstrip("+") for override in overrides]
    return [override for override in bare if override.partition("=")[0] not in keys]


def as_file_name(overrides: str) -> str:
    """The overrides with nothing in them that a file system could mind."""
    return re.sub(r"[^\w.=,\[\]-]+", "_", overrides.replace("+", "").replace("~", "no-"))


def register() -> None:
    """Makes the schema and the resolvers `run_name` and `quarter` known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("quarter", lambda n: max(1, n // 4), replace=True)
