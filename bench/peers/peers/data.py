# SPDX-License-Identifier: MIT
"""Inputs of a case, the same for all rivals, and what the outputs must be: float64, plain numpy."""

from __future__ import annotations

import math
import pathlib

import numpy as np

from peers.cases import Case

# Relative rounding error of a storage type. q8: the step of 256 levels over about ±4 standard deviations.
EPSILON = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8, "q8": 2.0**-6}


def bf16_bits(x: np.ndarray) -> np.ndarray:
    """bfloat16 as uint16, rounded to nearest, ties to even. Finite numbers only."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def from_bf16_bits(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded(x: np.ndarray, storage: str) -> np.ndarray:
    """float32 numbers that the storage type holds exactly; q8 has scales of each rival's own, so x as it is."""
    if storage == "bf16":
        return from_bf16_bits(bf16_bits(x))
    return x.astype(np.float16).astype(np.float32) if storage == "f16" else x


def make(case: Case) -> dict[str, np.ndarray]:
    """q [sequence][new][head][dim], k and v [sequence][kv][kv_head][dim], float32, about normal. Values of the first
    and the newest keys are larger, so that a call which loses one of them is seen to be wrong."""
    random = np.random.default_rng(1)
    draw = lambda *shape: random.standard_normal(shape, np.float32)
    q = draw(case.batch, case.new, case.heads, case.dim)
    k = draw(case.batch, case.kv, case.kv_heads, case.dim)
    v = draw(case.batch, case.kv, case.kv_heads, case.dim)
    if case.storage != "q8":  # a single scale must serve all numbers of a channel there
        weight = max(1.0, math.sqrt(case.kv) / 4)
        for sequence, length in enumerate(case.lengths):
            for token in {0, max(0, length - case.new - 1), length - case.new, length - 1}:
                v[sequence, token] *= weight
    return {"q": rounded(q, case.storage), "k": rounded(k, case.storage), "v": rounded(v, case.storage)}


def save(arrays: dict[str, np.ndarray], folder: pathlib.Path) -> None:
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def load(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Mapped, not read: all workers share one copy."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in "qkv"}


def checked_tokens(case: Case) -> list[int]:
    """Query tokens whose outputs are compared, for every head."""
    return sorted({0, 1, case.new // 3, case.new // 2, case.new - 2, case.new - 1} & set(range(case.new)))


def reference(case: Case, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Exact attention of the checked tokens: float64 [sequence][token][head][dim]."""
    tokens = checked_tokens(case)
    expected = np.empty((case.batch, len(tokens), case.heads, case.dim))
    for sequence, length in enumerate(case.lengths):
        seen = np.array(tokens) + length - case.new + 1  # keys that each of them sees
        for kv_head in range(case.kv_heads):
            k = arrays["k"][sequence, :length, kv_head].astype(np.float64)
            v = arrays["v"][sequence, :length, kv_head].astype(np.float64)
            heads = slice(kv_head * case.group, (kv_head + 1) * case.group)
            q = arrays["q"][sequence, tokens, heads].astype(np.float64)  # [token][head of the group][dim]
            scores = q @ k.T / math.sqrt(case.dim)
            scores[np.broadcast_to(np.arange(length) >= seen[:, None, None], scores.shape)] = -np.inf
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            expected[sequence, :, heads] = weights @ v / weights.sum(axis=-1, keepdims=True)
    return expected


def error(output: np.ndarray, expected: np.ndarray) -> float:
    """Of the worst row: root mean square of the difference over that of what is expected; infinite for NaN."""
    difference = np.sqrt(((output.astype(np.float64) - expected) ** 2).sum(axis=-1))
    relative = difference / np.sqrt((expected**2).sum(axis=-1))
    return float(relative.max()) if np.isfinite(relative).all() else math.inf


def error_limit(case: Case, plain_arithmetic: bool = False) -> float:
    """How far an output may be off. f32: sums of n additions round at random, so errors grow with the root of n, and
    exp is approximated. Other storage types: libraries round queries, weights and outputs to them, and ggml sums in
    f16; but not ours, whose arithmetic is plain f32 where a CPU has no dot products of bf16. What a lost key would
    change is far above all of these (see make)."""
    f32 = 8 * EPSILON["f32"] * (8 + math.sqrt(case.kv))
    if case.storage == "f32" or (plain_arithmetic and case.storage != "q8"):
        return f32
    return f32 + 4 * max(EPSILON[case.storage], EPSILON["bf16"])
