# SPDX-License-Identifier: MIT
"""PyTorch in eager mode: scaled_dot_product_attention as it is offered, and the same with the query heads that share a
KV head made rows of one matrix (a view), which it does much faster; and two matrix products."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from peers.cases import Case
from peers.rivals.base import Prepared, Rival, Unsupported, Work

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
MOST_SCORES = 2**29  # bytes of a score matrix

GQA, FOLDED, EXPANDED, MATMUL = (
    "SDPA",
    "SDPA, group as rows",
    "SDPA, group as heads of expanded K/V",
    "matmul, group as rows",
)


class Torch(Rival):
    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)

    def versions(self) -> dict[str, str]:
        return {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}

    def variants(self, case: Case) -> list[str]:
        if case.storage not in TYPES:
            return []
        if case.group == 1:
            return [GQA, MATMUL]
        return [GQA, EXPANDED, MATMUL] if case.kind == "prefill" else [GQA, FOLDED, MATMUL]

    def open(self, work: Work) -> None:
        self.work, self.dtype = work, TYPES[work.case.storage]
        k, v, q = (torch.from_numpy(work.by_head(name)).to(self.dtype) for name in "kvq")
        self.layers = [(k.clone(), v.clone()) for _ in range(work.layers)]  # [sequence][kv_head][kv][dim]
        self.q = q  # [sequence][head][new][dim]
        self.out = None

    def close(self) -> None:
        self.work = self.layers = self.q = self.out = None

    def prepare(self, variant: str) -> Prepared:
        work, case = self.work, self.work.case
        if case.shortest:
            call = self._one_sequence_after_another(variant)
        else:
            call = {GQA: self._sdpa, FOLDED: self._folded, EXPANDED: self._expanded, MATMUL: self._matmul}[variant]()

        def step(i: int):
            layers = [self.layers[layer] for layer in work.step_layers(i)]

            def run() -> None:
                for k, v in layers:
                    out = call(k, v)
                self.out = out

            return run

        return Prepared([step(i) for i in range(work.steps)], self._output)

    def _output(self) -> np.ndarray:
        """From [sequence][head][new][dim] or the same seen as rows of a KV head."""
        case = self.work.case
        return self.out.float().reshape(case.batch, case.heads, case.new, case.dim).transpose(1, 2).numpy()

    def _mask(self, rows: int) -> torch.Tensor | None:
        """Added to the scores of all rows of a KV head: [group · new][kv]."""
        case = self.work.case
        if case.new == 1:
            return None
        visible = torch.from_numpy(self.work.past_visible).repeat(rows // case.new, 1)
        return torch.zeros(rows, case.kv, dtype=self.dtype).masked_fill_(~visible, -math.inf)

    def _sdpa(self):
        case, q, mask = self.work.case, self.q, None
        causal = case.kind == "prefill"
        if case.kind == "append":
            mask = self._mask(case.new)
        grouped = case.group > 1
        return lambda k, v: F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, enable_gqa=grouped)

    def _rows(self) -> torch.Tensor:
        case = self.work.case
        return self.q.reshape(case.batch, case.kv_heads, case.group * case.new, case.dim)

    def _folded(self):
        q = self._rows()
        mask = self._mask(q.shape[2])
        return lambda k, v: F.scaled_dot_product_attention(q, k, v, mask)

    def _expanded(self):
        """KV heads as the batch and the group as heads, which lets K and V be repeated by a stride of 0."""
        case = self.work.case
        q = self.q.reshape(case.batch * case.kv_heads, case.group, case.new, case.dim)

        def call(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            k, v = (
                x.reshape(case.batch * case.kv_heads, 1, case.kv, case.dim).expand(-1, case.group, -1, -1)
                for x in (k, v)
            )
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)

        return call

    def _matmul(self):
        case = self.work.case
        rows = case.group * case.new
        if case.batch * case.kv_heads * rows * case.kv * self.q.element_size() > MOST_SCORES:
            raise Unsupported("its score matrix is larger than 512 MiB")
        flat = case.batch * case.kv_heads
        q = self._rows().reshape(flat, rows, case.dim)
        scale = 1 / math.sqrt(case.dim)
        scores = torch.empty(flat, rows, case.kv, dtype=self.dtype)
        weights = torch.empty_like(scores)
        # hidden keys are among the newest only
        tail = self._mask(rows)[:, case.kv - case.new :].contiguous() if case.new > 1 else None
        hidden = scores[:, :, case.kv - case.new :]
        out = torch.empty(flat, rows, case.dim, dtype=self.dtype)

        def call(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            torch.baddbmm(scores, q, k.view(flat, case.kv, case.dim).transpose(1, 2), beta=0, alpha=scale, out=scores)
            if tail is not None:
                hidden.add_(tail)
            torch.softmax(scores, -1, out=weights)
            return torch.bmm(weights, v.view(flat, case.kv, case.dim), out=out)

        return call

    def _one_sequence_after_another(self, variant: str):
        """Sequences of unequal lengths: no padding and no mask; decode only."""
        case = self.work.case
        if case.new > 1:
            raise Unsupported("sequences of unequal lengths are decoded only")
        q, lengths, scale = self._rows(), case.lengths, 1 / math.sqrt(case.dim)
        heads = self.q
        out = torch.empty_like(q)

        def one(b: int, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            if variant == FOLDED:
                return F.scaled_dot_product_attention(q[b : b + 1], k[None], v[None])[0]
            if variant == MATMUL:
                scores = torch.bmm(q[b], k.transpose(1, 2)).mul_(scale)
                return torch.bmm(torch.softmax(scores, -1), v)
            result = F.scaled_dot_product_attention(heads[b : b + 1], k[None], v[None], enable_gqa=case.group > 1)
            return result.view(case.kv_heads, case.group, case.dim)

        def call(k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            for b, length in enumerate(lengths):
                out[b] = one(b, k[b, :, :length], v[b, :, :length])
            return out

        return call
