"""The configuration folder, and compositions of it."""

import functools
import inspect
from collections.abc import Iterator
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parent.parent / "conf"
FILES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.rglob("*.yaml"))
GROUPS = [file for file in FILES if "/" in file]
ABLATIONS = sorted(path.stem for path in (CONF / "ablation").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
METHODS = sorted(path.stem for path in (CONF / "method").glob("*.yaml"))
LISTS = ("loss", "metric")  # groups of which several files are chosen at once


@functools.cache  # a second each, and most tests read the same ones
def configuration(*overrides: str) -> DictConfig:
    """The main file composed under these overrides."""
    return compose("config", overrides=list(overrides))


@functools.cache
def choices() -> dict:
    """The groups that the defaults choose from."""
    return dict(compose("config", return_hydra_config=True).hydra.runtime.choices)


def choosing(file: str) -> list[str]:
    """The command line that takes a group's file."""
    if "/" not in file:
        return []
    group, _, name = file.rpartition("/")
    if group == "settings":  # what config.yaml takes by itself for a model with a method
        model = max((model for model in MODELS if name.startswith(f"{model}_")), key=len)
        return [f"model={model}", f"method={name.removeprefix(f'{model}_')}"]
    if group == "control_net":
        return ["method=control_video", f"control_net={name}"]
    if group in LISTS:
        return [f"{group}=[{name}]"]
    return [f"{group}={name}" if group in choices() or group.startswith("hydra/") else f"+{group}={name}"]


def plain(overrides: list[str], resolve: bool) -> dict:
    """The composed configuration as dictionaries."""
    container = OmegaConf.to_container(configuration(*overrides), resolve=resolve)
    assert isinstance(container, dict)
    return container


def targets(node: object, name: str = "") -> Iterator[tuple[str, dict]]:
    """Every node with a `_target_`, under its full name."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield name, node
        for key, value in node.items():
            yield from targets(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from targets(value, f"{name}[{i}]")


def problem(node: dict) -> str | None:
    """Why this node could not be called, or None."""
    arguments = {key: value for key, value in node.items() if not (key.startswith("_") and key.endswith("_"))}
    try:
        signature = inspect.signature(get_method(node["_target_"]))
        (signature.bind_partial if node.get("_partial_") else signature.bind)(**arguments)
    except (TypeError, ValueError, ImportError, AttributeError, HydraException) as error:
        return f"{node['_target_']}({', '.join(arguments)}): {error}"
    return None
