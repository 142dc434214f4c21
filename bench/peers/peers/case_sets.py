# SPDX-License-Identifier: MIT
"""The sets of cases that a run may take."""

from __future__ import annotations

from collections.abc import Iterable

from peers.cases import Case

F32, BF16, F16, Q8 = "f32", "bf16", "f16", "q8"
MHA, GQA, MQA = (32, 32, 128), (32, 8, 128), (32, 1, 128)  # Llama-3-8B is 32:8:128
LLAMA_70B, FALCON, SMOLLM, GEMMA = (64, 8, 128), (71, 1, 64), (9, 3, 64), (4, 1, 256)


def _cases(
    shapes: Iterable[tuple],
    storages: Iterable[str],
    threads: Iterable[int],
    kv: Iterable[int],
    new: int | None = 1,
    **rest,
) -> list[Case]:
    """Every combination; new None: prefill."""
    return [
        Case(*shape, kv=tokens, new=tokens if new is None else new, storage=storage, threads=n, **rest)
        for shape in shapes
        for tokens in kv
        for storage in storages
        for n in threads
    ]


def default(every: int) -> list[Case]:
    """The most telling rows: about a quarter of an hour on two cores. `every`: the number of all threads."""
    both, all_ = sorted({1, every}), [every]
    return [
        *_cases([MHA, GQA, MQA], [F32], both, [4096]),
        *_cases([MHA, GQA, MQA], [BF16, F16], all_, [4096]),
        *_cases([LLAMA_70B], [F32], both, [8192]),
        *_cases([LLAMA_70B], [BF16, F16], all_, [8192]),
        *_cases([FALCON], [F32], both, [2048]),
        *_cases([FALCON], [BF16], all_, [2048]),
        *_cases([SMOLLM, GEMMA], [F32], both, [2048], warm=True),
        *_cases([SMOLLM, GEMMA], [BF16], all_, [2048], warm=True),
        *_cases([GQA], [F32, BF16], all_, [600], batch=64, shortest=100),
        *_cases([GQA], [F32, BF16], all_, [4096], new=8),
        *_cases([GQA], [F32, BF16], all_, [4096], new=64),
        *_cases([GQA], [F32], both, [2048], new=None),
        *_cases([GQA], [BF16, F16], all_, [2048], new=None),
        *_cases([MHA, GQA, MQA], [F32], all_, [512], new=None),
        *_cases([GQA], [F32], all_, [4096], new=None),
        *_cases([SMOLLM, GEMMA], [F32], all_, [2048], new=None),
        *_cases([SMOLLM], [F32], [1], [64], warm=True),
    ]


def full(every: int) -> list[Case]:
    both = sorted({1, every})
    every_type = [F32, BF16, F16, Q8]
    cases = default(every)
    for batch in (1, 8):
        cases += _cases([MHA, GQA, MQA], every_type, both, [512, 4096, 32768], batch=batch)
        cases += _cases([MHA, GQA, MQA], every_type, both, [512, 4096], batch=batch, warm=True)
    cases += _cases([LLAMA_70B], every_type, both, [8192])
    for warm in (False, True):
        cases += _cases([FALCON, SMOLLM, GEMMA], every_type, both, [2048], warm=warm)
    cases += _cases([GQA], every_type, both, [600], batch=64, shortest=100)
    cases += _cases([MHA, GQA, MQA], every_type, both, [512, 2048, 4096], new=None)
    cases += _cases([SMOLLM, GEMMA], every_type, both, [2048], new=None)
    for new in (8, 64):
        cases += _cases([MHA, GQA, MQA], every_type, both, [4096], new=new)
    return list(dict.fromkeys(cases))


def quick(every: int) -> list[Case]:
    """A look: less than two minutes."""
    return [
        *_cases([MHA, GQA, MQA], [F32], [every], [4096]),
        *_cases([GQA], [BF16, F16], [every], [4096]),
        *_cases([GQA], [F32], [every], [4096], new=8),
        *_cases([GQA], [F32], [every], [512], new=None),
    ]


def smoke(every: int) -> list[Case]:
    """Each way through our code, as small as it gets: a test of the results, not of speed."""
    return [
        *_cases([(8, 8, 64), (8, 2, 64), (7, 1, 64)], [F32, BF16, F16], sorted({1, every}), [200]),
        *_cases([(8, 2, 64)], [F32, BF16, F16], [every], [130], warm=True),
        *_cases([(8, 2, 64)], [F32, F16], [every], [200], batch=5, shortest=20),
        *_cases([(8, 2, 64)], [F32, BF16], [every], [200], new=9),
        *_cases([(8, 2, 64), (9, 3, 64)], [F32, BF16], [every], [150], new=None),
    ]
