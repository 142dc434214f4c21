# SPDX-License-Identifier: MIT
"""What is timed: one call of attention over one layer."""

from __future__ import annotations

import dataclasses
import random

BYTES_PER_ELEMENT = {"f32": 4, "f16": 2, "bf16": 2, "q8": 1}
STORAGES = tuple(BYTES_PER_ELEMENT)


@dataclasses.dataclass(frozen=True)
class Case:
    """`new` query tokens of each of `batch` sequences, the last of `kv` tokens. Decode: new = 1; prefill: new = kv."""

    heads: int
    kv_heads: int
    dim: int
    kv: int
    new: int
    storage: str
    threads: int
    batch: int = 1
    shortest: int = 0  # above 0: lengths of `shortest` to `kv` tokens, another for each sequence
    warm: bool = (
        False  # the same keys and values every time, not layers in turn that together exceed the last-level cache
    )

    @property
    def kind(self) -> str:
        return "decode" if self.new == 1 else "prefill" if self.new == self.kv else "append"

    @property
    def group(self) -> int:
        return self.heads // self.kv_heads

    @property
    def shape(self) -> str:
        return f"{self.heads}:{self.kv_heads}:{self.dim}"

    @property
    def what(self) -> str:
        """The case without storage and threads: "decode/32:8:128/kv4096"."""
        parts = [self.kind + (str(self.new) if self.kind == "append" else ""), self.shape, f"kv{self.length_text}"]
        if self.batch > 1:
            parts.append(f"batch{self.batch}")
        if self.warm:
            parts.append("warm")
        return "/".join(parts)

    @property
    def length_text(self) -> str:
        return f"{self.shortest}-{self.kv}" if self.shortest else str(self.kv)

    @property
    def name(self) -> str:
        return f"{self.what}/{self.storage}/threads{self.threads}"

    @property
    def lengths(self) -> list[int]:
        if not self.shortest:
            return [self.kv] * self.batch
        draw = random.Random(self.batch)
        return [self.kv] + [draw.randint(self.shortest, self.kv) for _ in range(self.batch - 1)]

    @property
    def kv_bytes(self) -> int:
        """Bytes of K and V that a call must read: each stored number once, whatever the group size; no scales."""
        return sum(self.lengths) * 2 * self.kv_heads * self.dim * BYTES_PER_ELEMENT[self.storage]

    @property
    def flops(self) -> int:
        """Multiply-adds of q·k and p·v over the visible keys (causal), two operations each; softmax is not counted."""
        pairs = sum(self.new * (length - self.new) + self.new * (self.new + 1) // 2 for length in self.lengths)
        return 4 * self.heads * self.dim * pairs

    def as_json(self) -> dict:
        return dataclasses.asdict(self) | {"name": self.name, "what": self.what, "kind": self.kind}

    @staticmethod
    def from_json(fields: dict) -> "Case":
        return Case(**{field.name: fields[field.name] for field in dataclasses.fields(Case)})
