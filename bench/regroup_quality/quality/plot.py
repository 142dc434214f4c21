# SPDX-License-Identifier: MIT
"""What was measured, as SVG: a panel for each experiment. Needs matplotlib."""

from __future__ import annotations

import io
import pathlib
import textwrap
from collections.abc import Callable

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib import ticker
from matplotlib.axes import Axes

from quality import files, report, results
from quality.results import BASELINE, EXPERIMENTS

MARKERS = "osD^vPX*<>ph"
TEXT_COLORS = ("#3d7ea6", "#d1495b", "#2a8f5b", "#e8a33d")
METHOD_COLORS = plt.get_cmap("tab10").colors
Panel = Callable[[Axes, dict], str]  # draws, and returns why nothing is to be seen, if so
COLUMNS = 2


def _plain(name: str) -> str:
    """A name in which nothing is taken for mathematics."""
    return name.replace("$", r"\$")


def _finish(axis: Axes, title: str, legend_above: bool = False) -> None:
    axis.set_title(title, fontsize=10, loc="left")
    axis.xaxis.label.set_size(9)
    axis.yaxis.label.set_size(9)
    axis.grid(alpha=0.3)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    handles = axis.get_legend_handles_labels()[0]
    if handles and legend_above:
        axis.legend(fontsize=7, ncols=len(handles), loc="lower right", bbox_to_anchor=(1.01, 0.98), frameon=False)
    elif handles:
        axis.legend(fontsize=7)


def _layers(axis: Axes, document: dict) -> str:
    """Divergence against the size of the cache: a marker for each method, filled with the first text's, hollow else."""
    measured = [r for r in results.of(document, "layers") if r["kl"] and r["kl"] > 0 and r["kv_bytes_per_token"]]
    if not measured:
        return "no results with KL and KV bytes"
    texts = results.texts(document)
    for number, (method, points) in enumerate(results.by(measured, results.method).items()):
        color, marker = METHOD_COLORS[number % len(METHOD_COLORS)], MARKERS[number % len(MARKERS)]
        for text, of_text in results.by(points, lambda result: result["text"]).items():
            of_text.sort(key=lambda result: result["kv_bytes_per_token"])
            axis.plot(
                [result["kv_bytes_per_token"] for result in of_text],
                [result["kl"] for result in of_text],
                f"{marker}:",
                lw=0.8,
                ms=6,
                color=color,
                mfc=color if text == texts[0] else "none",
                label=_plain(f"{method}, {text}"),
            )
    axis.set(yscale="log", xlabel="KV bytes per token", ylabel="KL, nats per token")
    _finish(axis, EXPERIMENTS["layers"])
    return ""


def _one_layer(axis: Axes, document: dict) -> str:
    """What converting one layer costs, layer by layer: the mean over the texts."""
    costs: dict[str, dict[int, list[float]]] = {}
    for result in results.of(document, "one_layer"):
        base = results.baseline(document, result["text"])
        if base and isinstance(result.get("layer"), int):
            cost = result["cross_entropy"] - base["cross_entropy"]
            costs.setdefault(results.method(result), {}).setdefault(result["layer"], []).append(cost)
    if not costs:
        return "no results with a layer, or no baseline"
    for number, (method, layers) in enumerate(costs.items()):
        axis.plot(
            sorted(layers),
            [sum(layers[layer]) / len(layers[layer]) for layer in sorted(layers)],
            f"{MARKERS[number % len(MARKERS)]}-",
            lw=0.8,
            ms=4,
            color=METHOD_COLORS[number % len(METHOD_COLORS)],
            label=_plain(method),
        )
    axis.axhline(0, color="#222", lw=0.8)
    # Costs differ by orders of magnitude, and some layers gain a little.
    axis.set_yscale("symlog", linthresh=0.01)
    axis.set(xlabel="converted layer", ylabel="cross-entropy over baseline, nats per token")
    axis.xaxis.get_major_locator().set_params(integer=True)
    _finish(axis, f"{EXPERIMENTS['one_layer']}, mean of the texts")
    return ""


