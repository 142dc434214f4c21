# SPDX-License-Identifier: MIT
"""What was measured, as SVG: the time of each library's best way of a case, as a multiple of ours. Needs matplotlib."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from peers import figures, report
from peers.cases import Case
from peers.figures import Spread
from peers.rivals import OURS, TITLES
from peers.rivals.headwise import APPEND, CACHE, ROWS

COLORS = {"torch": "#d1495b", "onnxruntime": "#3d7ea6", "openvino": "#7a5195", "ggml": "#e8a33d", ROWS: "#2a8f5b"}
MARKERS = {"torch": "o", "onnxruntime": "s", "openvino": "^", "ggml": "D", ROWS: "|"}


def _points(result: dict) -> dict[str, Spread]:
    """By library, its best way's time over ours, round by round; and our own over the caller's rows."""
    own = {entry["variant"]: entry for entry in result["results"] if entry["rival"] == OURS and entry["samples"]}
    if CACHE not in own:
        return {}
    points: dict[str, Spread] = {}
    for entry in result["results"]:
        if not entry["samples"] or (entry["rival"] == OURS and entry["variant"] != ROWS):
            continue
        name = ROWS if entry["rival"] == OURS else entry["rival"]
        ours = own[APPEND] if entry["appends"] and APPEND in own else own[CACHE]
        spread = Spread.of(figures.ratios(entry, ours))
        if name not in points or spread.median < points[name].median:
            points[name] = spread
    return points


def draw(document: dict, path: pathlib.Path) -> bool:
    """Cases with all threads, one a line; false where there are none to compare."""
    threads = max(result["case"]["threads"] for result in document["cases"])
    lines = [
        (result, points)
        for result in document["cases"]
        if result["case"]["threads"] == threads and result["case"]["storage"] != "q8" and (points := _points(result))
    ]
    if not lines:
        return False
    figure, axis = plt.subplots(figsize=(9, 1.6 + 0.24 * len(lines)))
    labelled = set()
    for height, (result, points) in enumerate(reversed(lines)):
        noisy = any(row.noise for row in figures.rows(result, document["settings"]["noise"]))
        for name, spread in points.items():
            label = None if name in labelled else "headwise, caller's rows" if name == ROWS else TITLES[name]
            labelled.add(name)
            axis.errorbar(
                spread.median,
                height,
                xerr=[[max(0.0, spread.median - spread.low)], [max(0.0, spread.high - spread.median)]],
                fmt=MARKERS[name],
                color=COLORS[name],
                ms=5,
                lw=1,
                label=label,
                alpha=0.3 if noisy else 1,
            )
    axis.axvline(1, color="#222", lw=1.2)
    cases = [Case.from_json(result["case"]) for result, _ in reversed(lines)]
    axis.set_yticks(range(len(lines)), [f"{report.case_text(case)}  {case.storage}" for case in cases], fontsize=8)
    axis.set(
        xscale="log",
        xlabel="time over headwise's (KvCache), median and quartiles over rounds; right of 1: slower, pale: noisy",
        ylim=(-0.7, len(lines) - 0.3),
    )
    ticks = [0.5, 1, 2, 5, 10, 20, 50]
    low, high = axis.get_xlim()
    axis.set_xticks(
        [tick for tick in ticks if low <= tick <= high], [f"{tick:g}" for tick in ticks if low <= tick <= high]
    )
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -1.1 / (1.6 + 0.24 * len(lines))), ncols=5)
    machine = document["machine"]
    axis.set_title(
        f"{machine['cpu']}, {threads} thread{'s' if threads > 1 else ''}, headwise {document['versions'][OURS]['isa']}",
        fontsize=10,
    )
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return True
