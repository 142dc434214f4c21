# SPDX-License-Identifier: MIT
"""ggml's CPU backend, the tensor library of llama.cpp, through ctypes: flash_attn_ext as llama.cpp calls it, the same
with the query heads that share a KV head made rows, and two mul_mat with a softmax between. A graph holds Work.per_step
layers and is built and planned once; only its computation is timed."""

from __future__ import annotations

import ctypes
import math
import pathlib
from ctypes import POINTER, byref, c_float, c_uint8, c_void_p

import numpy as np

from peers import data
from peers.cases import Case
from peers.rivals.base import Prepared, Rival, Unsupported, Work
from peers.rivals.ggml_api import SIGNATURES, InitParams, ThreadpoolParams

FLASH, FOLDED, MATMUL = "flash_attn_ext", "flash_attn_ext, group as rows", "mul_mat, group as rows"
TYPES = {"f32": 0, "f16": 1, "q8": 8, "bf16": 30}  # q8: Q8_0, blocks of 32 numbers with a scale
F32, F16 = TYPES["f32"], TYPES["f16"]
MOST_SCORES = 2**29  # bytes of a score matrix
NODE_BYTES = 2**14  # of a tensor's and its graph entries' descriptions, more than enough


class Ggml(Rival):
    def __init__(self, threads: int, folder: str) -> None:
        super().__init__(threads)
        for library, functions in SIGNATURES.items():
            lib = ctypes.CDLL(str(pathlib.Path(folder) / f"libggml-{library}.so"), ctypes.RTLD_GLOBAL)
            for name, (result, arguments) in functions.items():
                function = getattr(lib, f"ggml_{name}")
                function.restype, function.argtypes = result, arguments
                setattr(self, name, function)
        self.cpu_init()
        params = ThreadpoolParams()
        self.threadpool_params_init(byref(params), threads)
        self.threadpool = self.threadpool_new(byref(params))
        self.contexts: dict[str, list[int]] = {}  # by variant, or by what layers are for
        self.data_offset = self._find_data_offset()

    def versions(self) -> dict[str, str]:
        return {"ggml": self.version().decode()}

    def variants(self, case: Case) -> list[str]:
        return [FLASH] + ([FOLDED] if case.group > 1 else []) + [MATMUL]

    def open(self, work: Work) -> None:
        self.work, self.type = work, TYPES[work.case.storage]
        if work.case.dim % 32 and work.case.storage == "q8":
            raise Unsupported("Q8_0 stores 32 numbers at a time")
        self.layers: dict[str, list] = {}
        self.users = {"flash": 0, "matmul": 0}
        self.scratch, self.held = np.empty(0, np.uint8), []  # the last of held; earlier plans point into earlier ones

    def close(self) -> None:
        for owner in list(self.contexts):
            self._free(owner)
        self.work, self.layers, self.scratch, self.held = None, {}, None, []

    def prepare(self, variant: str) -> Prepared:
        work, case = self.work, self.work.case
        if variant == MATMUL:
            if case.batch * case.heads * case.new * case.kv * 4 > MOST_SCORES:
                raise Unsupported("its score matrix is larger than 512 MiB")
            if case.storage == "q8" and any(length % 32 for length in case.lengths):
                raise Unsupported("Q8_0 stores 32 numbers at a time, here along the tokens")
        kind = "matmul" if variant == MATMUL else "flash"
        layers = self._layers(kind)
        self.users[kind] += 1
        steps, outputs = self._graphs(
            variant, [[layers[i] for i in work.step_layers(step)] for step in range(work.steps)]
        )

        def end() -> None:
            self._free(variant)
            self.users[kind] -= 1
            if not self.users[kind]:
                self._free(kind)
                self.layers.pop(kind)

        return Prepared(steps, lambda: self._output(outputs, variant), end=end)

    def _parts(self) -> list[tuple[int, int, int]]:
        """Sequences that one node takes: first, number, length. Those of unequal lengths have a node each."""
        case = self.work.case
        if not case.shortest:
            return [(0, case.batch, case.kv)]
        return [(b, 1, length) for b, length in enumerate(case.lengths)]

    def _context(self, owner: str, size: int, no_alloc: bool = False) -> int:
        context = self.init(InitParams(size, None, no_alloc))
        if not context:
            raise MemoryError(f"ggml has no {size} bytes")
        self.contexts.setdefault(owner, []).append(context)
        return context

    def _free(self, owner: str) -> None:
        for context in self.contexts.pop(owner, []):
            self.free(context)

    def _find_data_offset(self) -> int:
        """Where a tensor's description holds the address of its numbers."""
        tensor = self.new_tensor_4d(self._context("probe", 2**16), F32, 1, 1, 1, 1)
        words = (c_void_p * (self.tensor_overhead() // 8)).from_address(tensor)
        offset = 8 * list(words).index(self.get_data(tensor))
        self._free("probe")
        return offset

    def _stored(self, context: int, array: np.ndarray, type_: int) -> int:
        """A tensor of these numbers; its dimensions are those of the array from the last to the first."""
        tensor = self.new_tensor_4d(context, type_, *reversed(array.shape))
        if type_ == TYPES["q8"]:
            array = np.ascontiguousarray(array, np.float32)
            self.quantize_chunk(
                type_,
                array.ctypes.data_as(POINTER(c_float)),
                self.get_data(tensor),
                0,
                array.size // array.shape[-1],
                array.shape[-1],
                None,
            )
            return tensor
        if type_ == TYPES["bf16"]:
            array = data.bf16_bits(array)
        else:
            array = np.ascontiguousarray(array, {F32: np.float32, F16: np.float16}[type_])
        ctypes.memmove(self.get_data(tensor), array.ctypes.data, array.nbytes)
        return tensor

    def _layers(self, kind: str) -> list[list[tuple[int, int]]]:
        """Of each layer, of each part: K [dim, kv, kv_head, sequence], and V likewise or, for matmul, as [kv, dim,
        …]."""
        if kind in self.layers:
            return self.layers[kind]
        transposed = kind == "matmul"
        work, parts = self.work, self._parts()
        k, v = work.by_head("k"), work.by_head("v")
        arrays = []
        for first, count, length in parts:
            one_k, one_v = (x[first : first + count, :, :length] for x in (k, v))
            arrays.append((one_k, one_v.swapaxes(2, 3) if transposed else one_v))
        size = sum(
            2 * (self.row_size(self.type, x.shape[-1]) * (x.size // x.shape[-1]) + NODE_BYTES)
            for pair in arrays
            for x in pair[:1]
        )
        first = [
            tuple(self._stored(context, x, self.type) for x in pair)
            for context in [self._context(kind, size)]
            for pair in arrays
        ]
        layers = [first]
        while len(layers) < work.layers:
            context = self._context(kind, size)
            layer = []
            for pair, sources in zip(arrays, first):
                tensors = tuple(self.new_tensor_4d(context, self.type, *reversed(x.shape)) for x in pair)
                for tensor, source in zip(tensors, sources):
                    ctypes.memmove(self.get_data(tensor), self.get_data(source), self.nbytes(source))
                layer.append(tensors)
            layers.append(layer)
        self.layers[kind] = layers
        return layers

    def _graphs(self, variant: str, steps: list[list]) -> tuple[list, list[int]]:
        """For each step a call without arguments that is attention over its layers; and the output tensors, one for
        each part. Queries, mask, scores and outputs are the same memory in all of them, as a graph allocator would have
        it."""
        work, case, parts = self.work, self.work.case, self._parts()
        folded = variant != FLASH
        heads, rows = (case.kv_heads, case.group * case.new) if folded else (case.heads, case.new)
        q = work.by_head("q").reshape(case.batch, heads, rows, case.dim)
        longest = max(count * length for _, count, length in parts)
        scores_bytes = heads * rows * longest * 4 if variant == MATMUL else 0
        shared = self._context(
            variant, 2 * q.nbytes + scores_bytes + rows * case.kv * 2 + (3 * len(parts) + 3) * NODE_BYTES
        )
        queries = [self._stored(shared, q[first : first + count], F32) for first, count, _ in parts]
        outputs = [
            self.new_tensor_4d(shared, F32, *reversed(q[first : first + count].shape)) for first, count, _ in parts
        ]
        scores = self.new_tensor_4d(shared, F32, scores_bytes // 4, 1, 1, 1) if scores_bytes else None
        mask = None
        if case.new > 1:
            visible = np.tile(work.past_visible, (rows // case.new, 1))
            mask = self._stored(shared, np.where(visible, 0, -math.inf)[None, None], F16)
        nodes = max(len(layers) for layers in steps) * len(parts)
        scale, runs = 1 / math.sqrt(case.dim), []
        for layers in steps:
            context = self._context(variant, nodes * 8 * NODE_BYTES + 2**20, no_alloc=True)
            graph = self.new_graph_custom(context, 8 * nodes + 64, False)
            for layer in layers:
                for query, out, (k, v) in zip(queries, outputs, layer):
                    if variant == MATMUL:
                        weights = self._placed(self.mul_mat(context, k, query), scores)
                        weights = self._placed(self.soft_max_ext_inplace(context, weights, mask, scale, 0), scores)
                        result = self.mul_mat(context, v, weights)
                    else:
                        result = self.flash_attn_ext(context, query, k, v, mask, scale, 0, 0)
                    self.build_forward_expand(graph, self._placed(result, out))
            runs.append(self._planned(graph))
        return runs, outputs

    def _placed(self, tensor: int, memory_of: int) -> int:
        """Makes a tensor use another's memory."""
        ctypes.memmove(tensor + self.data_offset, memory_of + self.data_offset, ctypes.sizeof(c_void_p))
        return tensor

    def _planned(self, graph: int):
        plan = self.graph_plan(graph, self.threads, self.threadpool)
        if plan.work_size + 64 > self.scratch.size:
            self.scratch = np.empty(plan.work_size + 64, np.uint8)
            self.held.append(self.scratch)
        plan.work_data = ctypes.cast(-(-self.scratch.ctypes.data // 64) * 64, POINTER(c_uint8))
        compute, plan_ref = self.graph_compute, byref(plan)

        def run() -> None:
            if compute(graph, plan_ref):
                raise RuntimeError("ggml_graph_compute failed")

        return run

    def _output(self, outputs: list[int], variant: str) -> np.ndarray:
        case = self.work.case
        found = []
        for tensor, (_, count, _) in zip(outputs, self._parts()):
            size = count * case.heads * case.new * case.dim
            values = np.ctypeslib.as_array(ctypes.cast(self.get_data(tensor), POINTER(c_float)), (size,)).copy()
            if variant == FLASH:  # [sequence][new][head][dim]
                values = values.reshape(count, case.new, case.heads, case.dim)
            elif variant == FOLDED:  # [sequence][group · new][kv_head][dim]
                values = values.reshape(count, case.group, case.new, case.kv_heads, case.dim).transpose(0, 2, 3, 1, 4)
            else:  # [sequence][kv_head][group · new][dim]
                values = values.reshape(count, case.heads, case.new, case.dim).transpose(0, 2, 1, 3)
            found.append(values.reshape(count, case.new, case.heads, case.dim))
        return np.concatenate(found)
