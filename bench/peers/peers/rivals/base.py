# SPDX-License-Identifier: MIT
"""What a worker asks of a library, stated once."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable

import numpy as np

from peers.cases import Case


class Unsupported(Exception):
    """The library does not do this case in this way; the text says why."""


@dataclasses.dataclass
class Prepared:
    """One way of calling a library, ready to be timed."""

    steps: list[Callable[[], object]]  # step i is a call for each of Work.step_layers(i)
    output: Callable[[], np.ndarray]  # of the last step's last layer: float32 [sequence][new][head][dim]
    appends: bool = False  # whether a call also stores the keys and values of the new tokens in a cache
    begin: Callable[[], object] = lambda: None  # untimed, before each turn
    from_first: bool = False  # whether steps must start over after begin()
    most_steps: float = math.inf  # that a turn may take, after begin()
    end: Callable[[], object] = lambda: None  # lets go of what Python does not


@dataclasses.dataclass(frozen=True)
class Work:
    """A case, its inputs (data.make), and how many copies of its keys and values are taken in turn."""

    case: Case
    arrays: dict[str, np.ndarray]
    layers: int  # a multiple of per_step, or 1
    per_step: (
        int  # calls that are timed as one, so that what it costs to start a library's graph is shared as in a model
    )

    @property
    def steps(self) -> int:
        return max(1, self.layers // self.per_step)

    def step_layers(self, step: int) -> list[int]:
        return [(step * self.per_step + i) % self.layers for i in range(self.per_step)]

    def by_head(self, name: str) -> np.ndarray:
        """k or v as [sequence][kv_head][kv][dim], q as [sequence][head][new][dim]: what most libraries take.
        In memory of its own."""
        return np.array(self.arrays[name].transpose(0, 2, 1, 3), order="C")

    @property
    def past_visible(self) -> np.ndarray:
        """[new][kv] True where a query sees a key: causal, the newest query at the newest key."""
        case = self.case
        return np.arange(case.kv) <= np.arange(case.new)[:, None] + case.kv - case.new


class Rival(abc.ABC):
    """A library. Made inside its own process, whose affinity and environment are set before anything is imported."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @abc.abstractmethod
    def versions(self) -> dict[str, str]: ...

    @abc.abstractmethod
    def variants(self, case: Case) -> list[str]:
        """Ways of calling it worth trying for a case; empty: it has no such storage type."""

    @abc.abstractmethod
    def open(self, work: Work) -> None:
        """Holds what the variants share, the keys and values above all."""

    @abc.abstractmethod
    def prepare(self, variant: str) -> Prepared:
        """Throws Unsupported where that turns out not to work."""

    @abc.abstractmethod
    def close(self) -> None:
        """Lets go of everything since open."""
