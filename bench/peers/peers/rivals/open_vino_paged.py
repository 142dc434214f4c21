# SPDX-License-Identifier: MIT
"""OpenVINO's PagedAttention: pages of all sequences of a layer in one tensor, in the CPU plugin's own layout and
precision."""

from __future__ import annotations

import math

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from openvino.op import _PagedAttentionExtension

from peers.rivals.base import Prepared, Work

REDUCED = ", {} arithmetic"
TYPES = {"f32": ov.Type.f32, "f16": ov.Type.f16, "bf16": ov.Type.bf16, "q8": ov.Type.u8}
BLOCK = 32  # tokens of a page of the CPU plugin


def constant(values, type_: ov.Type, shape: list[int]):
    return ops.constant(np.array(values).reshape(shape), dtype=type_)


class Paged:
    """A part of OpenVino, which compiles its models and holds its memory."""

    work: Work
    held: list

    def _paged(self, reduced: bool) -> Prepared:
        work, case = self.work, self.work.case
        arithmetic = TYPES[case.storage] if reduced else ov.Type.f32
        compiled = self._compile(*self._paged_model(work.per_step), arithmetic)
        pages = [math.ceil(length / BLOCK) for length in case.lengths]
        first = np.concatenate([[0], np.cumsum(pages)]).astype(np.int32)
        caches = self._filled_pages(compiled, pages, first)
        lengths = np.array(case.lengths, np.int32)
        shared = {
            "past_lens": lengths - case.new,
            "subsequence_begins": np.arange(case.batch + 1, dtype=np.int32) * case.new,
            "block_indices": np.arange(first[-1], dtype=np.int32),
            "block_indices_begins": first,
            "max_context_len": np.array(case.kv, np.int32),
        }
        new = {
            name: np.concatenate(
                [work.arrays[name][b, length - case.new : length] for b, length in enumerate(case.lengths)]
            )
            for name in "kv"
        }
        new["q"] = np.array(work.arrays["q"])
        for name, array in new.items():
            for i in range(work.per_step):
                shared[f"{name}{i}"] = array.reshape(case.batch * case.new, -1)
        self.held.append(shared)
        requests = []
        for step in range(work.steps):
            request = compiled.create_infer_request()
            for name, array in shared.items():
                request.set_tensor(name, ov.Tensor(array, shared_memory=True))
            for i, layer in enumerate(work.step_layers(step)):
                request.set_tensor(f"key_cache{i}", caches[layer][0])
                request.set_tensor(f"value_cache{i}", caches[layer][1])
            requests.append(request)
        output = (
            lambda: requests[0]
            .get_output_tensor(work.per_step - 1)
            .data.reshape(case.batch, case.new, case.heads, case.dim)
        )
        return self._prepared(requests, output, appends=True)

    def _paged_model(self, nodes: int) -> tuple[list, list]:
        case = self.work.case
        parameters, results = [], []

        def parameter(name: str, type_: ov.Type, shape: list[int]):
            made = ops.parameter(shape, type_, name)
            made.output(0).get_tensor().set_names({name})
            parameters.append(made)
            return made

        integer = ov.Type.i32
        lengths = [
            parameter(name, integer, [-1])
            for name in ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")
        ]
        longest = parameter("max_context_len", integer, [])
        for i in range(nodes):
            q = parameter(f"q{i}", ov.Type.f32, [-1, case.heads * case.dim])
            k = parameter(f"k{i}", ov.Type.f32, [-1, case.kv_heads * case.dim])
            v = parameter(f"v{i}", ov.Type.f32, [-1, case.kv_heads * case.dim])
            caches = [
                parameter(f"{name}{i}", ov.Type.dynamic, [-1, case.kv_heads, -1, -1])
                for name in ("key_cache", "value_cache")
            ]
            none = lambda type_: constant(np.zeros(0), type_, [0])
            node = _PagedAttentionExtension(
                [
                    x.output(0)
                    for x in (
                        q,
                        k,
                        v,
                        *caches,
                        *lengths,
                        constant(1 / math.sqrt(case.dim), ov.Type.f32, []),  # scale
                        constant(0, integer, []),  # sliding window: none
                        none(ov.Type.f32),  # ALiBi slopes
                        longest,
                        none(integer),  # score aggregation window: none
                        none(integer),
                        none(integer),
                        none(ov.Type.f32),  # rotated blocks: indices, deltas, table
                        none(ov.Type.f32),
                        constant(0, integer, []),
                        constant(0, integer, []),  # XAttention: threshold, block, stride
                        none(ov.Type.f32),  # sinks
                        constant(0, integer, []),
                        none(integer),
                        none(integer),
                        none(integer),  # eviction by diversity
                        none(integer),  # token types
                        none(ov.Type.u8),
                        none(integer),  # tree masks
                    )
                ]
            )
            info = node.get_rt_info()
            for side in "kv":
                info[f"num_{side}_heads"], info[f"{side}_head_size"] = case.kv_heads, case.dim
            results.append(ops.result(node.output(0)))
        return results, parameters

    def _filled_pages(self, compiled: ov.CompiledModel, pages: list[int], first: np.ndarray) -> list[tuple]:
        """The cache tensors of each layer. The plugin itself writes them, given each page as a sequence of its own, so
        that filling takes no attention over long sequences."""
        work, case = self.work, self.work.case
        ports = [compiled.input(f"{name}0") for name in ("key_cache", "value_cache")]
        shapes = [[int(first[-1])] + [d.get_length() for d in list(port.get_partial_shape())[1:]] for port in ports]
        make = lambda: tuple(ov.Tensor(port.get_element_type(), ov.Shape(shape)) for port, shape in zip(ports, shapes))
        source = make()
        counts = [min(BLOCK, length - page * BLOCK) for length, n in zip(case.lengths, pages) for page in range(n)]
        total = sum(counts)
        request = compiled.create_infer_request()
        rows = {
            name: np.concatenate([work.arrays[name][b, :length] for b, length in enumerate(case.lengths)])
            for name in "kv"
        }
        values = {
            "past_lens": np.zeros(len(counts), np.int32),
            "subsequence_begins": np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            "block_indices": np.arange(len(counts), dtype=np.int32),
            "block_indices_begins": np.arange(len(counts) + 1, dtype=np.int32),
            "max_context_len": np.array(BLOCK, np.int32),
        }
        for i in range(work.per_step):
            values[f"q{i}"] = np.zeros((total, case.heads * case.dim), np.float32)
            for name in "kv":
                values[f"{name}{i}"] = rows[name].reshape(total, -1)
        for name, array in values.items():
            request.set_tensor(name, ov.Tensor(array, shared_memory=True))
        for i in range(work.per_step):  # nodes after the first write the same again
            request.set_tensor(f"key_cache{i}", source[0])
            request.set_tensor(f"value_cache{i}", source[1])
        request.infer()
        layers = [source]
        while len(layers) < work.layers:
            layer = make()
            for mine, its in zip(layer, source):
                mine.copy_from(its)
            layers.append(layer)
        return layers
