// SPDX-License-Identifier: MIT
// The tile kernels, written once over simd/operations.hpp and included once per ISA, inside its region and namespace
// and after its vector file (kernel/isa.hpp). Ends with the table.

#include "headwise/kernel/storage_step.inl.hpp"
#include "headwise/kernel/narrow_step.inl.hpp"
#include "headwise/kernel/softmax.inl.hpp"
#include "headwise/kernel/scores.inl.hpp"
#include "headwise/kernel/weighted_sum.inl.hpp"
#include "headwise/kernel/rows.inl.hpp"
#include "headwise/kernel/transforms.inl.hpp"
#include "headwise/kernel/pack.inl.hpp"
#include "headwise/kernel/widen.inl.hpp"
#include "headwise/kernel/row_products.inl.hpp"

/// Storage of a caller's arrays is packed; the rest is for caches alone.
template <class Step>
constexpr void add_storage(TileKernels& table) {
  constexpr Storage storage = Step::kStorage;
  constexpr int s = static_cast<int>(storage);
  constexpr Index widen_rows = Step::kManyRows ? kNeverWiden : kWidenRows;
  table.operand[s] = Step::kOperand;
  table.widen_rows[s] = widen_rows;
  if constexpr (widen_rows > 1) {
    table.scores[s] = scores<Step>;
    table.weighted_sum[s] = weighted_sum<Step>;
  }
  table.widen_keys[s] = widen_keys<Step>;
  table.widen_values[s] = widen_values<Step>;
  if constexpr (is_element(storage)) {
    table.pack_keys[s] = pack_keys<Step>;
    table.pack_values[s] = pack_values<Step>;
  }
  table.all_finite[s] = all_finite<Step>;
}

constexpr TileKernels make_kernels() {
  TileKernels table{};
  table.isa = kIsa;
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
  add_storage<StepE4m3>(table);
  add_storage<StepE5m2>(table);
  add_storage<StepInt8>(table);
  add_storage<StepInt4>(table);
  return table;
}

inline constexpr TileKernels kernels = make_kernels();
