# SPDX-License-Identifier: MIT
"""The timing of one case: every library's results are checked, then A B C A B C …, each in its own process while the
others sleep, with the machine's limits probed before and after every round."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import tempfile
import time

import numpy as np

from peers import data, machine
from peers.cases import Case
from peers.client import Worker, WorkerFailed
from peers.rivals import INSTEAD, OURS

MIB = 2**20


@dataclasses.dataclass
class Settings:
    rounds: int  # at most
    case_seconds: float  # that the rounds of a case may take, beyond the first three
    turn_seconds: float
    cold_bytes: int  # what the layers of a cold case take together
    memory_bytes: int  # what the layers may take in each process
    keep: float = 1.3  # times its best that a library's third best may take and stay in the race


@dataclasses.dataclass
class Entry:
    """One variant of one library."""

    worker: Worker
    storage: str  # the case's, or one that a rival takes instead
    variant: str
    status: str = "timed"  # or wrong, unsupported, slower (than another variant of its library)
    reason: str = ""
    appends: bool = False
    error: float = math.nan
    expected: float = 0.0  # seconds of a call
    samples: list[dict] = dataclasses.field(default_factory=list)

    @property
    def ours(self) -> bool:
        return self.worker.name == OURS

    def as_json(self) -> dict:
        return {
            "rival": self.worker.name,
            "storage": self.storage,
            "variant": self.variant,
            "status": self.status,
            "reason": self.reason,
            "appends": self.appends,
            "error": self.error if math.isfinite(self.error) else None,
            "scout_seconds": self.expected,
            "samples": self.samples,
        }


def layers_of(case: Case, settings: Settings) -> tuple[int, int]:
    """How many copies of the keys and values are taken in turn, and how many calls are timed as one. 0 layers: too
    large."""
    least = max(case.kv_bytes / 10e9, case.flops / 60e9) / case.threads
    per_step = min(16, max(1, math.ceil(5e-4 / least))) if case.kind != "prefill" else 1
    layers = 1
    if not case.warm and case.kind != "prefill":
        layers = max(1, math.ceil(settings.cold_bytes / case.kv_bytes))
        layers = math.ceil(layers / per_step) * per_step
    stored = case.kv_bytes * case.batch * case.kv // sum(case.lengths)  # with the room that short sequences leave
    return (layers, per_step) if layers * stored <= settings.memory_bytes else (0, per_step)


class CaseRun:
    def __init__(self, case: Case, workers: list[Worker], settings: Settings, folder: pathlib.Path) -> None:
        self.case, self.workers, self.settings, self.folder = case, list(workers), settings, folder
        self.entries: list[Entry] = []
        self.rounds: list[dict] = []
        self.peak_bytes: dict[str, int] = {}
        self.layers, self.per_step = layers_of(case, settings)
        self.lost: list[Worker] = []  # whose process failed

    def run(self) -> dict:
        if self.layers == 0:
            return self._result(left_out=f"its keys and values do not fit in {self.settings.memory_bytes // MIB} MiB")
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = pathlib.Path(name)
            arrays = data.make(self.case)
            data.save(arrays, folder)
            self._open(folder)
            self._enter(folder, data.reference(self.case, arrays))
            del arrays
        self._time()
        for worker in self.workers:
            self.peak_bytes[worker.name] = worker.ask("close")["peak_bytes"]
        return self._result()

    def _result(self, left_out: str = "") -> dict:
        return {
            "case": self.case.as_json(),
            "kv_bytes": self.case.kv_bytes,
            "flops": self.case.flops,
            "layers": self.layers,
            "per_step": self.per_step,
            "error_limit": data.error_limit(self.case),
            "left_out": left_out,
            "rounds": self.rounds,
            "peak_bytes": self.peak_bytes,
            "results": [entry.as_json() for entry in self.entries],
        }

    def _ask(self, entry: Entry, do: str, **arguments) -> dict | None:
        """None where the library's process failed: it takes no further part in this case."""
        try:
            return entry.worker.ask(do, storage=entry.storage, variant=entry.variant, **arguments)
        except WorkerFailed as e:
            self.workers.remove(entry.worker)
            self.lost.append(entry.worker)
            entry.reason = str(e)
            for other in self.entries:
                if other.worker is entry.worker:
                    other.status, other.reason = "unsupported", entry.reason
            return None

    def _turn(self, entry: Entry, seconds: float) -> dict | None:
        sample = self._ask(entry, "turn", seconds=seconds, expected=entry.expected)
        return sample | {"settled": entry.worker.settle()} if sample else None

    def _racing(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.status == "timed"]

    def _open(self, folder: pathlib.Path) -> None:
        for worker in self.workers:
            storages = [self.case.storage] + ([] if worker.name == OURS else INSTEAD[self.case.storage])
            layers = {
                storage: layers_of(dataclasses.replace(self.case, storage=storage), self.settings)
                for storage in storages
            }
            layers = {storage: n for storage, n in layers.items() if n[0]}
            variants = worker.ask("open", case=self.case.as_json(), folder=str(folder), layers=layers)["variants"]
            self.entries += [Entry(worker, storage, variant) for storage in layers for variant in variants[storage]]

    def _enter(self, folder: pathlib.Path, expected: np.ndarray) -> None:
        """Checks each variant and gives it two first turns. Those that are wrong, or slower than another of the same
        library, leave the race at once, and take their memory with them."""
        for worker in list(self.workers):
            for storage in dict.fromkeys(entry.storage for entry in self.entries if entry.worker is worker):
                for entry in self.entries:
                    if entry.worker is worker and entry.storage == storage and entry.status == "timed":
                        self._check(entry, folder, expected)
                        self._scout(entry)
                if worker in self.workers and not any(
                    e.worker is worker and e.storage == storage for e in self._racing()
                ):
                    worker.ask("leave", storage=storage)

    def _check(self, entry: Entry, folder: pathlib.Path, expected: np.ndarray) -> None:
        output = folder / "output.npy"
        answer = self._ask(entry, "check", output=str(output))
        if answer is None:
            return
        if "unsupported" in answer:
            entry.status, entry.reason = "unsupported", answer["unsupported"]
            return
        entry.appends, entry.expected = answer["appends"], answer["seconds"]
        entry.error = data.error(np.load(output), expected)
        limit = data.error_limit(
            self.case, plain_arithmetic=entry.ours and entry.worker.versions["isa"] != "avx512bf16"
        )
        if not entry.error <= limit:
            self._leave(entry, "wrong", f"off by {entry.error:.1e} of the reference, at most {limit:.1e} expected")

    def _scout(self, entry: Entry) -> None:
        mates = [
            other for other in self._racing() if other.worker is entry.worker and other.expected > 0
        ]  # checked so far
        if entry in mates and not entry.ours and entry.expected > 5 * min(other.expected for other in mates):
            self._leave(entry, "slower", "than another way of the same library, at the first call")
        for seconds in (0.01, 0.02):
            if entry.status == "timed" and (seconds == 0.01 or entry.expected < 0.2):
                sample = self._turn(entry, seconds)
                if sample:
                    entry.expected = min(entry.expected, sample["least"])
        mates = [other for other in mates if other.status == "timed"]
        times = sorted(other.expected for other in mates)
        for other in mates:  # a first look is short, so the second best stays too, unless it is far behind
            late = other.expected > self.settings.keep * times[0] and other.expected > times[:2][-1]
            if not other.ours and (late or other.expected > 2 * times[0]):
                self._leave(other, "slower", "than another way of the same library")

    def _leave(self, entry: Entry, status: str, reason: str) -> None:
        if self._ask(entry, "drop") is not None:
            entry.status, entry.reason = status, reason

    def _time(self) -> None:
        ours = next((worker for worker in self.workers if worker.name == OURS), None)
        estimate = sum(max(self.settings.turn_seconds + 0.02, entry.expected) for entry in self._racing())
        number = min(self.settings.rounds, max(3, int(self.settings.case_seconds / max(estimate, 1e-3))))
        for index in range(number):
            entries = self._racing()
            if not entries:
                return
            limits = [self._probe(ours)] if ours else []
            start, busy, own = time.monotonic(), machine.busy_seconds(machine.cpus()), self._own_seconds()
            first, leak = index % len(entries), 0.0
            for entry in entries[first:] + entries[:first]:
                if entry.status != "timed":  # its library failed in this round
                    continue
                sleeping = [worker for worker in self.workers if worker is not entry.worker]
                before = sum(machine.cpu_seconds(worker.pid) for worker in sleeping)
                sample = self._turn(entry, self.settings.turn_seconds)
                if sample:
                    leak += sum(machine.cpu_seconds(worker.pid) for worker in sleeping) - before
                    entry.samples.append({"round": index, **sample})
            wall = time.monotonic() - start
            foreign = machine.busy_seconds(machine.cpus()) - busy - (self._own_seconds() - own)
            if ours in self.workers:
                limits.append(self._probe(ours))
            self.rounds.append(
                {
                    "limits": limits,
                    "seconds": wall,
                    "sleepers_cpu_share": leak / wall,
                    "foreign_cpu_share": max(0.0, foreign / (wall * len(machine.cpus()))),
                }
            )

    def _probe(self, ours: Worker) -> dict:
        limits = ours.ask("probe", case=self.case.as_json(), cold_bytes=self.settings.cold_bytes)
        ours.settle()
        return limits

    def _own_seconds(self) -> float:
        return time.process_time() + sum(machine.cpu_seconds(worker.pid) for worker in self.workers)
