# SPDX-License-Identifier: MIT
"""ONNX Runtime: com.microsoft.GroupQueryAttention with its cache as shared past and present buffers (8-bit ones too);
com.microsoft.MultiHeadAttention and ai.onnx Attention over the whole keys and values, also with the query heads that
share a KV head made rows. Inputs and outputs are bound once; a graph holds Work.per_step nodes."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from peers.cases import Case
from peers.rivals.base import Prepared, Rival, Unsupported, Work

GQA, MHA, ATTENTION = "GroupQueryAttention", "MultiHeadAttention", "Attention"
FOLDED = ", group as rows"
NUMPY = {"f32": np.float32, "f16": np.float16, "q8": np.float32}
ONNX = {
    np.float32: TensorProto.FLOAT,
    np.float16: TensorProto.FLOAT16,
    np.int8: TensorProto.INT8,
    np.int32: TensorProto.INT32,
}


class Graph:
    """Nodes over named inputs and outputs, each bound to memory of ours."""

    def __init__(self) -> None:
        self.nodes, self.inputs, self.outputs = [], {}, {}  # names to arrays

    def node(self, op: str, inputs: list[str], outputs: list[str], **attributes) -> None:
        domain = "" if op == ATTENTION else "com.microsoft"
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))

    def session(self, threads: int) -> onnxruntime.InferenceSession:
        described = [
            [helper.make_tensor_value_info(name, ONNX[array.dtype.type], array.shape) for name, array in values.items()]
            for values in (self.inputs, self.outputs)
        ]
        graph = helper.make_graph(self.nodes, "attention", *described)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)], ir_version=10
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class OnnxRuntime(Rival):
    def versions(self) -> dict[str, str]:
        return {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}

    def variants(self, case: Case) -> list[str]:
        if case.storage == "bf16":
            return []
        if case.storage == "q8":
            return [GQA]
        names = [GQA, ATTENTION] + ([MHA] if case.group == 1 and case.storage == "f32" else [])
        if case.group > 1 and case.kind != "prefill":
            names += [ATTENTION + FOLDED] + ([MHA + FOLDED] if case.storage == "f32" else [])
        return names

    def open(self, work: Work) -> None:
        self.work = work
        self.type = NUMPY[work.case.storage]
        k, v = work.by_head("k"), work.by_head("v")
        if work.case.storage == "q8":
            self.scales = {name: np.abs(x).max(axis=(0, 2), keepdims=True) / 127 for name, x in (("k", k), ("v", v))}
            k, v = (np.rint(x / self.scales[name]).astype(np.int8) for name, x in (("k", k), ("v", v)))
        else:
            k, v = k.astype(self.type, copy=False), v.astype(self.type, copy=False)
        self.layers = [(k.copy(), v.copy()) for _ in range(work.layers)]  # [sequence][kv_head][kv][dim]
        self.out = None

    def close(self) -> None:
        self.work = self.layers = self.out = None

    def prepare(self, variant: str) -> Prepared:
        op, folded = variant.removesuffix(FOLDED), variant.endswith(FOLDED)
        work, case = self.work, self.work.case
        if case.shortest and op != GQA:
            raise Unsupported("sequences of unequal lengths are served by GroupQueryAttention only")
        build = {GQA: self._gqa, MHA: self._mha, ATTENTION: self._attention}[op]
        graph = Graph()
        for i in range(work.per_step):
            build(graph, str(i), folded)
        session = graph.session(self.threads)
        names = [node.name for node in session.get_inputs()]
        bindings = [self._bound(session, graph, names, step) for step in range(work.steps)]
        self.out = graph.outputs[f"out{work.per_step - 1}"]
        steps = [lambda binding=binding: session.run_with_iobinding(binding) for binding in bindings]
        return Prepared(steps, lambda: self._output(op, folded), appends=op == GQA)

    def _bound(self, session, graph: Graph, names: list[str], step: int):
        """k0, v0, … are the layers of this step; where presents are outputs, they are the same memory."""
        binding = session.io_binding()
        values = dict(graph.inputs)
        for i, layer in enumerate(self.work.step_layers(step)):
            k, v = self.layers[layer]
            values[f"k{i}"], values[f"v{i}"] = k.reshape(values[f"k{i}"].shape), v.reshape(values[f"v{i}"].shape)
        held = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in values.items() if name in names
        }
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        for name, array in graph.outputs.items():
            value = (
                held[name.removeprefix("present_")]
                if name.startswith("present_")
                else onnxruntime.OrtValue.ortvalue_from_numpy(array)
            )
            binding.bind_ortvalue_output(name, value)
        return binding

    def _gqa(self, graph: Graph, i: str, _folded: bool) -> None:
        """Takes the new tokens' keys and values apart from those of the past, and stores them behind it."""
        case, arrays = self.work.case, self.work.arrays
        flat = lambda x: np.ascontiguousarray(x).reshape(case.batch, case.new, -1).astype(self.type)
        rows = [slice(length - case.new, length) for length in case.lengths]
        for name in "kv":
            graph.inputs[f"new_{name}{i}"] = flat(np.stack([arrays[name][b, r] for b, r in enumerate(rows)]))
            graph.inputs[f"{name}{i}"] = graph.outputs[f"present_{name}{i}"] = self.layers[0]["kv".index(name)]
        graph.inputs[f"q{i}"] = flat(arrays["q"])
        graph.inputs["seqlens_k"] = np.array(case.lengths, np.int32) - 1
        graph.inputs["total"] = np.array(case.kv, np.int32).reshape(1)
        graph.outputs[f"out{i}"] = np.full(graph.inputs[f"q{i}"].shape, np.nan, self.type)
        inputs = [f"q{i}", f"new_k{i}", f"new_v{i}", f"k{i}", f"v{i}", "seqlens_k", "total"]
        attributes = {}
        if case.storage == "q8":
            for name in "kv":
                graph.inputs[f"scale_{name}"] = self.scales[name].astype(np.float32)
            inputs += [""] * 5 + ["scale_k", "scale_v"]
            attributes = {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
        graph.node(
            GQA,
            inputs,
            [f"out{i}", f"present_k{i}", f"present_v{i}"],
            num_heads=case.heads,
            kv_num_heads=case.kv_heads,
            **attributes,
        )

    def _queries(self, folded: bool) -> np.ndarray:
        """[sequence][head][new][dim], or [sequence][kv_head][group · new][dim]."""
        case = self.work.case
        q = self.work.by_head("q").astype(self.type)
        return q.reshape(case.batch, case.kv_heads, case.group * case.new, case.dim) if folded else q

    def _mask(self, rows: int) -> np.ndarray:
        """Added to scores: [1][1][rows][kv]."""
        visible = np.tile(self.work.past_visible, (rows // self.work.case.new, 1))
        return np.where(visible, 0, -math.inf).astype(self.type)[None, None]

    def _keys(self, graph: Graph, i: str) -> None:
        graph.inputs[f"k{i}"], graph.inputs[f"v{i}"] = self.layers[0]

    def _attention(self, graph: Graph, i: str, folded: bool) -> None:
        case, q = self.work.case, self._queries(folded)
        self._keys(graph, i)
        graph.inputs[f"q{i}"] = q
        graph.outputs[f"out{i}"] = np.full(q.shape, np.nan, self.type)
        inputs = [f"q{i}", f"k{i}", f"v{i}"]
        if case.kind == "append":
            graph.inputs["mask"] = self._mask(q.shape[2])
            inputs.append("mask")
        graph.node(ATTENTION, inputs, [f"out{i}"], is_causal=int(case.kind == "prefill"))

    def _mha(self, graph: Graph, i: str, folded: bool) -> None:
        case, q = self.work.case, self._queries(folded)
        self._keys(graph, i)
        heads = q.shape[1]
        graph.inputs[f"q{i}"] = np.ascontiguousarray(q.transpose(0, 2, 1, 3)).reshape(case.batch, q.shape[2], -1)
        graph.outputs[f"out{i}"] = np.full(graph.inputs[f"q{i}"].shape, np.nan, self.type)
        inputs = [f"q{i}", f"k{i}", f"v{i}"]
        if case.kind == "append":
            graph.inputs["mask"] = self._mask(q.shape[2])
            inputs += ["", "", "mask"]
        graph.node(MHA, inputs, [f"out{i}"], num_heads=heads, unidirectional=int(case.kind == "prefill"))

    def _output(self, op: str, folded: bool) -> np.ndarray:
        case, out = self.work.case, self.out.astype(np.float32)
        if op == GQA or (op == MHA and not folded):
            return out.reshape(case.batch, case.new, case.heads, case.dim)
        if op == MHA:  # [sequence][group · new][kv_head][dim]
            out = out.reshape(case.batch, case.group * case.new, case.kv_heads, case.dim).transpose(0, 2, 1, 3)
        return out.reshape(case.batch, case.heads, case.new, case.dim).transpose(0, 2, 1, 3)
