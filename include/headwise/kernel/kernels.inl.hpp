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

#if defined(HEADWISE_BF16_DOT)
inline constexpr bool kBf16Dot = true;
#else
inline constexpr bool kBf16Dot = false;
#endif

template <class Step>
constexpr void add_storage(TileKernels& table) {
  constexpr int s = static_cast<int>(Step::kStorage), f32 = static_cast<int>(Operand::f32);
  table.operand[s] = Step::kOperand;
  table.scores[s] = scores<Step>;
  table.scores_and_softmax[s][f32] = scores_and_softmax<Step, Operand::f32>;
  table.weighted_sum[s] = weighted_sum<Step>;
  table.widen_keys[s] = widen_keys<Step>;
  table.widen_values[s] = widen_values<Step>;
  table.pack_keys[s] = pack_keys<Step>;
  table.pack_values[s] = pack_values<Step>;
  table.all_finite[s] = all_finite<Step>;
  if constexpr (kBf16Dot)
    table.scores_and_softmax[s][static_cast<int>(Operand::bf16_pair)] = scores_and_softmax<Step, Operand::bf16_pair>;
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
  table.softmax[0] = softmax<Operand::f32>;
  table.rescale[0] = rescale<Operand::f32>;
  if constexpr (kBf16Dot) {
    table.softmax[1] = softmax<Operand::bf16_pair>;
    table.rescale[1] = rescale<Operand::bf16_pair>;
  }
  add_storage<StepF32>(table);
  add_storage<StepF16>(table);
  add_storage<StepBf16>(table);
  return table;
}

inline constexpr TileKernels kernels = make_kernels();
