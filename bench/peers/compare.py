#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Times headwise beside PyTorch, ONNX Runtime, OpenVINO and ggml on this CPU, and prints a table. See README.md."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FOLDER = ROOT / "build" / "peers"
SKIPPED = 77  # what CTest takes for a test that could not run
MIB = 2**20


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--quick", action="store_true", help="a few cases, about two minutes")
    choice.add_argument("--full", action="store_true", help="every case; takes hours")
    choice.add_argument("--smoke", action="store_true", help="tiny cases, ours alone, no virtual environment: a test")
    parser.add_argument(
        "--cases",
        metavar="PATTERN,…",
        default="*",
        help="of the chosen set, those whose name, as --list shows it, matches one, e.g. 'decode/32:8:*'",
    )
    parser.add_argument("--storage", metavar="TYPE,…", help="f32, bf16, f16, q8")
    parser.add_argument("--threads", metavar="N,…", help="numbers of threads; default: 1 and all")
    parser.add_argument("--rivals", metavar="NAME,…", help="torch, onnxruntime, openvino, ggml; default: all installed")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and do nothing")
    parser.add_argument("--rounds", type=int, default=7, help="of each case, at most")
    parser.add_argument(
        "--case-seconds", type=float, default=4, help="what the rounds of a case may take, from the fourth on"
    )
    parser.add_argument("--turn-seconds", type=float, default=0.04, help="how long a library is timed before the next")
    parser.add_argument(
        "--memory",
        type=int,
        default=2560,
        metavar="MIB",
        help="keys and values of a storage type in each process, which may take up to three times as much",
    )
    parser.add_argument(
        "--noise", type=float, default=0.2, help="quartiles further apart than this share of the median: too noisy"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, default=FOLDER / "peers.json", help="where everything measured goes"
    )
    parser.add_argument("--venv", type=pathlib.Path, default=FOLDER / "venv", help="as made by setup")
    parser.add_argument(
        "--ggml", type=pathlib.Path, default=FOLDER / "ggml" / "build" / "bin", help="folder of ggml's libraries"
    )
    parser.add_argument(
        "--library", type=pathlib.Path, help="built headwise_peer module; default: built now, in build/release"
    )
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error(f"--rounds ({args.rounds}) must be at least 1")
    return args


def enter_environment(args: argparse.Namespace) -> None:
    """Goes on under the virtual environment's Python."""
    python = args.venv / "bin" / "python"
    if args.smoke or args.list or pathlib.Path(sys.prefix) == args.venv.resolve():
        return
    if not python.exists():
        sys.exit(f"compare: no virtual environment at {args.venv}; run bench/peers/setup, or give one by --venv")
    os.execv(python, [str(python), "-B", *sys.argv])


def build_library(args: argparse.Namespace) -> pathlib.Path:
    if args.library:
        return args.library
    for command in (
        ["cmake", "--preset", "release"],
        ["cmake", "--build", "--preset", "release", "--target", "headwise_peer"],
    ):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            sys.exit(f"compare: {' '.join(command)} failed:\n{done.stdout}")
    return ROOT / "build/release/bench/peers/libheadwise_peer.so"


def chosen_cases(args: argparse.Namespace, every: int) -> list:
    from peers import case_sets
    from peers.cases import STORAGES

    make = next(
        (getattr(case_sets, name) for name in ("smoke", "quick", "full") if getattr(args, name)), case_sets.default
    )
    cases = make(every)
    storages = args.storage.split(",") if args.storage else STORAGES
    for storage in set(storages) - set(STORAGES):
        sys.exit(f"compare: --storage ({storage}) must be one of {', '.join(STORAGES)}")
    threads = [int(n) for n in args.threads.split(",")] if args.threads else list(range(1, every + 1))
    for n in threads:
        if not 1 <= n <= every:
            sys.exit(f"compare: --threads ({n}) must be 1 to the cores this process may use ({every})")
    patterns = args.cases.split(",")
    cases = [
        case
        for case in cases
        if case.storage in storages
        and case.threads in threads
        and any(fnmatch.fnmatch(case.name, p) or fnmatch.fnmatch(case.what, p) for p in patterns)
    ]
    if not cases:
        sys.exit("compare: no case of this set has such a name, storage type and number of threads; see --list")
    return sorted(dict.fromkeys(cases), key=lambda case: -case.threads)


def chosen_rivals(args: argparse.Namespace) -> list[str]:
    from peers import rivals

    names = [rivals.OURS]
    if not args.smoke:
        names += args.rivals.split(",") if args.rivals else [name for name in rivals.NAMES if name != rivals.OURS]
    for name in names:
        if name not in rivals.NAMES:
            sys.exit(f"compare: --rivals ({name}) must be one of {', '.join(rivals.NAMES)}")
    return list(dict.fromkeys(names))


def main() -> int:
    args = arguments()
    enter_environment(args)
    sys.path.insert(0, str(HERE))
    from peers import machine

    every = len(machine.cpus())
    cases = chosen_cases(args, every)
    if args.list:
        print("\n".join(case.name for case in cases))
        return 0
    try:
        import numpy  # noqa: F401: said here, where it can be said well
    except ImportError:
        print("compare: skipped, since this Python has no numpy (Debian: python3-numpy)")
        return SKIPPED
    from peers import report, sweep
    from peers.rounds import Settings

    llc = machine.last_level_cache() or 64 * MIB
    cold = 4 * MIB if args.smoke else min(llc * 3 // 2, args.memory * MIB)
    settings = Settings(
        rounds=2 if args.smoke else args.rounds,
        case_seconds=args.case_seconds,
        turn_seconds=0.002 if args.smoke else args.turn_seconds,
        cold_bytes=cold,
        memory_bytes=args.memory * MIB,
    )
    paths = {"headwise": str(build_library(args).resolve()), "ggml": str(args.ggml.resolve())}
    args.json.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="peers-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as scratch:
        document = {
            "taken": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": machine.describe(),
            "settings": vars(settings) | {"noise": args.noise},
        }
        document |= sweep.run(
            cases, chosen_rivals(args), paths, settings, pathlib.Path(scratch), args.json.with_suffix(".log")
        )
    args.json.write_text(json.dumps(document, indent=1) + "\n")
    text = args.json.with_suffix(".md")
    text.write_text(f"{report.markdown(document)}\n\n{report.details(document)}\n")
    print(f"{report.markdown(document)}\n\nEvery way that was tried: {text}\nEverything measured: {args.json}")
    wrong = report.our_mistakes(document)
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
