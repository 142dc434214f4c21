# SPDX-License-Identifier: MIT
"""Lets clang read files of a build without making code: what it warns of, it finds before that.

    check_with_clang.py COMPILE_COMMANDS REGEX...    (of the object files, relative to the build folder)
"""
import json
import multiprocessing.pool
import os
import re
import shlex
import subprocess
import sys


def output(entry):  # CMake 4 gives it as an absolute path
    return os.path.relpath(os.path.join(entry["directory"], entry["output"]), entry["directory"])


def check(entry):
    command = [word for word in shlex.split(entry["command"]) if not re.match(r"-(Winvalid-pch|fpch-)", word)]
    at = command.index("-o")
    del command[at:at + 2]
    return entry["file"], subprocess.run([*command, "-fsyntax-only"], cwd=entry["directory"]).returncode


def main():
    wanted = re.compile("|".join(sys.argv[2:]))
    with open(sys.argv[1]) as file:
        entries = [entry for entry in json.load(file) if wanted.search(output(entry))]
    failed = []
    with multiprocessing.pool.ThreadPool(os.cpu_count()) as pool:
        for file, code in pool.imap_unordered(check, entries):
            print("clang reads", file, flush=True)
            if code:
                failed.append(file)
    if failed or not entries:
        sys.exit("clang refuses " + (", ".join(failed) or "nothing: no file matches"))


main()
