// SPDX-License-Identifier: MIT
// What an ISA that multiplies 8-bit integers has beyond one that does not: included after its vector files in a namespace
// of its own. int8 and int4 are met as they are stored; everything else is the other ISA's.

#include "headwise/kernel/storage_step.inl.hpp"
#include "headwise/kernel/softmax.inl.hpp"
#include "headwise/kernel/scores.inl.hpp"
#include "headwise/kernel/rows.inl.hpp"
#include "headwise/kernel/digits.inl.hpp"
#include "headwise/kernel/digit_dots.inl.hpp"
#include "headwise/kernel/digit_scores.inl.hpp"
#include "headwise/kernel/digit_sum.inl.hpp"

template <class Codes>
constexpr void add_codes(TileKernels& table) {
  constexpr int s = static_cast<int>(Codes::kStorage);
  table.operand[s] = Operand::digits;
  table.widen_rows[s] = kNeverWiden;
  table.scores[s] = digit_scores<Codes>;
  table.weighted_sum[s] = digit_sum<Codes>;
}

/// `table` of the ISA below, with int8 and int4 as integers.
constexpr TileKernels with_digit_dot(TileKernels table, Isa isa) {
  table.isa = isa;
  table.prepare_row = prepare_digit_row;
  add_codes<CodesInt8>(table);
  add_codes<CodesInt4>(table);
  return table;
}
