#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws a Pareto front of QCQA as SVG: error against capacity, from a CSV file with columns of these names, as the
example `regroup` writes it, for one layer or a whole model. Needs matplotlib."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import os
import pathlib
import sys

MOST_LABELS = 24


@dataclasses.dataclass(frozen=True)
class Point:
    capacity: float
    error: float
    label: str


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=pathlib.Path, help="with the columns capacity, error and any others")
    parser.add_argument("-o", "--output", type=pathlib.Path, help="SVG file (default: beside the CSV)")
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="what is written beside the points (default: the first of groups, layers that is there)",
    )
    parser.add_argument("--title", default="QCQA: Pareto front")
    return parser.parse_args()


def read(path: pathlib.Path, label: str | None) -> tuple[list[Point], str | None]:
    """The points by capacity, and the column of their labels; ValueError for what is no front."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, restval="")
        columns = reader.fieldnames or []
        if "capacity" not in columns or "error" not in columns:
            raise ValueError(f"{path} must have the columns 'capacity' and 'error', not {', '.join(columns) or 'none'}")
        others = [column for column in columns if column not in ("capacity", "error")]
        if label is not None and label not in others:
            raise ValueError(f"--label ('{label}') must be one of {', '.join(others) or 'the other columns: none'}")
        column = label or next((name for name in ("groups", "layers") if name in others), None)
        points = []
        for row in reader:
            for name in ("capacity", "error"):
                try:
                    if not math.isfinite(float(row[name])):
                        raise ValueError
                except ValueError:
                    raise ValueError(
                        f"{path}, line {reader.line_num}: {name} ('{row[name]}') must be a number"
                    ) from None
            points.append(Point(float(row["capacity"]), float(row["error"]), row[column] if column else ""))
    if not points:
        raise ValueError(f"{path} has no points")
    return sorted(points, key=lambda point: (point.capacity, point.error)), column


def best(points: list[Point]) -> list[Point]:
    """Those that no other one dominates."""
    front: list[Point] = []
    for point in points:
        if not front or point.error < front[-1].error:
            front.append(point)
    return front


def draw(points: list[Point], column: str | None, title: str, path: pathlib.Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "headwise"  # else every file would differ
    front = best(points)
    dominated = [point for point in points if point not in front]
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    # Between two points there is nothing to choose: the error of what fits is that of the point to the left.
    axis.step([p.capacity for p in front], [p.error for p in front], "o-", where="post", ms=4, lw=1, color="#3d7ea6")
    if dominated:
        capacities, errors = zip(*((p.capacity, p.error) for p in dominated))
        axis.plot(capacities, errors, "x", ms=4, color="#999", label="dominated by another point")
        axis.legend(fontsize=8)
    if column and len(front) <= MOST_LABELS:
        for point in front:
            where = {"xytext": (4, 4), "textcoords": "offset points", "fontsize": 7}
            axis.annotate(point.label.replace("$", r"\$"), (point.capacity, point.error), **where)
        title += f" (beside the points: {column})"
    axis.set(xlabel="capacity: groups over heads", ylabel="weight-sharing error")
    axis.set_title(title.replace("$", r"\$"), fontsize=10)
    axis.grid(alpha=0.3)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def main() -> None:
    args = arguments()
    output = args.output or args.csv.with_suffix(".svg")
    try:
        points, column = read(args.csv, args.label)
        draw(points, column, args.title, output)
    except ImportError:
        sys.exit("plot_front: needs matplotlib, which this Python does not have (Debian: python3-matplotlib)")
    except (OSError, ValueError, csv.Error) as e:
        sys.exit(f"plot_front: {e}")
    print(output)


if __name__ == "__main__":
    main()
