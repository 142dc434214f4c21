# SPDX-License-Identifier: MIT
"""The parent's end of a worker."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

from peers import machine


class WorkerFailed(Exception):
    pass


class Worker:
    """A library in a process of its own, pinned to `cpus`, which number its threads."""

    def __init__(self, name: str, cpus: list[int], paths: dict[str, str], most_bytes: int, log: pathlib.Path) -> None:
        self.name = name
        threads = len(cpus)
        environment = os.environ | {
            "PYTHONPATH": str(pathlib.Path(__file__).parent.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": "1",  # numpy's, which nobody times
            # Large arrays on huge pages where the system leaves that to programs, as our cache asks for by itself.
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        }
        self._log = open(log, "ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self._send({"name": name, "cpus": cpus, "threads": threads, "paths": paths, "most_bytes": most_bytes})
        self.missing = ""
        self.versions: dict[str, str] = {}

    def started(self) -> bool:
        """Waits until the library is loaded; false, with the reason in `missing`, where it is not installed."""
        answer = self._receive()
        self.missing, self.versions = answer.get("missing", ""), answer.get("versions", {})
        return not self.missing

    @property
    def pid(self) -> int:
        return self._process.pid

    def start(self, do: str, **arguments) -> None:
        self._send({"do": do, **arguments})

    def finish(self) -> dict:
        answer = self._receive()
        if "failed" in answer:
            raise WorkerFailed(f"{self.name}: {answer['failed']}")
        return answer

    def ask(self, do: str, **arguments) -> dict:
        self.start(do, **arguments)
        return self.finish()

    def settle(self) -> bool:
        """Waits until its threads have stopped spinning."""
        return machine.wait_until_idle(self.pid)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.stdin.close()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def _send(self, message: dict) -> None:
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(f"{self.name}: its process ended with {self._process.wait()}") from None

    def _receive(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(f"{self.name}: its process ended with {self._process.wait()}")
        return json.loads(line)
