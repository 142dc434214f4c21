# SPDX-License-Identifier: MIT
"""Writes 2,000 random calls of attention with the results of PyTorch in float64: scaled_dot_product_attention, its math
back end, over everything that scales, adds to or hides a score; softcap and sink logits, which it lacks, are spelled out
in PyTorch. Case i is drawn from a generator seeded with i alone."""

from __future__ import annotations

import math
import sys

import numpy as np

from case_file import CaseWriter, write_cases

CASES = 2000
DIMS = [1, 3, 8, 13, 16, 32, 33, 40, 64, 65, 80, 96, 100, 112, 128, 192, 256]
TYPES = ["float32", "float16", "bfloat16"]
MOST_NUMBERS = 60_000  # of q, k, v and twice the output: keeps the file small
MOST_PRODUCTS = 8_000_000


class Draw:
    """Random decisions of one case."""

    def __init__(self, index: int) -> None:
        self.rng = np.random.default_rng([index, 7])

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def among(self, choices: list):
        return choices[int(self.rng.integers(len(choices)))]

    def whole(self, first: int, last: int) -> int:
        return int(self.rng.integers(first, last + 1))

    def length(self, most: int) -> int:
        """1 to most, as many short as long ones; often beside the end of a tile of 64."""
        if most >= 66 and self.chance(0.2):
            return min(most, 64 * self.whole(1, most // 64) + self.whole(-1, 1))
        return int(math.exp(self.rng.uniform(0, math.log(most + 0.999))))

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape)


def draw_shape(draw: Draw) -> tuple[int, ...]:
    """sequences, KV heads, heads, queries, keys, head_dim, value_dim"""
    while True:
        groups, ratio = draw.among([1, 1, 2, 3, 4, 8]), draw.among([1, 1, 2, 3, 4, 7, 8])
        dim = draw.among(DIMS)
        value_dim = draw.among(DIMS) if draw.chance(0.3) else dim
        sequences, keys = draw.among([1, 1, 2, 3]), draw.length(1100)
        kind = draw.among(["decode", "prompt", "append", "cross"])
        queries = {"decode": 1, "prompt": keys, "append": draw.whole(1, keys), "cross": draw.length(300)}[kind]
        heads = groups * ratio
        numbers = sequences * (queries * heads * (dim + 2 * value_dim) + keys * groups * (dim + value_dim))
        products = sequences * heads * queries * keys * (dim + value_dim)
        if numbers <= MOST_NUMBERS and products <= MOST_PRODUCTS:
            return sequences, groups, heads, queries, keys, dim, value_dim


def draw_mask(draw: Draw, shape: tuple[int, int, int, int]) -> np.ndarray | None:
    """Boolean or additive, of any shape that broadcasts to `shape`, or none."""
    kind = draw.among(["none", "none", "bool", "number"])
    if kind == "none":
        return None
    own = [1 if draw.chance(0.4) else size for size in shape[:3]] + [shape[3]]
    visible = draw.rng.random(own) < draw.among([0.05, 0.5, 0.9, 1.0])
    if draw.chance(0.3):  # rows that see nothing
        visible[draw.rng.random(own[:3]) < 0.3] = False
    return visible if kind == "bool" else np.where(visible, 2 * draw.normal(*own), -np.inf)


def positional(draw: Draw, case: dict, arrays: dict, sequences: int, heads: int, keys: int) -> None:
    """Draws what depends on where queries and keys stand."""
    case["causal"] = draw.chance(0.6)
    if draw.chance(0.25):
        case["window"] = draw.length(keys + 5) - 1
        if draw.chance(0.4):
            case["num_sink_tokens"] = draw.whole(1, 5)
    if draw.chance(0.15):
        case["window_right"] = draw.length(keys + 1) - 1
    if draw.chance(0.1):
        case["chunk_size"] = draw.length(keys + 3)
    if draw.chance(0.1):
        arrays["alibi_slopes"] = draw.rng.uniform(0, 0.2, heads).astype(np.float32)
    if draw.chance(0.1):
        case["floor_scale"], case["strength"] = draw.whole(1, 100), round(draw.rng.uniform(0.05, 0.3), 3)
    lengths = np.full(sequences, keys)
    if draw.chance(0.2):
        lengths = np.array([draw.whole(0, keys) for _ in range(sequences)])
        arrays["key_lengths"] = lengths
    if draw.chance(0.1):
        arrays["prefix_lengths"] = np.array([draw.whole(0, int(length)) for length in lengths])
    if draw.chance(0.1):
        arrays["key_starts"] = np.array([draw.whole(0, int(length)) for length in lengths])


def visible_keys(case: dict, arrays: dict, sequences: int, queries: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """[sequence][query][key] whether it is seen, and [sequence][query] where each query stands."""
    t = np.arange(keys)[None, None, :]

    def of_sequences(name: str, otherwise: int) -> np.ndarray:
        return arrays.get(name, np.full(sequences, otherwise))[:, None, None]

    length, start = of_sequences("key_lengths", keys), of_sequences("key_starts", 0)
    p = length - queries + np.arange(queries)[None, :, None]
    right = np.zeros_like(p + t, bool)
    if case["causal"]:
        right |= t > p
    if "window_right" in case:
        right |= t > p + case["window_right"]
    left = np.zeros_like(right)
    if "window" in case:
        left |= t <= p - case["window"]
    if "chunk_size" in case:
        left |= (p >= start) & (t < p - (p - start) % case["chunk_size"])
    seen = ~(right & (t >= of_sequences("prefix_lengths", 0)))
    seen &= ~(left & (t >= start + case.get("num_sink_tokens", 0)))
    return seen & (t >= start) & (t < length), p[:, :, 0]


def torch_attention(torch, q, k, v, case: dict, arrays: dict, seen, added, factor):
    """[q, k, v in float64] → output, Σ p·|v| and the log-sum-exp."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    scale = case.get("scale", 1 / math.sqrt(q.shape[-1]))
    q = q * factor
    both = torch.cat([v, v.abs()], -1)
    heads, group = q.shape[1], q.shape[1] // k.shape[1]
    scores = scale * (q @ k.repeat_interleave(group, 1).transpose(2, 3))
    if "softcap" in case:
        scores = case["softcap"] * torch.tanh(scores / case["softcap"])
    scores = scores + added
    scores = scores.masked_fill(~seen, -math.inf)
    if "sink_logits" in arrays:
        sink = torch.from_numpy(arrays["sink_logits"]).double().view(1, heads, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sink], -1)
    if "softcap" in case or "sink_logits" in arrays:
        weights = torch.softmax(scores, -1).nan_to_num(0)[..., : k.shape[2]]
        result = weights @ both.repeat_interleave(group, 1)
    else:
        only_hides = not bool((added != 0).any())
        mask = seen.expand(scores.shape) if only_hides else added.expand(scores.shape).masked_fill(~seen, -math.inf)
        with sdpa_kernel(SDPBackend.MATH):
            result = torch.nn.functional.scaled_dot_product_attention(
                q, k, both, attn_mask=mask, scale=scale, enable_gqa=True
            )
    return result[..., : v.shape[-1]], result[..., v.shape[-1] :], torch.logsumexp(scores, -1)


def add_case(torch, writer: CaseWriter, index: int) -> None:
    draw = Draw(index)
    sequences, groups, heads, queries, keys, dim, value_dim = draw_shape(draw)
    case, arrays = {}, {}
    positional(draw, case, arrays, sequences, heads, keys)
    if draw.chance(0.3):
        case["scale"] = float(np.float32(draw.rng.uniform(-0.1, 0.6)))
    if draw.chance(0.2):
        case["softcap"] = float(draw.whole(1, 50))
    if draw.chance(0.15):
        arrays["sink_logits"] = draw.normal(heads).astype(np.float32)
    mask = draw_mask(draw, (sequences, heads, queries, keys))

    def rounded(array: np.ndarray, type_name: str):
        return torch.from_numpy(array).to(getattr(torch, type_name))

    query_type, key_type, value_type, mask_type = (draw.among(TYPES) for _ in range(4))
    q = rounded(draw.normal(sequences, heads, queries, dim), query_type)
    k = rounded(draw.normal(sequences, groups, keys, dim), key_type)
    v = rounded(draw.normal(sequences, groups, keys, value_dim), value_type)

    seen, positions = visible_keys(case, arrays, sequences, queries, keys)
    seen, added = torch.from_numpy(seen)[:, None], torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    if mask is not None and mask.dtype == bool:
        mask = torch.from_numpy(mask)
        seen = seen & mask
    elif mask is not None:
        mask = rounded(mask, mask_type)
        added = mask.double()
        seen = seen & (added > -math.inf)
        added = added.masked_fill(added == -math.inf, 0)
    if "alibi_slopes" in arrays:
        distance = np.abs(positions[:, None, :, None] - np.arange(keys))
        added = added - torch.from_numpy(arrays["alibi_slopes"]).double().view(1, heads, 1, 1) * torch.from_numpy(distance)
    factor = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    if "strength" in case:
        whole = np.floor((positions + 1) / case["floor_scale"])
        temperature = 1 + case["strength"] * np.log1p(np.where(positions < 0, 0, whole))
        factor = torch.from_numpy(temperature)[:, None, :, None]
        case["largest_temperature"] = float(temperature.max())

    output, spread, lse = torch_attention(torch, q.double(), k.double(), v.double(), case, arrays, seen, added, factor)
    if draw.chance(0.3):  # nothing of what no query sees may show
        unseen = ~seen.expand(sequences, heads, queries, keys).unflatten(1, (groups, heads // groups)).any(3).any(2)
        poison = draw.among([math.nan, math.inf, -math.inf])
        k, v = (x.masked_fill(unseen[..., None], poison) for x in (k, v))

    def flat(tensor) -> np.ndarray:
        if tensor.dtype == torch.bfloat16:
            import ml_dtypes

            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.contiguous().numpy()

    tensors = {"q": flat(q), "k": flat(k), "v": flat(v), "output": flat(output), "lse": flat(lse)}
    tensors["spread"] = flat(spread.float())
    if mask is not None:
        tensors["mask"] = flat(mask)
    case["largest_added"] = float(added.abs().max())
    writer.add(f"case_{index:04}", case, tensors | arrays)


def add_cases(writer: CaseWriter) -> None:
    import torch

    torch.set_num_threads(1)
    for index in range(CASES):
        add_case(torch, writer, index)


if __name__ == "__main__":
    sys.exit(write_cases(__doc__.splitlines()[0], ["torch", "ml_dtypes"], add_cases))