def _qcqa(axis: Axes, document: dict) -> str:
    """The front as the search sees it, and as it turns out."""
    points = [r for r in results.of(document, "qcqa") if "capacity" in r and "error" in r]
    if not points:
        return "no results with capacity and error"
    front = sorted({(result["capacity"], result["error"]) for result in points})
    axis.plot(*zip(*front), "k.-", lw=1, label="error (left)")
    axis.set(xlabel="capacity: groups over heads", ylabel="weight-sharing error")
    other = axis.twinx()
    for number, (text, of_text) in enumerate(results.by(points, lambda result: result["text"]).items()):
        of_text.sort(key=lambda result: result["capacity"])
        color = TEXT_COLORS[number % len(TEXT_COLORS)]
        axis.plot([], [], "s--", color=color, ms=5, lw=0.8, label=f"perplexity, {text}")
        capacities, perplexities = zip(*((result["capacity"], result["perplexity"]) for result in of_text))
        other.plot(capacities, perplexities, "s--", color=color, ms=5, lw=0.8)
    other.set(yscale="log", ylabel="perplexity")
    other.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    other.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    other.yaxis.set_minor_locator(ticker.NullLocator())
    _finish(other, "")
    _finish(axis, f"{EXPERIMENTS['qcqa']}, front", legend_above=True)
    return ""


def _bars(experiment: str) -> Panel:
    def draw(axis: Axes, document: dict) -> str:
        """Cross-entropy, with the perplexity beside the bar; dashed: the model as it is."""
        names = list(results.by(results.of(document, experiment), lambda result: result["name"]))
        texts = results.texts(document)
        height = 0.8 / len(texts)
        for number, text in enumerate(texts):
            color = TEXT_COLORS[number % len(TEXT_COLORS)]
            first = True
            for result in results.of(document, experiment):
                if result["text"] == text:
                    at = names.index(result["name"]) + (number - (len(texts) - 1) / 2) * height
                    axis.barh(at, result["cross_entropy"], height * 0.92, color=color, label=text if first else None)
                    said = f" {report.number(result['perplexity'])}"
                    axis.text(result["cross_entropy"], at, said, va="center", fontsize=6)
                    first = False
            if base := results.baseline(document, text):
                axis.axvline(base["cross_entropy"], color=color, ls="--", lw=1)
        axis.set_yticks(range(len(names)), [textwrap.fill(_plain(name), 30) for name in names])
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set_xlabel("cross-entropy, nats per token (figures: perplexity; dashed: baseline)")
        _finish(axis, EXPERIMENTS[experiment], legend_above=True)
        return ""

    return draw


PANELS: dict[str, Panel] = {
    "layers": _layers,
    "one_layer": _one_layer,
    "qcqa": _qcqa,
    **{name: _bars(name) for name in ("degroup", "cla", "cache", "key_driven", "asym")},
}


def _heights(document: dict, names: list[str]) -> list[float]:
    """Inches for each row of panels: bars need room for their names."""
    needed = [
        (
            3.6
            if name in ("layers", "one_layer", "qcqa")
            else max(2.4, 1.2 + 0.34 * len({result["name"] for result in results.of(document, name)}))
        )
        for name in names
    ]
    return [max(needed[i : i + COLUMNS]) for i in range(0, len(needed), COLUMNS)] or [1.0]


def draw(document: dict, path: pathlib.Path) -> None:
    """Experiments that were not measured, and those that have no panel, are named below."""
    matplotlib.rcParams["svg.hashsalt"] = "headwise"
    there = [name for name in PANELS if results.of(document, name)]
    notes = []
    if missing := [name for name in PANELS if name not in there]:
        notes.append(f"not measured: {', '.join(missing)}")
    if unknown := results.unknown_experiments(document):
        notes.append(f"measured, but without a panel: {', '.join(unknown)}")
    heights = _heights(document, there)
    figure = plt.figure(figsize=(6.4 * COLUMNS, sum(heights) + 0.6), layout="constrained")
    grid = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    for number, name in enumerate(there):
        axis = figure.add_subplot(grid[number // COLUMNS, number % COLUMNS])
        if problem := PANELS[name](axis, document):
            notes.append(f"not drawn: {name} ({problem})")
            axis.remove()
    bases = results.of(document, BASELINE)
    said = ", ".join(f"{result['text']} {report.number(result['perplexity'], 4)}" for result in bases) or "not measured"
    figure.suptitle(f"{document['model']['file']}, perplexity as it is: {said}", fontsize=11)
    if notes:
        figure.supxlabel("\n".join(textwrap.fill(note, 150) for note in notes), fontsize=8, color="#555")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    files.write_whole(path, buffer.getvalue())
