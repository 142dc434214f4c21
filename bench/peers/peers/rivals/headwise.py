# SPDX-License-Identifier: MIT
"""This library, through native/headwise_peer.h; and the probes of the machine's limits."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_double, c_float, c_int, c_int64, c_void_p

import numpy as np

from peers.cases import Case
from peers.rivals.base import Prepared, Rival, Unsupported, Work

STORAGE_CODES = {"f32": 0, "f16": 1, "bf16": 2}
STAND_IN = {"q8": "bf16"}  # the storage type that a rival's is measured beside where we have none like it

CACHE, APPEND, ROWS = "KvCache", "KvCache, append and attend", "KvRows"


class Shape(ctypes.Structure):
    _fields_ = [
        (name, c_int64) for name in ("sequences", "num_heads", "num_kv_heads", "head_dim", "new_tokens", "max_tokens")
    ]
    _fields_ += [("key_lengths", POINTER(c_int64))]
    _fields_ += [(name, c_int64) for name in ("layers", "threads", "storage", "rows")]


def _floats(array: np.ndarray):
    assert array.dtype == np.float32 and array.flags.c_contiguous
    return array.ctypes.data_as(POINTER(c_float))


class Headwise(Rival):
    def __init__(self, threads: int, library: str) -> None:
        super().__init__(threads)
        self.lib = ctypes.CDLL(library)
        signatures = {
            "error": (c_char_p, []),
            "version": (c_char_p, []),
            "isa": (c_char_p, []),
            "open": (c_void_p, [POINTER(Shape), POINTER(c_float), POINTER(c_float)]),
            "close": (None, [c_void_p]),
            "prepare": (c_int, [c_void_p, c_int]),
            "attend": (c_int, [c_void_p, c_int64, c_int64, POINTER(c_float), POINTER(c_float)]),
            "append_and_attend": (c_int, [c_void_p, c_int64, c_int64, POINTER(c_float), POINTER(c_float)]),
            "cold_bandwidth": (c_double, [c_int64, c_int64]),
            "warm_bandwidth": (c_double, [c_int64, c_int64]),
            "peak_flops": (c_double, [c_int64, c_int64]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(self.lib, f"headwise_peer_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, f"_{name}", function)
        self.work: Work | None = None
        self.opened: dict[int, int] = {}  # by `rows`

    def versions(self) -> dict[str, str]:
        return {"headwise": self._version().decode(), "isa": self._isa().decode()}

    def variants(self, case: Case) -> list[str]:
        return [CACHE, ROWS] + ([APPEND] if case.new > 1 else [])

    def open(self, work: Work) -> None:
        self.work = work
        self.k, self.v = (np.ascontiguousarray(work.arrays[name]) for name in "kv")
        self.q = np.ascontiguousarray(work.arrays["q"])
        self.out = np.full_like(self.q, np.nan)

    def close(self) -> None:
        for peer in self.opened.values():
            self._close(peer)
        self.opened = {}
        self.work = self.k = self.v = self.q = self.out = None

    def prepare(self, variant: str) -> Prepared:
        work = self.work
        peer = self._peer(rows=int(variant == ROWS))
        appends = variant == APPEND
        call = self._append_and_attend if appends else self._attend
        arguments = (work.per_step, _floats(self.q), _floats(self.out))

        def step(first: int):
            first = c_int64(first)

            def run() -> None:
                if call(peer, first, *arguments):
                    raise self._failure()

            return run

        def begin() -> None:
            if self._prepare(peer, int(appends)):
                raise self._failure()

        return Prepared(
            [step(i * work.per_step) for i in range(work.steps)], lambda: self.out, appends, begin, from_first=appends
        )

    def probe(self, case: Case, cold_bytes: int) -> dict[str, float]:
        """What the machine can do at this moment, with this case's threads."""
        if case.warm:
            read = self._warm_bandwidth(self.threads, case.kv_bytes)
        else:
            read = self._cold_bandwidth(self.threads, cold_bytes)
        peak = self._peak_flops(self.threads, STORAGE_CODES[STAND_IN.get(case.storage, case.storage)])
        if min(read, peak) <= 0:
            raise self._failure()
        return {"read_bytes_per_s": read, "flop_per_s": peak}

    def _peer(self, rows: int) -> int:
        if rows not in self.opened:
            case, work = self.work.case, self.work
            lengths = (c_int64 * case.batch)(*case.lengths)
            shape = Shape(
                case.batch,
                case.heads,
                case.kv_heads,
                case.dim,
                case.new,
                case.kv,
                lengths,
                work.layers,
                self.threads,
                STORAGE_CODES[STAND_IN.get(case.storage, case.storage)],
                rows,
            )
            peer = self._open(ctypes.byref(shape), _floats(self.k), _floats(self.v))
            if not peer:
                raise Unsupported(self._error().decode())
            self.opened[rows] = peer
        return self.opened[rows]

    def _failure(self) -> RuntimeError:
        return RuntimeError(self._error().decode())
