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
#include "headwise/kernel/transpose.inl.hpp"
#include "headwise/kernel/group_rows.inl.hpp"
#include "headwise/kernel/mass.inl.hpp"
#include "headwise/kernel/pack.inl.hpp"
#include "headwise/kernel/values_of_keys.inl.hpp"
#include "headwise/kernel/widen.inl.hpp"
#include "headwise/kernel/row_products.inl.hpp"

/// From how many rows on a type is widened first. To convert 8-bit floats once for each four rows takes longer than to widen
/// them (a step of 8 rows: 2.1 against 1.8 ms on AVX-512, 3.4 against 3.0 on AVX2); of int8 it is shorter (1.5 against 1.8, 2.5 against 2.9).
constexpr Index widen_rows_of(Storage storage) {
  const bool float8 = storage == Storage::e4m3 || storage == Storage::e5m2;
  return float8 ? std::min<Index>(kWidenRows, kSmallRows + 1) : kWidenRows;
}

/// Storage of a caller's arrays is packed; the rest is for caches alone.
template <class Step>
constexpr void add_storage(TileKernels& table) {
  constexpr Storage storage = Step::kStorage;
  constexpr int s = static_cast<int>(storage);
  constexpr Index widen_rows = Step::kManyRows ? kNeverWiden : widen_rows_of(storage);
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
  table.lanes = kLanes;
  table.row_products = row_products;
  table.prepare_row = prepare_row;
  table.prepare_added = prepare_added;
  table.finish_row = finish_row;
  if constexpr (kBroadcastsInPlace) table.group_rows = group_rows;
  table.blend = blend;
  table.all_within = all_within;
  table.softcap = softcap_scores;
  table.scale_scores = scale_scores;
  table.add_mass = add_mass;
  table.transpose = transpose_floats;
  table.softmax_weights = softmax_weights;
  table.softmax = softmax;
  table.rescale = rescale;
  table.values_of_keys[static_cast<int>(Storage::f32)] = values_of_f32_keys;
  add_storage<StepF32>(table);
  add_storage<StepF16>(table);
  add_storage<StepBf16>(table);
  add_storage<StepE4m3>(table);
  add_storage<StepE5m2>(table);
  add_storage<StepInt8>(table);
  add_storage<StepInt4>(table);
  return table;
}

HEADWISE_TABLE TileKernels kernels = make_kernels();
