#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Turns what compare.py measured into Markdown and SVG, and puts the table into a README."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "peers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--json", type=pathlib.Path, default=FOLDER / "peers.json", help="as written by compare.py")
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER, help="folder for peers.md and peers.svg")
    parser.add_argument(
        "--readme",
        type=pathlib.Path,
        nargs="?",
        const=ROOT / "README.md",
        help="also replace what stands between the peers comments of this file (no value: README.md)",
    )
    parser.add_argument("--venv", type=pathlib.Path, default=FOLDER / "venv", help="as made by setup")
    args = parser.parse_args()
    python = args.venv / "bin" / "python"
    if python.exists() and pathlib.Path(sys.prefix) != args.venv.resolve():
        os.execv(python, [str(python), "-B", *sys.argv])
    if not args.json.exists():
        sys.exit(f"draw: no {args.json}; run bench/peers/compare.py first, or give its file by --json")
    sys.path.insert(0, str(HERE))
    from peers import readme, report

    document = json.loads(args.json.read_text())
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "peers.md").write_text(f"{report.markdown(document)}\n\n{report.details(document)}\n")
    print(args.output / "peers.md")
    if args.readme:
        try:
            readme.replace_between_markers(args.readme, "peers", report.markdown(document))
        except ValueError as e:
            sys.exit(f"draw: {e}")
        print(args.readme)
    try:
        from peers import plot
    except ImportError:
        sys.exit("draw: no SVG, since this Python has no matplotlib; run bench/peers/setup")
    if plot.draw(document, args.output / "peers.svg"):
        print(args.output / "peers.svg")
    else:
        print("draw: no SVG, since no rival was timed", file=sys.stderr)


if __name__ == "__main__":
    main()
