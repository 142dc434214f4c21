// SPDX-License-Identifier: MIT
// Keys and values stay where an engine keeps them: here one buffer [token][k or v][kv_head][dim] of bf16, two sequences
// of different lengths, read in place through strides.

#include <headwise/headwise.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

int main() {
  constexpr hw::Index kSequences = 2, kMaxTokens = 64, kKvHeads = 1, kHeads = 6, kDim = 16;
  constexpr hw::Index kRow = kKvHeads * kDim;  // one token's keys, followed by its values
  std::vector<hw::bf16> buffer(kSequences * kMaxTokens * 2 * kRow, hw::bf16(NAN));  // NaN where nothing was written

  const hw::Index lengths[kSequences] = {64, 10};
  for (hw::Index b = 0; b < kSequences; ++b)
    for (hw::Index t = 0; t < lengths[b]; ++t)
      for (hw::Index i = 0; i < 2 * kRow; ++i)
        buffer[static_cast<std::size_t>((b * kMaxTokens + t) * 2 * kRow + i)] =
            hw::bf16(std::sin(static_cast<float>(t + i)));

  const hw::Strides strides{.sequence = kMaxTokens * 2 * kRow, .token = 2 * kRow, .head = kDim, .dim = 1};
  const hw::View<const hw::bf16> k(buffer.data(), kSequences, kMaxTokens, kKvHeads, kDim, strides);
  const hw::View<const hw::bf16> v(buffer.data() + kRow, kSequences, kMaxTokens, kKvHeads, kDim, strides);

  // one new token per sequence, decoded together
  std::vector<float> q(kSequences * kHeads * kDim, 0.25f), out(q.size()), lse(kSequences * kHeads);
  hw::Mqa<kHeads, kDim> attend;
  attend(hw::View(q.data(), kSequences, 1, kHeads, kDim), hw::KvRows(k, v),
         {hw::View(out.data(), kSequences, 1, kHeads, kDim), hw::View(lse.data(), kSequences, 1, kHeads, 1)},
         {.key_lengths = lengths});

  for (hw::Index b = 0; b < kSequences; ++b)
    std::printf("sequence %td, %td keys: log-sum-exp %.4f, first output %.4f\n", b, lengths[b],
                static_cast<double>(lse[static_cast<std::size_t>(b * kHeads)]),
                static_cast<double>(out[static_cast<std::size_t>(b * kHeads * kDim)]));
  for (const float x : out)
    if (!std::isfinite(x)) return 1;  // the unwritten slots were never read
  return 0;
}
