"""How configuration files become one checked configuration: where `conf/` lies, its schema, and the run's name."""

import functools
import hashlib
import importlib.resources
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import MISSING, DictConfig, OmegaConf

from assd.errors import require

_CLONE = Path(__file__).resolve().parent.parent / "conf"
CONFIG_PATH = str(_CLONE) if (_CLONE.parent / "pyproject.toml").is_file() else "pkg://assd.conf"
NAME_LENGTH = 100  # bytes: file systems take 255, of which some letters have three or four
OPEN_GROUPS = ("ablation", "experiment")  # from which config.yaml chooses nothing


@dataclass
class Config:
    """The keys of a run. A group's own keys are its constructor's arguments, checked when it is called.

    The last five are brought by the methods that have them.
    """

    model: Any = MISSING
    image_model: Any = MISSING
    dataset: Any = MISSING
    method: Any = MISSING
    metric: dict[str, Any] = MISSING
    clip: Any = MISSING
    tracking: Any = MISSING
    seed: int = MISSING
    guidance_scale: float = MISSING
    image_guidance_scale: float = MISSING
    steps: dict[str, int] = MISSING
    device: str = MISSING
    output: str = MISSING
    save_frames: bool = MISSING
    targets_together: int = MISSING
    objective: str | None = None
    loss: Any = None
    attention: Any = None
    optimizer: Any = None
    control_net: Any = None
    key_frame_stride: Any = None


BROUGHT = ("loss", "attention", "optimizer", "control_net")  # groups of some methods
SHARED = ("guidance_scale", "image_guidance_scale", "steps", "key_frame_stride")  # numbers that some methods read


def checked(cfg: DictConfig, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration merged over its schema again: also a key added with `+` must be known, and used.

    overrides  the command's own, in Hydra's words

    Raises omegaconf's ConfigKeyError for an unknown key and MissingMandatoryValue for one that must be given, and
    InputError for a choice that the method does not have.
    """
    plain = OmegaConf.to_container(cfg, resolve=False)
    merged = DictConfig(OmegaConf.merge(OmegaConf.structured(Config), plain))
    given = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    used = reached(merged, "method")
    chosen = [key for key in BROUGHT if merged[key] is not None] + [key for key in SHARED if key in given]
    method = (merged.method or {}).get("_target_", "").rpartition(".")[2]
    for key in chosen:
        require(key in used, f"{key} has no meaning for this run's method, {method}: leave it out")
    OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    return merged


def reached(cfg: DictConfig, key: str) -> set[str]:
    """The top-level keys that an entry reads, itself or through those that it reads."""
    found, rest = set(), [key]
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    while rest:
        name = rest.pop()
        if name in plain and name not in found:
            found.add(name)
            node = OmegaConf.create({"node": plain[name]})
            rest += re.findall(r"\$\{(?:\w+:\$\{)?(\w+)", OmegaConf.to_yaml(node))
    return found


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
        return checked(compose("config", overrides), overrides)


@functools.cache
def known_targets() -> frozenset[str]:
    """Every `_target_` that a file of `conf/` names: what may be built for a configuration that somebody sent."""
    folder = importlib.resources.files(CONFIG_PATH.removeprefix("pkg://")) if "pkg://" in CONFIG_PATH else _CLONE
    found: set[str] = set()
    for file in Path(str(folder)).rglob("*.yaml"):
        found.update(re.findall(r"_target_: ([\w.]+)", file.read_text(encoding="utf-8")))
    return frozenset(found)


def run_name(overrides: Sequence[str], incidental: Sequence[str] = ()) -> str:
    """A run directory's name: the command's overrides, safe as a file name, cut with a hash where they are long.

    incidental  keys that are no part of it, with all below them

    >>> run_name([]), run_name(["seed=1", "+ablation=no_waf", "clip.device=cpu"], ["clip"])
    ('default', 'ablation=no_waf,seed=1')
    """
    chosen = ",".join(sorted(others(overrides, incidental)))
    name = as_file_name(chosen) or "default"
    if name in (chosen.replace("+", ""), "default") and len(name.encode()) <= NAME_LENGTH:
        return name
    seed = re.search(r"(?:^|,)(seed=\d+)(?=,|$)", chosen)  # stays readable: seeds of one setting are one method
    rest = chosen.replace(seed[0], "", 1) if seed else chosen
    end = f"-{hashlib.blake2b(rest.encode(), digest_size=4).hexdigest()}" + (f",{seed[1]}" if seed else "")
    return as_file_name(rest).encode()[: NAME_LENGTH - len(end)].decode(errors="ignore") + end


def without(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The overrides of other keys than these and all below them, as they were typed but for Hydra's `+`.

    >>> without(["+ablation=full", "device=cpu", "~metric.psnr", "seed=1"], ["device", "metric"])
    ['ablation=full', 'seed=1']
    """
    return [override.lstrip("+") for override in others(overrides, keys)]


def others(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The overrides of other keys than these and all below them, as they were typed."""
    return [override for override in overrides if not f"{key_of(override)}.".startswith(tuple(f"{k}." for k in keys))]


def key_of(override: str) -> str:
    """The key or the group that an override changes, without Hydra's signs, package and value.

    >>> key_of("~metric.psnr"), key_of("++loss@mine=[a,b]")
    ('metric.psnr', 'loss')
    """
    return re.split("[=@]", override.lstrip("+~"), maxsplit=1)[0]


def by_key(overrides: Iterable[str]) -> dict[str, str]:
    """What overrides choose for each key, the last one's word.

    >>> by_key(["+ablation=full", "seed=1"])
    {'ablation': 'full', 'seed': '1'}
    """
    parts = (override.lstrip("+").partition("=") for override in overrides)
    return {key: value for key, _, value in parts}


def in_full(overrides: Sequence[str]) -> list[str]:
    """What `without` keeps, in Hydra's words again: groups that config.yaml leaves open are added, values set anyway.

    >>> in_full(["ablation=full", "method.num_steps=3", "seed=1", "~metric.psnr"])
    ['+ablation=full', '++method.num_steps=3', 'seed=1', '~metric.psnr']
    """
    keys = [override.partition("=")[0] for override in overrides]
    signs = ["+" if key in OPEN_GROUPS else "++" if "." in key and key[0] != "~" else "" for key in keys]
    return [sign + override for sign, override in zip(signs, overrides)]


def quoted(value: object) -> str:
    """A value in Hydra's words, whatever characters a text holds.

    >>> print(quoted(3), quoted("a, b's [c]"))
    3 'a, b\\'s [c]'
    """
    return QuotedString(value, Quote.single).with_quotes() if isinstance(value, str) else str(value)


def as_file_name(overrides: str) -> str:
    """The overrides with nothing in them that a file system could mind."""
    return re.sub(r"[^\w.=,\[\]-]+", "_", overrides.replace("+", "").replace("~", "no-"))


def register() -> None:
    """Makes the schema and the resolvers `run_name` and `quarter` known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("run_name", lambda given, keys: run_name([*given], [*keys]), replace=True)
    OmegaConf.register_new_resolver("quarter", lambda n: max(1, n // 4), replace=True)
