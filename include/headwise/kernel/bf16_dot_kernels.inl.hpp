// SPDX-License-Identifier: MIT
// What an ISA that multiplies pairs of bf16 has beyond one that does not: included after its vector files, with
// HEADWISE_BF16_DOT defined, in a namespace of its own. Everything else is the other ISA's.

#include "headwise/kernel/storage_step.inl.hpp"
#include "headwise/kernel/softmax.inl.hpp"
#include "headwise/kernel/scores.inl.hpp"
#include "headwise/kernel/weighted_sum.inl.hpp"
#include "headwise/kernel/transpose.inl.hpp"
#include "headwise/kernel/values_of_keys.inl.hpp"

/// `table` of the ISA below, with bf16 in pairs.
constexpr TileKernels with_bf16_dot(TileKernels table, Isa isa) {
  constexpr int bf16 = static_cast<int>(Storage::bf16);
  table.isa = isa;
  table.operand[bf16] = StepBf16Dot::kOperand;
  table.widen_rows[bf16] = kNeverWiden;
  table.scores[bf16] = scores<StepBf16Dot>;
  table.weighted_sum[bf16] = weighted_sum<StepBf16Dot>;
  table.values_of_keys[bf16] = values_of_bf16_keys;
  table.softmax = softmax;
  table.rescale = rescale;
  return table;
}
