# SPDX-License-Identifier: MIT
"""What was measured, as Markdown."""

from __future__ import annotations

import dataclasses

from peers import figures
from peers.cases import Case
from peers.figures import Against, Row, Spread
from peers.rivals import OURS, TITLES
from peers.rivals.headwise import CACHE, ROWS, STAND_IN

APPENDS = "†"
LEGEND = (
    "Ratio: the rival's time over ours in the same round, median (quartiles) over the rounds; above 1 headwise is "
    "faster. The best rival is the way of calling any of the libraries, with K/V in the same type or in one at "
    "least as exact, that gives the smallest. “?”: too noisy to tell. Roofline: the larger of stored K/V bytes over "
    "read bandwidth and FLOPs over the multiply-add rate, both probed in the same round. Decode and append read "
    "caches that together exceed the last-level cache, but for those said to be warm. Caller's rows: KvRows over "
    "row-major memory, as a share of the speed of KvCache, and its ratio. 1 thread: % of its roofline, and the "
    "ratio to the best rival with 1 thread."
)


def milliseconds(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.1f}" if ms >= 10 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"


def case_text(case: Case) -> str:
    what = f"append {case.new}" if case.kind == "append" else case.kind
    text = f"{what} {case.shape}, kv {case.length_text.replace('-', '–')}"
    return text + (f", batch {case.batch}" if case.batch > 1 else "") + (", warm" if case.warm else "")


def rival_text(against: Against, storage: str) -> str:
    stored = f" in {against.storage}" if against.storage != storage else ""
    return f"{TITLES[against.rival]} {against.variant}{stored}" + (APPENDS if against.ours_appends else "")


def ratio_text(row: Row, quartiles: bool) -> str:
    """What is said of ours against the best rival."""
    if row.against is None or not row.same_storage:
        return "–"
    ratio = row.against.ratio
    if row.noise:
        return f"? ({ratio.low:.2f}–{ratio.high:.2f})"
    return f"{ratio.median:.2f}×" + (f" ({ratio.low:.2f}–{ratio.high:.2f})" if quartiles else "")


def _percent(share: Spread) -> str:
    return f"{share.median * 100:.0f}"


@dataclasses.dataclass
class Line:
    """A case and storage type: our cache with all threads and with one, and the caller's rows with all."""

    rows: dict[tuple[int, str], Row]  # by threads and variant

    @property
    def case(self) -> Case:
        return Case.from_json(self.rows[max(self.rows)].case)

    def cells(self) -> list[str]:
        most, least = max(n for n, _ in self.rows), min(n for n, _ in self.rows)
        row, rows, one = self.rows.get((most, CACHE)), self.rows.get((most, ROWS)), self.rows.get((least, CACHE))
        case = self.case
        if row is None:
            return []
        own = milliseconds(row.seconds.median) + ("" if row.same_storage else f" ({STAND_IN[case.storage]})")
        cells = [case_text(case), case.storage + ("" if most > 1 else ", 1 thread"), own, _percent(row.roofline)]
        if row.against:
            cells += [
                rival_text(row.against, case.storage),
                milliseconds(row.against.seconds),
                ratio_text(row, quartiles=True),
            ]
        else:
            cells += ["none", "–", "–"]
        cells.append(
            f"{row.seconds.median / rows.seconds.median:.0%}, {ratio_text(rows, quartiles=False)}" if rows else "–"
        )
        cells.append(f"{_percent(one.roofline)}, {ratio_text(one, quartiles=False)}" if one and least < most else "–")
        return cells


def table(document: dict) -> list[str]:
    bound = document["settings"]["noise"]
    lines: dict[tuple[str, str], Line] = {}
    for result in document["cases"]:
        for row in figures.rows(result, bound):
            line = lines.setdefault((result["case"]["what"], result["case"]["storage"]), Line({}))
            line.rows[result["case"]["threads"], row.variant] = row
    threads = max(result["case"]["threads"] for result in document["cases"])
    heads = [
        "case",
        "K/V",
        "headwise ms",
        "% of roofline",
        "best rival",
        "its ms",
        "ratio (quartiles)",
        "caller's rows",
        "1 thread",
    ]
    made = [f"| {' | '.join(cells)} |" for line in lines.values() if (cells := line.cells())]
    return [
        f"{threads} thread{'s' if threads > 1 else ''}, but for the last column:",
        "",
        f"| {' | '.join(heads)} |",
        "|---|---|---:|---:|---|---:|---:|---:|---:|",
        *made,
    ]


