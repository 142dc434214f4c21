# SPDX-License-Identifier: MIT
"""A whole run: the processes, one set for each number of threads, and the cases one after another."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Iterator

from peers import machine
from peers.cases import Case
from peers.client import Worker, WorkerFailed
from peers.rivals import OURS, TITLES
from peers.rounds import CaseRun, Settings


def progress(cases: list[Case]) -> Iterator[Case]:
    """A bar where tqdm is to be had, else a line for each case."""
    try:
        from tqdm import tqdm
    except ImportError:
        for number, case in enumerate(cases, 1):
            print(f"[{number}/{len(cases)}] {case.name}", file=sys.stderr)
            yield case
        return
    bar = tqdm(cases, unit="case", dynamic_ncols=True)
    for case in bar:
        bar.set_description(case.name)
        yield case


class Crew:
    """The workers for one number of threads."""

    def __init__(
        self, names: Iterable[str], threads: int, paths: dict[str, str], most_bytes: int, log: pathlib.Path
    ) -> None:
        self.threads, self.paths, self.most_bytes, self.log = threads, paths, most_bytes, log
        self.cpus = machine.cpus()[:threads]
        self.missing: dict[str, str] = {}
        self.workers: list[Worker] = []
        self._add(names)

    def _add(self, names: Iterable[str]) -> None:
        started = [Worker(name, self.cpus, self.paths, self.most_bytes, self.log) for name in names]
        for worker in started:
            try:
                present = worker.started()
            except WorkerFailed as e:
                present, worker.missing = False, str(e)
            if present:
                self.workers.append(worker)
            else:
                self.missing[worker.name] = worker.missing
                worker.stop()

    def replace(self, lost: list[Worker]) -> None:
        """A process that failed once starts afresh for the next case."""
        for worker in lost:
            self.workers.remove(worker)
            worker.stop()
        self._add([worker.name for worker in lost])

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


def run(
    cases: list[Case],
    names: list[str],
    paths: dict[str, str],
    settings: Settings,
    scratch: pathlib.Path,
    log: pathlib.Path,
) -> dict:
    """Cases in the order given; those with the same number of threads should be together."""
    log.write_bytes(b"")
    results, versions, missing = [], {}, {}
    crew: Crew | None = None
    try:
        for case in progress(cases):
            if crew is None or crew.threads != case.threads:
                if crew:
                    crew.stop()
                crew = Crew(names, case.threads, paths, 3 * settings.memory_bytes, log)
                versions |= {worker.name: worker.versions for worker in crew.workers}
                missing |= crew.missing
                if OURS in crew.missing:
                    sys.exit(f"compare: headwise itself does not load: {crew.missing[OURS]}")
                for name in crew.missing:
                    print(f"{TITLES[name]} is left out: {crew.missing[name]}", file=sys.stderr)
                names = [name for name in names if name not in crew.missing]
            case_run = CaseRun(case, crew.workers, settings, scratch)
            results.append(case_run.run())
            crew.replace(case_run.lost)
    finally:
        if crew:
            crew.stop()
    return {"versions": versions, "missing": missing, "cases": results}
