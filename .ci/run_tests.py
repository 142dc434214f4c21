# SPDX-License-Identifier: MIT
"""Runs tests of GoogleTest programs, many in one process and as many processes at once as there are cores.

CTest starts a process for each test; where starting one takes as long as the test (under sanitizers and emulators), that
is half of the time. A test is named PROGRAM.SUITE.TEST as CTest names it.

    run_tests.py FOLDER SELECT [--leave-out REGEX] [--emulator COMMAND] PROGRAM...
"""
import argparse
import multiprocessing.pool
import os
import re
import shlex
import subprocess
import sys
import time

BATCHES = 8  # processes per program and core: enough that the last ones end together
LIMIT = 1200  # seconds for a process


def tests_of(program, emulator):
    """The names of its tests: SUITE.TEST."""
    listing = subprocess.run([*emulator, program, "--gtest_list_tests"], check=True, capture_output=True, text=True)
    names, suite = [], ""
    for line in listing.stdout.splitlines():
        word = line.split("#")[0].rstrip()
        if word.startswith("  "):
            names.append(suite + word.strip())
        elif word.endswith("."):
            suite = word
    return names


def run(job):
    """(what it printed, whether it ended well, seconds, the names of tests that it passed and that it skipped)"""
    command, names = job
    start = time.monotonic()
    try:
        process = subprocess.run([*command, "--gtest_color=no", "--gtest_filter=" + ":".join(names)],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT)
        printed, code = process.stdout.decode(errors="replace"), process.returncode
    except subprocess.TimeoutExpired as late:
        printed, code = (late.stdout or b"").decode(errors="replace") + f"\nended after {LIMIT} s\n", 1
    passed = re.findall(r"\[       OK \] (\S+) \(\d+ ms\)", printed)
    skipped = re.findall(r"\[  SKIPPED \] (\S+) \(\d+ ms\)", printed)
    if code == 0 and set(passed) | set(skipped) != set(names):
        printed, code = printed + "\nsome of these tests did not run\n", 1
    return command[-1], printed, code, time.monotonic() - start, passed, skipped


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", help="where the programs lie, or a folder of their name in which they lie")
    parser.add_argument("select", help="regular expression: the tests to run")
    parser.add_argument("programs", nargs="+")
    parser.add_argument("--leave-out", default="$^", help="regular expression: those of them not to run")
    parser.add_argument("--emulator", default="", help="a command that runs the programs")
    given = parser.parse_args()
    emulator, cores = shlex.split(given.emulator), os.cpu_count() or 1

    jobs = []
    for name in given.programs:
        stem = name.removesuffix("_test")
        program = next(path for path in (os.path.join(given.folder, name), os.path.join(given.folder, stem, name))
                       if os.path.isfile(path))
        names = [test for test in tests_of(program, emulator)
                 if re.search(given.select, f"{name}.{test}") and not re.search(given.leave_out, f"{name}.{test}")
                 and not re.search(r"(^|\.|/)DISABLED_", test)]
        if not names:
            sys.exit(f"{name} has no test that is selected")
        count = min(len(names), BATCHES * cores)
        jobs += [([*emulator, program], names[i::count]) for i in range(count)]  # neighbours take as long

    passed, skipped, failed = [], [], 0
    with multiprocessing.pool.ThreadPool(cores) as pool:
        for program, printed, code, seconds, ran, not_run in pool.imap_unordered(run, jobs):
            name = os.path.basename(program)
            passed += ran
            skipped += not_run
            print(f"{name}: {len(ran)} tests in {seconds:.1f} s" + (f", exit status {code}" if code else ""), flush=True)
            for test in not_run:
                print(f"  {name}.{test} (Skipped)")
            if code:
                failed += 1
                print(printed, flush=True)
    if failed or not passed:
        sys.exit(f"{failed} of {len(jobs)} processes failed; {len(passed)} tests passed")
    print(f"100% tests passed out of {len(passed) + len(skipped)}")


main()
