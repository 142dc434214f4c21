#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures what regrouping heads does to a real model, on the texts that fetch_texts made. See draw.py for the rest."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import pathlib
import platform
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(HERE.parent / "peers")]

from peers import machine
from quality import files, stream

TEXTS = ("bible", "perl")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    build = ROOT / "build"
    parser.add_argument(
        "--program", type=pathlib.Path, default=build / "release/bench/regroup_quality", help="that measures"
    )
    parser.add_argument(
        "--model",
        type=pathlib.Path,
        default=build / "models/SmolLM2-135M-Instruct.Q4_1.gguf",
        help="GGUF file; the target smollm2_model brings the default",
    )
    parser.add_argument("--texts", type=pathlib.Path, default=build / "texts", help="folder, as made by fetch_texts")
    parser.add_argument("--experiments", metavar="NAME,…", help="those to run; default: all")
    parser.add_argument("--tokens", type=int, help="of each text; default: the program's")
    parser.add_argument("--seed", type=int, help="default: the program's")
    parser.add_argument("--threads", type=int, help="default: the program's")
    parser.add_argument(
        "--json",
        type=pathlib.Path,
        default=build / "regroup_quality/quality.json",
        metavar="OUT",
        help="where everything measured goes",
    )
    args = parser.parse_args()
    for name, least in (("tokens", 1), ("seed", 0), ("threads", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"--{name} ({value}) must be at least {least}")
    return args


def described(file: pathlib.Path) -> dict:
    content = file.read_bytes()
    return {"file": file.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def found_texts(folder: pathlib.Path) -> dict[str, dict]:
    """By name; what fetch_texts says of a text is kept where it is still that text."""
    try:
        known = json.loads((folder / "texts.json").read_text())["texts"]
    except (OSError, ValueError, KeyError):
        known = {}
    texts = {}
    for name in TEXTS:
        file = folder / f"{name}.txt"
        if not file.is_file():
            sys.exit(f"run: no {file}; make it by bench/regroup_quality/fetch_texts, or give its folder by --texts")
        texts[name] = described(file)
        if known.get(name, {}).get("sha256") == texts[name]["sha256"]:
            texts[name] = known[name]
    return texts


def versions() -> dict[str, str]:
    header = (ROOT / "include/headwise/version.hpp").read_text()
    found = {"headwise": ".".join(re.findall(r"#define HEADWISE_VERSION_\w+ (\d+)", header))}
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
        commit = subprocess.run(command, capture_output=True, text=True, check=False)
        if commit.returncode == 0:
            found["commit"] = commit.stdout.strip()
    except OSError:  # no git: a copy of the sources
        pass
    return found | {"python": platform.python_version()}


def command_line(args: argparse.Namespace) -> list[str]:
    command = [str(args.program), "--model", str(args.model)]
    for name in TEXTS:
        command += ["--text", f"{name}={args.texts / name}.txt"]
    for option in ("experiments", "tokens", "seed", "threads"):
        if (value := getattr(args, option)) is not None:
            command += [f"--{option}", str(value)]
    return command


def main() -> None:
    args = arguments()
    try:
        from tqdm import tqdm
    except ImportError:
        sys.exit("run: the progress bars need tqdm, which this Python does not have (Debian: python3-tqdm)")
    for what, file, remedy in (
        ("program", args.program, "cmake --preset release && cmake --build --preset release --target regroup_quality"),
        ("model", args.model, "cmake --preset release && cmake --build --preset release --target smollm2_model"),
    ):
        if not file.is_file():
            sys.exit(f"run: no {what} at {file}; make it by\n  {remedy}\nor give it by --{what}")
    texts = found_texts(args.texts)
    try:
        files.make_writable_folder(args.json.parent)
    except OSError as e:
        sys.exit(f"run: --json: {e}")
    began, taken = time.monotonic(), datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    bar = tqdm(unit="step", dynamic_ncols=True)

    def start(steps: int) -> None:
        bar.reset(total=steps)

    def step(event: dict) -> None:
        if "experiment" in event:
            bar.set_description(f"{event['experiment']} {event['text']} {event['name']}", refresh=False)
        bar.update()

    try:
        measured = stream.measure(command_line(args), start, step, lambda line: tqdm.write(line, file=sys.stderr))
    except stream.ProgramFailed as e:
        bar.close()
        sys.exit(f"run: {e}")
    except KeyboardInterrupt:
        bar.close()
        sys.exit("run: interrupted; nothing is written")
    bar.close()
    document = {
        "taken": taken,
        "seconds": round(time.monotonic() - began, 1),
        "machine": machine.describe(),
        "versions": versions(),
        "model": described(args.model),
        "texts": texts,
        "settings": measured.settings,
        "results": measured.results,
    }
    try:
        files.write_json(args.json, document)
    except OSError as e:
        sys.exit(f"run: {e}")
    print(f"{len(measured.results)} results: {args.json}\nTable and figure: bench/regroup_quality/draw.py")


if __name__ == "__main__":
    main()
