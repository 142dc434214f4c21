# SPDX-License-Identifier: MIT
"""OpenVINO's CPU plugin: PagedAttention, which its own serving uses, with each precision of the KV cache; and
ScaledDotProductAttention, stateless over inputs and stateful over a cache that grows. A graph holds Work.per_step
nodes."""

from __future__ import annotations

import math

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from peers import data
from peers.cases import Case
from peers.rivals.base import Prepared, Rival, Unsupported, Work
from peers.rivals.open_vino_paged import REDUCED, TYPES, Paged

PAGED, SDPA, STATEFUL = "PagedAttention", "SDPA", "SDPA, stateful"
FOLDED = ", group as rows"
CAPABILITIES = {"f16": "FP16", "bf16": "BF16"}


class OpenVino(Paged, Rival):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.core = ov.Core()

    def versions(self) -> dict[str, str]:
        return {"openvino": ov.get_version().split("-")[0]}

    def variants(self, case: Case) -> list[str]:
        names = [PAGED]
        if self._reduced(case):
            names.append(PAGED + REDUCED.format(case.storage))
        if not case.shortest:
            if case.storage != "q8" and (case.group == 1 or case.kind != "prefill"):
                names.append(SDPA if case.group == 1 else SDPA + FOLDED)  # the operator has no groups of its own
            if case.kind != "prefill":
                names.append(STATEFUL)
        return names

    def _reduced(self, case: Case) -> bool:
        """Whether this CPU multiplies the storage type itself."""
        return CAPABILITIES.get(case.storage) in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def open(self, work: Work) -> None:
        self.work = work
        self.held: list = []  # memory that tensors point to but do not own

    def close(self) -> None:
        self.work, self.held = None, []

    def prepare(self, variant: str) -> Prepared:
        if variant.startswith(PAGED):
            return self._paged(REDUCED.format(self.work.case.storage) in variant)
        if variant == STATEFUL:
            return self._stateful()
        return self._stateless(variant.endswith(FOLDED))

    def _compile(self, results: list, parameters: list, arithmetic: ov.Type, sinks: list = []) -> ov.CompiledModel:
        storage = TYPES[self.work.case.storage]
        model = ov.Model(results, sinks, parameters, "attention")
        return self.core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": self.threads,
                "NUM_STREAMS": 1,
                "PERFORMANCE_HINT": "LATENCY",
                "ENABLE_CPU_PINNING": False,
                "INFERENCE_PRECISION_HINT": arithmetic,
                "KV_CACHE_PRECISION": storage,
            },
        )

    def _prepared(self, requests: list, output, **rest) -> Prepared:
        def step(request):
            start, wait = request.start_async, request.wait

            def run() -> None:
                start()
                wait()

            return run

        return Prepared([step(request) for request in requests], output, **rest)

    # ScaledDotProductAttention over keys and values as inputs [sequence][kv_head][kv][dim].

    def _stateless(self, folded: bool) -> Prepared:
        work, case = self.work, self.work.case
        q = work.by_head("q")
        if folded:
            q = q.reshape(case.batch, case.kv_heads, case.group * case.new, case.dim)
        arrays = {f"q{i}": q for i in range(work.per_step)}
        if case.kind == "append":
            visible = np.tile(work.past_visible, (q.shape[2] // case.new, 1))
            arrays["mask"] = np.where(visible, 0, -math.inf).astype(np.float32)[None, None]
        arrays = {name: self._tensor(array) for name, array in arrays.items()}
        k, v = (self._tensor(work.by_head(name)) for name in "kv")
        parameters, results = [], []

        def parameter(name: str, tensor: ov.Tensor):
            made = ops.parameter(list(tensor.shape), tensor.element_type, name)
            made.output(0).get_tensor().set_names({name})
            parameters.append(made)
            return made

        mask = [parameter("mask", arrays["mask"])] if "mask" in arrays else []
        for i in range(work.per_step):
            inputs = [parameter(f"{name}{i}", tensor) for name, tensor in (("q", arrays[f"q{i}"]), ("k", k), ("v", v))]
            node = ops.scaled_dot_product_attention(*inputs, *mask, causal=case.kind == "prefill")
            results.append(ops.result(node.output(0)))
        compiled = self._compile(results, parameters, k.element_type)
        requests, layers = [], []
        for step in range(work.steps):
            request = compiled.create_infer_request()
            for name, tensor in arrays.items():
                request.set_tensor(name, tensor)
            for i, layer in enumerate(work.step_layers(step)):
                while len(layers) <= layer:
                    layers.append(tuple(self._copy(x) for x in (k, v)))
                request.set_tensor(f"k{i}", layers[layer][0])
                request.set_tensor(f"v{i}", layers[layer][1])
            requests.append(request)

        def output() -> np.ndarray:
            tensor = requests[0].get_output_tensor(work.per_step - 1)
            values = (
                data.from_bf16_bits(tensor.data.view(np.uint16)) if tensor.element_type == ov.Type.bf16 else tensor.data
            )
            return values.reshape(case.batch, case.heads, case.new, case.dim).transpose(0, 2, 1, 3)

        return self._prepared(requests, output)

    def _tensor(self, array: np.ndarray) -> ov.Tensor:
        """In the storage type, in memory of its own."""
        tensor = ov.Tensor(TYPES[self.work.case.storage], ov.Shape(list(array.shape)))
        if self.work.case.storage == "bf16":
            tensor.data[:] = data.bf16_bits(array).view(tensor.data.dtype)
        else:
            tensor.data[:] = array
        return tensor

    @staticmethod
    def _copy(tensor: ov.Tensor) -> ov.Tensor:
        result = ov.Tensor(tensor.element_type, tensor.shape)
        tensor.copy_to(result)
        return result

    # ScaledDotProductAttention over variables, to which each call appends. Every turn starts from the case's length and
    # may let it grow by a hundredth. A variable that was set has no room, so an untimed call makes some first.

    def _stateful(self) -> Prepared:
        work, case = self.work, self.work.case
        q, k, v = (work.by_head(name) for name in "qkv")
        new = {
            "q": q,
            "k": np.ascontiguousarray(k[:, :, case.kv - case.new :]),
            "v": np.ascontiguousarray(v[:, :, case.kv - case.new :]),
        }
        if case.kv < 3 * case.new:
            raise Unsupported("timed where the past is longer than the new tokens")
        last_but_one = slice(case.kv - 2 * case.new, case.kv - case.new)
        before = {name: np.ascontiguousarray(x[:, :, last_but_one]) for name, x in (("k", k), ("v", v))}
        past = {
            name: ov.Tensor(np.ascontiguousarray(x[:, :, : case.kv - 2 * case.new])) for name, x in (("k", k), ("v", v))
        }
        parameters, results, sinks = [], [], []

        def parameter(name: str, type_: ov.Type, shape: list[int]):
            made = ops.parameter(shape, type_, name)
            made.output(0).get_tensor().set_names({name})
            parameters.append(made)
            return made

        order = parameter("beam_idx", ov.Type.i32, [case.batch])
        empty = ops.constant(np.zeros((case.batch, case.kv_heads, 0, case.dim), np.float32))

        def grown(name: str, i: int):
            """All keys or values so far, repeated for the query heads that share them."""
            shape = [case.batch, case.kv_heads, -1, case.dim]
            variable = f"past_{name}{i}"
            old = ops.gather(
                ops.read_value(empty, variable, ov.Type.f32, ov.PartialShape(shape)), order, ops.constant(0)
            )
            now = ops.concat([old, parameter(f"{name}{i}", ov.Type.f32, list(new[name].shape))], 2)
            sinks.append(ops.assign(now, variable))
            if case.group == 1:
                return now
            repeated = ops.broadcast(
                ops.unsqueeze(now, ops.constant(2)),
                ops.constant([1, 1, case.group, 1, 1]),
                broadcast_spec="BIDIRECTIONAL",
            )
            return ops.reshape(repeated, ops.constant([0, case.heads, -1, case.dim]), special_zero=True)

        for i in range(work.per_step):
            node = ops.scaled_dot_product_attention(
                parameter(f"q{i}", ov.Type.f32, list(q.shape)),
                grown("k", i),
                grown("v", i),
                *([parameter(f"mask{i}", ov.Type.f32, [1, 1, case.new, -1])] if case.new > 1 else []),
            )
            results.append(ops.result(node.output(0)))
        compiled = self._compile(results, parameters, ov.Type.f32, sinks)
        mask = np.where(work.past_visible, 0, -math.inf).astype(np.float32)[None, None]
        calls = []  # the inputs of the untimed call, and of those that are timed
        for arrays, length in ((before, case.kv - case.new), (new, case.kv)):
            values = {"beam_idx": np.arange(case.batch, dtype=np.int32)}
            for i in range(work.per_step):
                values |= {f"q{i}": q} | {f"{name}{i}": arrays[name] for name in "kv"}
                values |= {f"mask{i}": np.ascontiguousarray(mask[..., case.kv - length :])} if case.new > 1 else {}
            calls.append({name: ov.Tensor(array, shared_memory=True) for name, array in values.items()})
            self.held.append(values)
        requests = []
        for _ in range(work.steps):
            request = compiled.create_infer_request()
            requests.append(
                (request, [(state, past[state.name.removeprefix("past_")[0]]) for state in request.query_state()])
            )

        def begin() -> None:
            for request, states in requests:
                for state, value in states:
                    state.state = value
                for inputs in calls:
                    for name, tensor in inputs.items():
                        request.set_tensor(name, tensor)
                    if inputs is calls[0]:
                        request.infer()

        output = lambda: requests[0][0].get_output_tensor(work.per_step - 1).data.transpose(0, 2, 1, 3)
        # a mask is made for one length, so no request may run twice in a turn where there is one
        growth = 1 if case.new > 1 else max(1, case.kv // 100)
        return self._prepared(
            [request for request, _ in requests],
            output,
            appends=True,
            begin=begin,
            from_first=True,
            most_steps=growth * work.steps,
        )
