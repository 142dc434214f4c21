# SPDX-License-Identifier: MIT
"""Writes 300 random calls of ONNX Runtime's operator com.microsoft.GroupQueryAttention on its CPU provider with what it
gives. Case i is drawn from a generator seeded with i alone.

The operator computes in the type of its inputs: float, or float16. Where its inputs are packed (query, key and value in
one), the file holds them apart."""

from __future__ import annotations

import math
import sys

import numpy as np

from case_file import CaseWriter, write_cases

CASES = 300
INPUTS = [
    *("query", "key", "value", "past_key", "past_value", "seqlens_k", "total_sequence_length"),
    *("cos_cache", "sin_cache", "position_ids", "attention_bias", "head_sink"),
]
OUTPUTS = ["output", "present_key", "present_value"]
ROPE_BASE = 10000.0


def run(inputs: dict[str, np.ndarray], attributes: dict) -> list[np.ndarray]:
    import onnxruntime
    from onnx import helper

    last = max(i for i, name in enumerate(INPUTS) if name in inputs)
    names = [name if name in inputs else "" for name in INPUTS[: last + 1]]
    node = helper.make_node("GroupQueryAttention", names, OUTPUTS, domain="com.microsoft", **attributes)

    def info(name: str, shape, type_of: np.dtype):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(type_of), shape)

    graph = helper.make_graph(
        [node],
        "attention",
        [info(name, x.shape, x.dtype) for name, x in inputs.items()],
        [info(name, None, inputs["query"].dtype) for name in OUTPUTS],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def add_case(writer: CaseWriter, index: int) -> None:
    rng = np.random.default_rng([index, 11])

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    def among(choices: list):
        return choices[int(rng.integers(len(choices)))]

    def whole(first: int, last: int) -> int:
        return int(rng.integers(first, last + 1))

    number = among([np.float32, np.float32, np.float16])

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(number)

    kind = among(["prompt", "decode", "append"])
    groups, dim = among([1, 2, 3, 4]), among([16, 32, 48, 64, 80, 96, 128])
    heads = groups * among([ratio for ratio in (1, 2, 3, 4, 7) if ratio * groups * dim <= 768] or [1])
    sequences = 1 if kind == "append" else whole(1, 3)
    tokens = {"prompt": whole(2, 150), "decode": 1, "append": whole(2, 40)}[kind]
    past = {"prompt": 0, "decode": whole(1, 300), "append": whole(1, 200)}[kind]
    # tokens of each sequence with those of this call: prompts end with padding, pasts differ in length
    if kind == "prompt":
        totals = np.array([whole(1, tokens) for _ in range(sequences)])
    else:
        totals = np.array([whole(1, past) for _ in range(sequences)]) + tokens
    totals[whole(0, sequences - 1)] = past + tokens
    total = int(totals.max())

    attributes = {"num_heads": heads, "kv_num_heads": groups}
    if chance(0.3):
        attributes["scale"] = round(rng.uniform(0.05, 0.4), 4)
    if chance(0.25):
        attributes["softcap"] = float(whole(1, 50))
    if chance(0.3):
        attributes["local_window_size"] = whole(1, total)
    elif chance(0.15):
        attributes["causal"] = 0
    inputs = {
        "query": normal(sequences, tokens, heads * dim),
        "key": normal(sequences, tokens, groups * dim),
        "value": normal(sequences, tokens, groups * dim),
        "past_key": normal(sequences, groups, past, dim),
        "past_value": normal(sequences, groups, past, dim),
        "seqlens_k": (totals - 1).astype(np.int32),
        "total_sequence_length": np.array([total], np.int32),
    }
    if chance(0.5):
        attributes["do_rotary"] = 1
        attributes["rotary_interleaved"] = int(chance(0.5))
        rotary = among([dim, dim // 2 // 16 * 16 or 16])
        angles = np.arange(total)[:, None] * ROPE_BASE ** -(np.arange(0, rotary, 2) / rotary)
        inputs["cos_cache"], inputs["sin_cache"] = np.cos(angles).astype(number), np.sin(angles).astype(number)
    sinks = among(["none", "none", "smooth", "per head"])
    if sinks == "smooth":
        attributes["smooth_softmax"] = 1
    elif sinks == "per head":
        inputs["head_sink"] = normal(heads)
    if chance(0.2):
        inputs["attention_bias"] = normal(among([1, sequences]), among([1, heads]), tokens, total)

    given = dict(inputs)
    if chance(0.3):  # packed
        q, k, v = (given.pop(name) for name in ("query", "key", "value"))
        given = {"query": np.concatenate([q, k, v], -1)} | given
    output, present_key, present_value = run(given, attributes)
    absolute = {name: np.abs(x) if name in ("value", "past_value") else x for name, x in inputs.items()}
    spread = run(absolute, attributes)[0]

    tensors = inputs | {"output": output, "spread": spread.astype(np.float32)}
    tensors |= {"present_key": present_key, "present_value": present_value}
    if "cos_cache" in tensors:
        attributes["rotary_dim"] = 2 * tensors["cos_cache"].shape[1]
    writer.add(f"case_{index:03}_{kind}", attributes, tensors)


def add_cases(writer: CaseWriter) -> None:
    for index in range(CASES):
        add_case(writer, index)


if __name__ == "__main__":
    sys.exit(write_cases(__doc__.splitlines()[0], ["onnx", "onnxruntime"], add_cases))
