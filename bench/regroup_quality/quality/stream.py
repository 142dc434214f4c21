# SPDX-License-Identifier: MIT
"""The program that measures, and the JSON lines that it prints.

{"event": "start", "steps": N, …}   first: how many results and steps will follow, and the settings that are in force
{"event": "result", "experiment": …, "text": …, "name": …, "cross_entropy": …, "perplexity": …, "kl": …,
 "kv_bytes_per_token": …, …}        a measurement; "kl" and "kv_bytes_per_token" may be null, further fields are kept
{"event": "step"}                   work that ends without a measurement
{"event": "done"}                   last
"""

from __future__ import annotations

import collections
import dataclasses
import json
import math
import subprocess
import threading
from collections.abc import Callable, Iterator

STRINGS, NUMBERS, NUMBERS_OR_NULL = (
    ("experiment", "text", "name"),
    ("cross_entropy", "perplexity"),
    ("kl", "kv_bytes_per_token"),
)


class ProgramFailed(RuntimeError):
    pass


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def parse(line: str) -> dict:
    """The event of a line; ProgramFailed where it is none."""
    try:
        event = json.loads(line)
    except ValueError:
        raise ProgramFailed(f"the program printed what is no JSON: {line.strip()[:200]!r}") from None
    kind = event.get("event") if isinstance(event, dict) else None
    if kind not in ("start", "result", "step", "done"):
        raise ProgramFailed(f"the program printed an unknown event: {line.strip()[:200]!r}")
    wrong: list[str] = []
    if kind == "start" and not (isinstance(event.get("steps"), int) and event["steps"] >= 0):
        wrong = ["steps"]
    if kind == "result":
        wrong += [field for field in STRINGS if not (isinstance(event.get(field), str) and event[field])]
        wrong += [field for field in NUMBERS if not _is_number(event.get(field))]
        wrong += [f for f in NUMBERS_OR_NULL if f not in event or not (event[f] is None or _is_number(event[f]))]
    if wrong:
        raise ProgramFailed(f"the program printed a {kind} with a bad {', '.join(wrong)}: {line.strip()[:300]!r}")
    return event


@dataclasses.dataclass
class Measured:
    settings: dict
    results: list[dict]


def events(command: list[str], on_message: Callable[[str], None]) -> Iterator[dict]:
    """Runs the program; its messages, line by line, go to `on_message`. Ends it when no longer asked for events."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
        )
    except OSError as e:
        raise ProgramFailed(f"{command[0]} does not start: {e}") from None
    assert process.stdout and process.stderr
    stderr, last = process.stderr, collections.deque[str](maxlen=20)

    def pass_on() -> None:
        for line in stderr:
            last.append(line.rstrip("\n"))
            on_message(last[-1])

    reader = threading.Thread(target=pass_on, daemon=True)
    reader.start()
    try:
        for line in process.stdout:
            if line.strip():
                yield parse(line)
        code = process.wait()
        reader.join()
        if code:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise ProgramFailed("\n".join([f"the program ended with {how}; its last messages:", *last]))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(timeout=1)
        process.stdout.close()


def measure(
    command: list[str],
    on_start: Callable[[int], None],
    on_step: Callable[[dict], None],
    on_message: Callable[[str], None],
) -> Measured:
    """Everything that the program measures, once it has ended as it should; else ProgramFailed."""
    measured: Measured | None = None
    done = False
    for event in events(command, on_message):
        kind = event.pop("event")
        if done:
            raise ProgramFailed(f'the program went on after "done", with "{kind}"')
        if (kind == "start") != (measured is None):
            raise ProgramFailed(f'the program must print "start" first and once, but here printed "{kind}"')
        if kind == "start":
            on_start(event.pop("steps"))
            measured = Measured(event, [])
        elif kind == "done":
            done = True
        else:
            assert measured
            if kind == "result":
                measured.results.append(event)
            on_step(event)
    if not measured or not done:
        raise ProgramFailed("the program ended before it was done")
    if not measured.results:
        raise ProgramFailed("the program measured nothing")
    return measured
