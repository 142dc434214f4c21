// SPDX-License-Identifier: MIT
// The tile kernels, written once over simd/operations.hpp and included once per ISA, inside its region and namespace
// and after its vector file (kernel/isa.hpp). Ends with the table.

#include "headwise/kernel/storage_step.inl.hpp"
#include "headwise/kernel/softmax.inl.hpp"
#include "headwise/kernel/scores.inl.hpp"
#include "headwise/kernel/weighted_sum.inl.hpp"
#include "headwise/kernel/rows.inl.hpp"
#include "headwise/kernel/transforms.inl.hpp"
#include "headwise/kernel/pack.inl.hpp"
#include "headwise/kernel/row_products.inl.hpp"

template <class Step>
constexpr void add_storage(TileKernels& table) {
  constexpr int s = static_cast<int>(Step::kStorage);
  table.operand[s] = Step::kOperand;
  if constexpr (kWidenRows > 1 || Step::kManyRows) {
    table.scores[s] = scores<Step>;
    table.weighted_sum[s] = weighted_sum<Step>;
  }
  table.widen_keys[s] = widen_keys<Step>;
  table.widen_values[s] = widen_values<Step>;
  table.pack_keys[s] = pack_keys<Step>;
  table.pack_values[s] = pack_values<Step>;
  table.all_finite[s] = all_finite<Step>;
}

constexpr TileKernels make_kernels() {
  TileKernels table{};
  table.isa = kIsa;
  table.widen_rows = kWidenRows;
  table.row_products = row_products;
  table.prepare_row = prepare_row;
  table.finish_row = finish_row;
  table.blend = blend;
  table.softcap = softcap;
  table.alibi = alibi;
  table.softmax = softmax;
  table.rescale = rescale;
  add_storage<StepF32>(table);
  add_storage<StepF16>(table);
  add_storage<StepBf16>(table);
  return table;
}

inline constexpr TileKernels kernels = make_kernels();
