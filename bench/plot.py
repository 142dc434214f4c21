#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws what `compare --json FILE` measured, as SVG: time per token against the number of KV heads, and the roofline.

usage: plot.py FILE.json [OUTPUT_FOLDER]

Needs matplotlib. Writes time_per_token.svg and roofline.svg.
"""
import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

COLORS = {"f32": "#1f5fa8", "f16": "#2a8f5b", "bf16": "#c2531a"}
MARKERS = {"MHA": "s", "GQA": "o", "MQA": "^"}


def sibling_sets(cases):
    """Cases of equal groups that differ in the number of KV heads alone, keyed by all the rest."""
    sets = {}
    for case in cases:
        if case["group_sizes"]:
            continue
        fields = ("model", "phase", "kv_tokens", "new_tokens", "threads", "warm", "storage")
        sets.setdefault(tuple(case[field] for field in fields), []).append(case)
    return {key: sorted(members, key=lambda c: c["num_kv_heads"]) for key, members in sets.items() if len(members) > 1}


def plot_time_per_token(document, path):
    """One panel per model and length: decode, all threads. Dashed: the least time that the machine's limits allow.
    Dotted: the time of MHA over the speed-up that the cost model predicts."""
    panels = {}
    most_threads = max(case["threads"] for case in document["cases"])
    for (model, phase, kv, _, threads, warm, storage), members in sibling_sets(document["cases"]).items():
        if phase == "decode" and threads == most_threads and not warm:
            panels.setdefault((model, kv), []).append((storage, members))
    if not panels:
        return False
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.2 * columns, 3.4 * rows), squeeze=False)
    for axis, ((model, kv), lines) in zip(axes.flat, panels.items()):
        for storage, members in lines:
            heads = [case["num_kv_heads"] for case in members]
            axis.plot(heads, [case["us_per_token"] for case in members], "o-", color=COLORS[storage], label=storage)
            axis.plot(heads, [case["roofline_us_per_token"] for case in members], "--", color=COLORS[storage], lw=1)
            mha = members[-1]
            if mha["kind"] == "MHA":
                predicted = [mha["us_per_token"] / case["predicted_speedup_over_mha"] for case in members]
                axis.plot(heads, predicted, ":", color=COLORS[storage], lw=1)
        axis.set(xscale="log", yscale="log", title=f"{model}, kv {kv}", xlabel="KV heads", ylabel="µs per token")
        ticks = sorted({case["num_kv_heads"] for _, members in lines for case in members})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    for axis in axes.flat[len(panels):]:
        axis.set_visible(False)
    machine = document["machine"]
    threads = "1 thread" if most_threads == 1 else f"{most_threads} threads"
    figure.suptitle(f"Decode, one attention layer: {machine['cpu']}, {machine['isa']}, {threads}\n"
                    "solid: measured; dashed: least time by measured limits; dotted: predicted from MHA's time", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)
    return True


def plot_roofline(document, path):
    """FLOP/s against FLOPs per byte of K/V read; one panel per number of threads, roofs as medians of the run."""
    limits = document["limits"]
    figure, axes = plt.subplots(1, len(limits), figsize=(6.5 * len(limits), 4.8), squeeze=False)
    for axis, limit in zip(axes.flat, limits):
        cases = [case for case in document["cases"] if case["threads"] == limit["threads"] and not case["warm"]]
        if not cases:
            continue
        intensity = [case["flop"] / case["kv_bytes"] for case in cases]
        low, high = min(intensity) / 2, max(intensity) * 2
        for name, label, style in (("multiply_add_flop_per_s", "multiply-add peak", "-"),
                                   ("bf16_dot_flop_per_s", "bf16 dot peak", "--")):
            peak, read = limit[name], limit["read_bytes_per_s"]
            if peak > 0 and read > 0:
                knee = min(max(low, peak / read), high)
                axis.plot([low, knee, high], [min(peak, x * read) / 1e9 for x in (low, knee, high)], style,
                          color="#555", lw=1.2, label=f"{label}, {read / 1e9:.0f} GB/s")
        labelled = set()
        for case, x in zip(cases, intensity):
            label = f"{case['kind']} {case['storage']}"
            axis.plot(x, case["flop_per_s"] / 1e9, MARKERS[case["kind"]], color=COLORS[case["storage"]], ms=6,
                      alpha=0.8, label=None if label in labelled else label)
            labelled.add(label)
        threads = "1 thread" if limit["threads"] == 1 else f"{limit['threads']} threads"
        axis.set(xscale="log", yscale="log", title=threads, xlabel="FLOP per byte of K/V", ylabel="GFLOP/s")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=7, ncols=2)
    machine = document["machine"]
    figure.suptitle(f"Roofline: {machine['cpu']}, {machine['isa']}", fontsize=10)
    figure.tight_layout()
    figure.savefig(path)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    document = json.loads(pathlib.Path(sys.argv[1]).read_text())
    if not document["cases"]:
        sys.exit(f"{sys.argv[1]} holds no cases")
    folder = pathlib.Path(sys.argv[2] if len(sys.argv) == 3 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    if plot_time_per_token(document, folder / "time_per_token.svg"):
        print(folder / "time_per_token.svg")
    else:
        print("no cold decode cases with siblings: no plot of time per token", file=sys.stderr)
    plot_roofline(document, folder / "roofline.svg")
    print(folder / "roofline.svg")


if __name__ == "__main__":
    main()
