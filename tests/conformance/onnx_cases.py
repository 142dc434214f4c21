# SPDX-License-Identifier: MIT
"""Writes the node tests of the ONNX operator Attention as flat cases: inputs, attributes and the outputs that ONNX
publishes, which are numbers of the case's type computed in it. Beside them, of each output the same by ONNX's reference
implementation in float64 (NAME_f64), and the size that errors of Y are relative to, Σ p·|v| (Y_spread).

Every test has a variant …_expanded, in which the operator is spelled out as a graph of simpler ones; its inputs and
outputs are the same arrays, which is checked here, and it is not counted again."""

from __future__ import annotations

import sys
import warnings

import numpy as np

from case_file import CaseWriter, write_cases

INPUTS = ["Q", "K", "V", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"]
OUTPUTS = ["Y", "present_key", "present_value", "qk_matmul_output"]


def widened(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.name in ("bool", "int64") else array.astype(np.float64)


def named(names: list[str], given: list[str], arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """The operator's names of inputs or outputs that are given; one left out has the name ''."""
    return dict(zip([name for name, own in zip(names, given) if own], arrays, strict=True))


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(first[name].tobytes() == second[name].tobytes() for name in first)


def add_cases(writer: CaseWriter) -> None:
    from onnx import helper
    from onnx.backend.test.case.node import collect_testcases
    from onnx.reference import ReferenceEvaluator

    warnings.filterwarnings("ignore")  # of other operators' tests, as they are made
    tests = {test.name: test for test in collect_testcases("Attention")}
    expanded = 0
    for name, test in tests.items():
        if "_expanded" in name:
            continue
        (node,) = test.model.graph.node
        ((inputs, outputs),) = test.data_sets
        read = named(INPUTS, node.input, inputs)
        written = named(OUTPUTS, node.output, outputs)
        for other_name, other in tests.items():
            if other_name.startswith(name + "_expanded"):
                ((other_inputs, other_outputs),) = other.data_sets
                if not same(read, named(INPUTS, node.input, other_inputs)) or not same(
                    written, named(OUTPUTS, node.output, other_outputs)
                ):
                    raise ValueError(f"{other_name} has other data than {name}")
                expanded += 1

        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        attributes["opset"] = test.model.opset_import[0].version
        evaluator = ReferenceEvaluator(test.model)
        names = [x.name for x in test.model.graph.input]
        exact_inputs = dict(zip(names, map(widened, inputs), strict=True))
        exact = named(OUTPUTS, node.output, evaluator.run(None, exact_inputs))
        absolute = {n: np.abs(x) if n in ("V", "past_value") else x for n, x in exact_inputs.items()}
        spread = evaluator.run(None, absolute)[0]
        tensors = read | written
        tensors |= {f"{n}_f64": np.asarray(x, np.float64) for n, x in exact.items()}
        tensors["Y_spread"] = np.asarray(spread, np.float64)
        writer.add(name.removeprefix("test_"), attributes, tensors)
    print(f"{expanded} expanded variants carry the same data")


if __name__ == "__main__":
    sys.exit(write_cases(__doc__.splitlines()[0], ["onnx"], add_cases))
