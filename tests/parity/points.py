"""A recorded case, and how far what we compute is from it."""

import functools
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from assd.errors import InputError, require


@dataclass(frozen=True)
class Point:
    """One recorded array: how far we are from it, and how far is allowed. 0 allowed means equal."""

    name: str
    error: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the limit; NaN is not."""
        return self.error <= self.limit

    def __str__(self) -> str:
        return f"{'ok  ' if self.holds else 'FAIL'} {self.error:9.2e} of {self.limit:7.1e}  {self.name}"


@dataclass(frozen=True)
class Case:
    """The authors' numbers of one case: `case["name"]` is a recorded array, `case.facts` what case.json says.

    `relative`, `absolute`, `of_largest` and `exact` compare one recorded array and tick it off in `compared`.
    """

    folder: Path
    compared: set[str] = field(default_factory=set)

    def __post_init__(self):
        for name in ("case.json", "arrays.npz"):
            require((self.folder / name).is_file(), f"{self.folder} is no recorded case: it has no {name}")

    @property
    def method(self) -> str:
        """The method's name: that of the folder above."""
        return self.folder.resolve().parent.name

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """case.json."""
        return json.loads((self.folder / "case.json").read_text())

    @functools.cached_property
    def arrays(self) -> np.lib.npyio.NpzFile:
        """arrays.npz, each array read when it is asked for."""
        return np.load(self.folder / "arrays.npz")

    @property
    def settings(self) -> dict[str, Any]:
        """What the authors' code was run with."""
        return self.facts["settings"]

    @property
    def seed(self) -> int:
        """Of weights and inputs."""
        return self.facts["seed"] if "seed" in self.facts else self.settings["seed"]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def tensor(self, name: str) -> Tensor:
        """A recorded array, as an input."""
        return torch.from_numpy(self[name])

    def normal(self, key: int, shape: tuple[int, ...]) -> Tensor:
        """The random input of a key: standard normal, drawn in float64."""
        return torch.from_numpy(np.random.default_rng([self.seed, key]).standard_normal(shape).astype(np.float32))

    def relative(
        self, name: str, ours: ArrayLike | Tensor, limit: float, start: ArrayLike | Tensor | None = None
    ) -> Point:
        """The norm of the difference over the norm of the recorded array; of what both moved from `start`, if given."""
        ours, theirs = self.pair(name, ours)
        moved = theirs if start is None else theirs - np.asarray(start, dtype=np.float64)
        return Point(name, distance(ours, theirs, over=float(np.linalg.norm(moved))), limit)

    def of_largest(self, name: str, ours: ArrayLike | Tensor, limit: float) -> Point:
        """The largest difference over the recorded array's largest magnitude."""
        ours, theirs = self.pair(name, ours)
        return Point(name, largest(ours, theirs) / max(np.abs(theirs).max(), np.finfo(float).tiny), limit)

    def absolute(self, name: str, ours: ArrayLike | Tensor, limit: float) -> Point:
        """The largest difference."""
        return Point(name, largest(*self.pair(name, ours)), limit)

    def exact(self, name: str, ours: ArrayLike | Tensor) -> Point:
        """How many elements differ; none may."""
        ours, theirs = self.pair(name, ours)
        return Point(name, float("inf") if ours.shape != theirs.shape else float((ours != theirs).sum()), 0)

    def pair(self, name: str, ours: ArrayLike | Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Ours and theirs in float64."""
        self.compared.add(name)
        ours = ours.detach().cpu().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
        return ours.astype(np.float64), self[name].astype(np.float64)

    @property
    def left(self) -> list[str]:
        """The recorded arrays that nothing was compared with: inputs, or points that the module leaves out."""
        return [name for name in self.arrays.files if name not in self.compared]


def distance(ours: np.ndarray, theirs: np.ndarray, over: float) -> float:
    """The norm of the difference over another norm; inf where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.linalg.norm(ours - theirs) / max(over, np.finfo(float).tiny))


def largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference; inf where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours - theirs).max(initial=0.0))


def in_turn(*groups: Iterator[Point]) -> Iterator[Point]:
    """The points of all groups. One that breaks ends in a point that fails and says why, and the others go on."""
    for group in groups:
        try:
            yield from group
        except Exception as error:  # whatever a case holds that no other did
            yield Point(f"broke off: {type(error).__name__}: {error}", float("inf"), 0)


@torch.no_grad()
def points(case: Case) -> Iterator[Point]:
    """All points of a case. Raises InputError for a method that has no module here."""
    name = f"{__package__}.{case.method}"
    if importlib.util.find_spec(name) is None:
        raise InputError(f"no parity points for a method {case.method!r}: the folder above a case names the method")
    yield from importlib.import_module(name).points(case)
