// SPDX-License-Identifier: MIT
// Key-driven grouping (KDGQA, arXiv 2408.08454): at every step the KV heads whose cached keys are longest are given the
// most query heads. The cache keeps the norms, the groups are a few numbers per call: nothing is rebuilt or allocated.

#include <headwise/headwise.hpp>
#include <headwise/reference.hpp>
#include <headwise/regroup/key_driven/groups.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

constexpr hw::Index kTokens = 40, kHeads = 12, kKvHeads = 4, kDim = 16;

/// How far the outputs of the newest token are from the definition, with the KV head that each query head reads.
double error_of(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v, hw::Index tokens,
                std::span<const hw::Index> boundaries, const std::vector<float>& out) {
  std::vector<hw::Index> kv_head_of;
  for (hw::Index g = 0; g < kKvHeads; ++g)
    kv_head_of.insert(
        kv_head_of.end(),
        static_cast<std::size_t>(boundaries[static_cast<std::size_t>(g) + 1] - boundaries[static_cast<std::size_t>(g)]),
        g);
  const auto as_double = [&](const std::vector<float>& x, hw::Index first, hw::Index count) {
    return std::vector<double>(x.begin() + first, x.begin() + first + count);
  };
  const auto expected = hw::reference::attend(
      {1, tokens, kHeads, kKvHeads, kDim, kDim}, as_double(q, (tokens - 1) * kHeads * kDim, kHeads * kDim),
      as_double(k, 0, tokens * kKvHeads * kDim), as_double(v, 0, tokens * kKvHeads * kDim), {.kv_head_of = kv_head_of});
  double error = 0;
  for (std::size_t i = 0; i < out.size(); ++i)
    error = std::max(error, std::abs(static_cast<double>(out[i]) - expected.output[i]));
  return error;
}

int main() {
  std::vector<float> q(kTokens * kHeads * kDim), k(kTokens * kKvHeads * kDim), v(k.size()), out(kHeads * kDim);
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::sin(0.37f * static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); ++i) v[i] = std::cos(0.53f * static_cast<float>(i));
  for (hw::Index t = 0, i = 0; t < kTokens; ++t)  // ten tokens with long keys in each KV head, one after another
    for (hw::Index g = 0; g < kKvHeads; ++g)
      for (hw::Index d = 0; d < kDim; ++d, ++i)
        k[static_cast<std::size_t>(i)] = std::sin(0.91f * static_cast<float>(i)) * (t / 10 == g ? 3.0f : 0.5f);

  const hw::Gqa<kHeads, kKvHeads, kDim> attend;
  hw::KvCache<float> cache(attend.heads(), kTokens, {.key_norms = true});
  hw::regroup::KeyDrivenGroups groups(kHeads, kKvHeads);

  double error = 0;
  std::vector<hw::Index> shown;
  hw::Index changes = 0;
  std::printf("token   query heads of each KV head\n");
  for (hw::Index t = 0; t < kTokens; ++t) {
    cache.append(hw::View(k.data() + t * kKvHeads * kDim, 1, kKvHeads, kDim),
                 hw::View(v.data() + t * kKvHeads * kDim, 1, kKvHeads, kDim));
    const std::span<const hw::Index> boundaries = groups(cache, 0);
    attend(hw::View(q.data() + t * kHeads * kDim, 1, kHeads, kDim), cache, hw::View(out.data(), 1, kHeads, kDim),
           {.group_boundaries = boundaries});
    error = std::max(error, error_of(q, k, v, t + 1, boundaries, out));

    if (std::ranges::equal(boundaries, shown)) continue;
    shown.assign(boundaries.begin(), boundaries.end());
    ++changes;
    std::printf("%5td  ", t);
    for (std::size_t g = 0; g < kKvHeads; ++g) std::printf(" %2td-%-2td", boundaries[g], boundaries[g + 1] - 1);
    std::printf("\n");
  }
  std::printf("the groups moved %td times; largest difference from the reference: %.1e\n", changes - 1, error);
  return changes > 1 && error < 1e-5 ? 0 : 1;
}
