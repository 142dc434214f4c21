#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns what run.py measured into Markdown and SVG, and puts the table into a README."""

from __future__ import annotations

import argparse
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "regroup_quality"
sys.path[:0] = [str(HERE), str(HERE.parent / "peers")]

from peers import readme
from quality import files, report, results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, default=FOLDER / "quality.json", help="as written by run.py")
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER, help="folder for quality.md and quality.svg")
    parser.add_argument(
        "--readme",
        type=pathlib.Path,
        nargs="?",
        const=ROOT / "README.md",
        help="also replace what stands between the regroup-quality comments of this file (no value: README.md)",
    )
    args = parser.parse_args()
    if not args.json.exists():
        sys.exit(f"draw: no {args.json}; run bench/regroup_quality/run.py first, or give its file by --json")
    try:
        document = results.load(args.json)
        files.write_whole(args.output / "quality.md", f"{report.markdown(document)}\n".encode())
        print(args.output / "quality.md")
        if args.readme:
            readme.replace_between_markers(args.readme, "regroup-quality", report.markdown(document))
            print(args.readme)
    except (OSError, ValueError) as e:
        sys.exit(f"draw: {e}")
    if unknown := results.unknown_experiments(document):
        print(f"draw: in the table but not in the figure: {', '.join(unknown)}", file=sys.stderr)
    try:
        from quality import plot
    except ImportError:
        sys.exit("draw: no SVG, since this Python has no matplotlib (Debian: python3-matplotlib)")
    plot.draw(document, args.output / "quality.svg")
    print(args.output / "quality.svg")


if __name__ == "__main__":
    main()
