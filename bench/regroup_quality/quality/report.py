# SPDX-License-Identifier: MIT
"""What was measured, as Markdown."""

from __future__ import annotations

import math

from quality import results
from quality.results import EXPERIMENTS, Row

LEGEND = (
    "Perplexity, and the mean Kullback–Leibler divergence from the model as it is to the changed one, in nats per "
    "token. KV bytes: what the cache stores for a token, all layers together."
)


def number(value: float | None, digits: int = 3) -> str:
    """To so many digits; large numbers in full, with separators."""
    if value is None:
        return "–"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0:
        return "0"
    if abs(rounded) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _cells(row: Row, texts: list[str]) -> list[str]:
    name = row.name + (f" (median of {row.measurements})" if row.measurements > 1 else "")
    kv_bytes = row.kv_bytes()
    return [
        _cell(EXPERIMENTS.get(row.experiment, row.experiment)),
        _cell(name),
        *(number(row.median(text, "perplexity"), 4) for text in texts),
        *(number(row.median(text, "kl")) for text in texts),
        "–".join(f"{value:,.0f}" for value in dict.fromkeys((kv_bytes[0], kv_bytes[-1]))) if kv_bytes else "–",
    ]


def table(document: dict) -> list[str]:
    texts = results.texts(document)
    heads = ["experiment", "name", *(f"perplexity, {t}" for t in texts), *(f"KL, {t}" for t in texts), "KV bytes/token"]
    lines = [f"| {' | '.join(heads)} |", f"|---|---|{'---:|' * (len(heads) - 2)}"]
    previous = ""
    for row in results.rows(document):
        cells = _cells(row, texts)
        cells[0], previous = ("" if cells[0] == previous else cells[0]), cells[0]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def headline(document: dict) -> str:
    settings = ", ".join(
        f"{key} {value}" for key, value in document["settings"].items() if isinstance(value, (str, int, float))
    )
    named = "; ".join(f"{name}: {text.get('origin', text['file'])}" for name, text in document["texts"].items())
    said = f"{document['model']['file']}; {settings}" if settings else document["model"]["file"]
    return f"{said}; {document['machine']['cpu']}, {document['taken'][:10]}. Texts: {named}."


def markdown(document: dict) -> str:
    return "\n".join([headline(document), "", *table(document), "", LEGEND])