def headline(document: dict) -> str:
    machine, versions = document["machine"], document["versions"]
    named = ", ".join(f"{TITLES[name]} {next(iter(found.values()))}" for name, found in versions.items())
    cores, cache = len(machine["cores_used"]), machine["last_level_cache_bytes"] // 2**20
    features, isa, day = ", ".join(machine["features"]), versions[OURS]["isa"], document["taken"][:10]
    return (
        f"{machine['cpu']}, {cores} cores, {cache} MiB last-level cache ({features}; headwise runs {isa}), "
        f"{day}. {named}. {limits_text(document)}"
    )


def limits_text(document: dict) -> str:
    """The medians of what was probed beside the cold cases, for each number of threads."""
    found: dict[int, list[dict]] = {}
    for result in document["cases"]:
        if not result["case"]["warm"]:
            found.setdefault(result["case"]["threads"], []).extend(
                limits for one in result["rounds"] for limits in one["limits"]
            )
    parts = []
    for threads, limits in sorted(found.items()):
        if limits:
            read, flops = (Spread.of([one[key] for one in limits]).median for key in ("read_bytes_per_s", "flop_per_s"))
            parts.append(
                f"{threads} thread{'s' if threads > 1 else ''} {read / 1e9:.1f} GB/s and {flops / 1e9:.0f} GFLOP/s"
            )
    return "Measured limits: " + "; ".join(parts) + "." if parts else ""


def legend(document: dict, lines: list[str]) -> list[str]:
    text = [LEGEND]
    if any(APPENDS in line for line in lines):
        text.append(
            f"{APPENDS} stores the new keys and values as part of the call; the ratio is to ours doing the same."
        )
    if any(result["case"]["storage"] == "q8" for result in document["cases"]):
        text.append(
            "q8: the rival's K/V are 8-bit integers, which headwise does not have; ours are bf16, so there is no ratio."
        )
    return [" ".join(text)]


def markdown(document: dict) -> str:
    lines = table(document)
    return "\n".join([headline(document), "", *lines, "", *legend(document, lines)])


def details(document: dict) -> str:
    """Every way of calling every library, and everything that casts doubt on the figures."""
    lines = [
        "Milliseconds of every way that was tried: medians, or a first look where another of its library is faster.",
        "",
    ]
    for result in document["cases"]:
        lines.append(
            f"- **{result['case']['name']}**, {result['layers']} layers in turn, {result['per_step']} calls as one"
            + (f": left out, {result['left_out']}" if result["left_out"] else "")
        )
        lines += [f"  - {_entry_text(entry, result['case']['storage'])}" for entry in result["results"]]
        doubts = {reason for row in figures.rows(result, document["settings"]["noise"]) for reason in row.noise}
        lines += [f"  - too noisy to tell: {'; '.join(sorted(doubts))}"] if doubts else []
    lines += ["", *(f"{TITLES[name]} was left out: {reason}" for name, reason in document["missing"].items())]
    return "\n".join(lines)


def _entry_text(entry: dict, storage: str) -> str:
    stored = f" in {entry['storage']}" if entry["storage"] != storage else ""
    name = f"{TITLES[entry['rival']]} {entry['variant']}{stored}"
    error = f", error {entry['error']:.1e}" if entry["error"] is not None else ""
    if entry["status"] == "timed" and entry["samples"]:
        return f"{name}: {milliseconds(Spread.of(list(figures.times(entry).values())).median)}{error}"
    if entry["status"] == "slower":
        return f"{name}: {milliseconds(entry['scout_seconds'])} at a first look{error}"
    return f"{name}: {entry['status']}, {entry['reason']}"


def our_mistakes(document: dict) -> list[str]:
    """What must make a run fail: a result of ours that is wrong or missing."""
    return [
        f"{result['case']['name']} {entry['variant']}: {entry['status']}, {entry['reason']}"
        for result in document["cases"]
        for entry in result["results"]
        if entry["rival"] == OURS and entry["status"] != "timed"
    ]
