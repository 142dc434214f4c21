# SPDX-License-Identifier: MIT
"""What run.py wrote, grouped: by experiment, name and text."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Callable

BASELINE = "baseline"
# In the order of table and figure.
EXPERIMENTS = {
    BASELINE: "the model as it is",
    "one_layer": "one layer converted",
    "layers": "several layers converted",
    "degroup": "degroup, permute, recover",
    "qcqa": "QCQA",
    "asym": "AsymGQA",
    "key_driven": "key-driven groups",
    "cla": "Cross-Layer Attention",
    "cache": "Keys and values in fewer bits",
}


def load(path: pathlib.Path) -> dict:
    """ValueError where the file is not what run.py writes."""
    try:
        document = json.loads(path.read_text())
        for result in document["results"]:
            for field in ("experiment", "text", "name", "cross_entropy", "perplexity", "kl", "kv_bytes_per_token"):
                result[field]
        for field in ("machine", "model", "settings", "taken", "texts", "versions"):
            document[field]
    except (KeyError, TypeError) as e:
        raise ValueError(f"{path} is not what run.py writes: no {e}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not what run.py writes") from None
    except json.JSONDecodeError as e:
        raise ValueError(f"{path} is not what run.py writes: {e}") from None
    if not document["results"]:
        raise ValueError(f"{path} holds no results")
    return document


def texts(document: dict) -> list[str]:
    return list(dict.fromkeys(result["text"] for result in document["results"]))


def of(document: dict, experiment: str) -> list[dict]:
    return [result for result in document["results"] if result["experiment"] == experiment]


def experiments(document: dict) -> list[str]:
    """Those measured: the known ones in their order, then the others."""
    there = dict.fromkeys(result["experiment"] for result in document["results"])
    return [name for name in EXPERIMENTS if name in there] + unknown_experiments(document)


def unknown_experiments(document: dict) -> list[str]:
    there = dict.fromkeys(result["experiment"] for result in document["results"])
    return [name for name in there if name not in EXPERIMENTS]


def method(result: dict) -> str:
    """Names may say more than the method: the layer, how many of them."""
    return str(result.get("method", result["name"]))


def baseline(document: dict, text: str) -> dict | None:
    return next((result for result in of(document, BASELINE) if result["text"] == text), None)


def by(results: list[dict], key: Callable[[dict], str]) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a measurement on every text, or the median of several, one for each layer."""

    experiment: str
    name: str
    by_text: dict[str, list[dict]]

    @property
    def measurements(self) -> int:
        return max(len(results) for results in self.by_text.values())

    def median(self, text: str, field: str) -> float | None:
        values = [result[field] for result in self.by_text.get(text, []) if result[field] is not None]
        return statistics.median(values) if values else None

    def kv_bytes(self) -> list[float]:
        values = {result["kv_bytes_per_token"] for results in self.by_text.values() for result in results}
        return sorted(value for value in values if value is not None)


def rows(document: dict) -> list[Row]:
    found = []
    for experiment in experiments(document):
        named = by(of(document, experiment), lambda result: method(result) if "layer" in result else result["name"])
        for name, results in named.items():
            found.append(Row(experiment, name, by(results, lambda result: result["text"])))
    return found
