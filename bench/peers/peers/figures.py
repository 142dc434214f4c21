# SPDX-License-Identifier: MIT
"""From samples to figures: medians over rounds, the ratio of each round, and whether it can be believed."""

from __future__ import annotations

import dataclasses
import math
import statistics

from peers.rivals import OURS
from peers.rivals.headwise import APPEND, CACHE, ROWS


@dataclasses.dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        if len(values) < 2:
            return Spread(*values * 3) if values else Spread(math.nan, math.nan, math.nan)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Spread(median, low, high)

    @property
    def width(self) -> float:
        """Between the quartiles, as a share of the median."""
        return (self.high - self.low) / self.median


@dataclasses.dataclass(frozen=True)
class Against:
    """One of ours beside the rival that comes closest to it or furthest ahead."""

    rival: str
    storage: str  # may be another than the case's where that is faster, and no less exact
    variant: str
    seconds: float
    ratio: Spread  # rival's time over ours, round by round; above 1: ours is faster
    ours_appends: bool  # whether ours stored the new tokens too, because the rival does


@dataclasses.dataclass(frozen=True)
class Row:
    """What the table says of a case and one of our sources of K/V."""

    case: dict
    variant: str
    seconds: Spread
    roofline: Spread  # share of what the limits of the round allow; 1: as fast as they do
    against: Against | None
    same_storage: bool
    noise: list[str]  # why the figures cannot be relied on; empty: they can


def limit_seconds(result: dict, limits: dict, bytes_per_element_factor: float = 1.0) -> float:
    return max(
        bytes_per_element_factor * result["kv_bytes"] / limits["read_bytes_per_s"],
        result["flops"] / limits["flop_per_s"],
    )


def times(entry: dict) -> dict[int, float]:
    return {sample["round"]: sample["seconds"] for sample in entry["samples"]}


def ratios(rival: dict, ours: dict) -> list[float]:
    own = times(ours)
    return [seconds / own[index] for index, seconds in times(rival).items() if index in own]


def _against(result: dict, ours: dict, appending: dict | None) -> Against | None:
    """The rival with the smallest ratio. One that stores the new tokens as it goes is compared with ours doing the
    same."""
    found = []
    for entry in result["results"]:
        if entry["rival"] == OURS or not entry["samples"]:
            continue
        both_append = entry["appends"] and appending is not None
        spread = Spread.of(ratios(entry, appending if both_append else ours))
        found.append(
            Against(
                entry["rival"],
                entry["storage"],
                entry["variant"],
                statistics.median(times(entry).values()),
                spread,
                both_append,
            )
        )
    return min(found, key=lambda a: a.ratio.median, default=None)


def _noise(result: dict, against: Against | None, seconds: Spread, bound: float) -> list[str]:
    reasons = []
    if against and against.ratio.width > bound:
        reasons.append(f"the ratio varies by {against.ratio.width:.0%}")
    elif not against and seconds.width > bound:
        reasons.append(f"the time varies by {seconds.width:.0%}")
    probes = [limit_seconds(result, limits) for one in result["rounds"] for limits in one["limits"]]
    if probes and Spread.of(probes).width > bound:
        reasons.append(f"the probed limit varies by {Spread.of(probes).width:.0%}")
    foreign = statistics.median(one["foreign_cpu_share"] for one in result["rounds"])
    if foreign > bound / 2:
        reasons.append(f"other programs took {foreign:.0%} of the CPUs")
    leak = statistics.median(one["sleepers_cpu_share"] for one in result["rounds"])
    if leak > bound / 10:
        reasons.append(f"libraries that waited took {leak:.0%} of a CPU")
    return reasons


def rows(result: dict, bound: float) -> list[Row]:
    """A row for our cache, and one for memory of the caller's. `bound`: quartiles further apart than this share of
    their median are too noisy to tell."""
    own = {entry["variant"]: entry for entry in result["results"] if entry["rival"] == OURS and entry["samples"]}
    made = []
    for variant in (CACHE, ROWS):
        if variant not in own:
            continue
        seconds = times(own[variant])
        factor = 2.0 if result["case"]["storage"] == "q8" else 1.0  # ours holds bf16 there
        shares = []
        for index, one in enumerate(result["rounds"]):
            if one["limits"] and index in seconds:
                least = statistics.mean(limit_seconds(result, limits, factor) for limits in one["limits"])
                shares.append(least / seconds[index])
        against = _against(result, own[variant], own.get(APPEND) if variant == CACHE else None)
        spread = Spread.of(list(seconds.values()))
        made.append(
            Row(
                result["case"],
                variant,
                spread,
                Spread.of(shares),
                against,
                same_storage=result["case"]["storage"] != "q8",
                noise=_noise(result, against, spread, bound),
            )
        )
    return made
