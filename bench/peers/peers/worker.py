# SPDX-License-Identifier: MIT
"""The process of one library. Reads a JSON object a line from standard input, answers with one; what libraries print
goes to standard error. Between commands it waits in a read, so it takes no time from the others.

    open   {case, folder, layers}                   → {variants} of each storage type
    check  {storage, variant, output}               → {appends, seconds} or {unsupported}: one call, its outputs saved
    turn   {storage, variant, seconds, expected}    → {seconds, least, chunks}
    drop   {storage, variant}, leave {storage}      → {}
    probe  {case, cold_bytes}                       → {read_bytes_per_s, flop_per_s}   (ours only)
    close  {}                                       → {peak_bytes}: the most memory that the process has had so far
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pathlib
import resource
import statistics
import sys
import time
import traceback

clock = time.perf_counter


class Server:
    def __init__(self, name: str, threads: int, paths: dict[str, str]) -> None:
        from peers import rivals

        self._make = lambda: rivals.make(name, threads, paths)
        self.first = self._make()
        self.versions = self.first.versions()

    def open(self, case: dict, folder: str, layers: dict) -> dict:
        """`layers`: of each storage type to try, how many are taken in turn and how many calls are timed as one."""
        from peers import data
        from peers.cases import Case

        self.case = Case.from_json(case)
        self.arrays = data.load(pathlib.Path(folder))
        self.layers = layers
        self.rivals, self.prepared, self.position = {}, {}, {}
        return {
            "variants": {
                storage: self.first.variants(dataclasses.replace(self.case, storage=storage)) for storage in layers
            }
        }

    def _rival(self, storage: str):
        """One instance for each storage type, holding keys and values of that type."""
        from peers.rivals.base import Work

        if storage not in self.rivals:
            rival = self._make()
            case = dataclasses.replace(self.case, storage=storage)
            layers, per_step = self.layers[storage]
            rival.open(Work(case, self.arrays, layers, per_step))
            self.rivals[storage] = rival
        return self.rivals[storage]

    def check(self, storage: str, variant: str, output: str) -> dict:
        import numpy as np
        from peers import data

        try:
            prepared = self._rival(storage).prepare(variant)
            prepared.begin()
            start = clock()
            prepared.steps[0]()
            seconds = clock() - start
        except Exception as e:  # whatever a library throws; base.Unsupported among it
            traceback.print_exc()
            return {
                "unsupported": ([line for line in str(e).splitlines() if line.strip()] or [repr(e)])[-1].strip()[:300]
            }
        self.prepared[storage, variant] = prepared
        self.position[storage, variant] = 1 % len(prepared.steps)
        np.save(output, prepared.output()[:, data.checked_tokens(self.case)].astype(np.float32))
        return {"appends": prepared.appends, "seconds": seconds / self.layers[storage][1]}

    def drop(self, storage: str, variant: str) -> dict:
        self.prepared.pop((storage, variant)).end()
        gc.collect()
        return {}

    def leave(self, storage: str) -> dict:
        """Lets go of the keys and values of a storage type that no variant is left for."""
        if storage in self.rivals:
            self.rivals.pop(storage).close()
        gc.collect()
        return {}

    def turn(self, storage: str, variant: str, seconds: float, expected: float) -> dict:
        """Median over chunks of the time of one call. `expected`: what one took before."""
        prepared, per_step = self.prepared[storage, variant], self.layers[storage][1]
        steps, left = prepared.steps, prepared.most_steps
        position = 0 if prepared.from_first else self.position[storage, variant]
        prepared.begin()
        step_seconds = max(expected * per_step, 1e-7)
        per_chunk = max(1, round(2e-4 / step_seconds))

        def run(count: int) -> float:
            nonlocal position, left
            left -= count
            start = clock()
            for _ in range(count):
                steps[position]()
                position = position + 1 if position + 1 < len(steps) else 0
            return (clock() - start) / (count * per_step)

        if step_seconds < 0.05:  # threads wake, clocks rise; nothing beside a longer call
            end = clock() + 0.004
            while clock() < end and left > 2 * per_chunk:
                run(1)
        chunks = []
        end = clock() + seconds
        while not chunks or (clock() < end and left >= per_chunk):
            chunks.append(run(per_chunk))
        self.position[storage, variant] = position
        return {"seconds": statistics.median(chunks), "least": min(chunks), "chunks": len(chunks)}

    def probe(self, case: dict, cold_bytes: int) -> dict:
        from peers.cases import Case

        return self.first.probe(Case.from_json(case), cold_bytes)

    def close(self) -> dict:
        for prepared in self.prepared.values():
            prepared.end()
        self.prepared = {}
        for storage in list(self.rivals):
            self.leave(storage)
        self.arrays = None
        return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def be_modest(most_bytes: int) -> None:
    """What takes too much memory shall fail by itself, and take nothing else with it."""
    resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
    pathlib.Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    os.sched_setaffinity(0, settings["cpus"])
    be_modest(settings["most_bytes"])

    def answer(fields: dict) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    try:
        server = Server(settings["name"], settings["threads"], settings["paths"])
        answer({"versions": server.versions})
    except (ImportError, OSError) as e:
        answer({"missing": str(e).splitlines()[0]})
        return
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer(getattr(server, command.pop("do"))(**command))
        except Exception as e:  # the parent reports it and goes on without this library
            traceback.print_exc()
            answer({"failed": f"{type(e).__name__}: {e}"})


if __name__ == "__main__":
    main()
