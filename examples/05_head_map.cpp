// SPDX-License-Identifier: MIT
// Which query head reads which KV head is a value: contiguous by default, or any map, even of unequal groups, chosen per
// object or per call.

#include <headwise/headwise.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace hw = headwise;

int main() {
  constexpr hw::Index kTokens = 3, kHeads = 6, kKvHeads = 2, kDim = 8;
  std::vector<float> q(kTokens * kHeads * kDim, 1.0f), k(kTokens * kKvHeads * kDim, 1.0f), v(k.size()), out(q.size());
  // all values of KV head g are g: an output tells which head was read
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i / kDim % kKvHeads);

  const hw::Index sizes[] = {5, 1}, chosen[] = {1, 0, 0, 1, 1, 0};
  const hw::HeadMap maps[] = {hw::HeadMap::contiguous(kHeads, kKvHeads), hw::HeadMap::cyclic(kHeads, kKvHeads),
                              hw::HeadMap::blocks(sizes), hw::HeadMap::arbitrary(chosen, kKvHeads)};
  const char* names[] = {"contiguous", "cyclic", "blocks 5+1", "arbitrary"};

  const hw::Gqa<kHeads, kKvHeads, kDim> attend;
  for (int m = 0; m < 4; ++m) {
    attend(hw::View(q.data(), kTokens, kHeads, kDim),
           hw::KvRows(hw::View(k.data(), kTokens, kKvHeads, kDim), hw::View(v.data(), kTokens, kKvHeads, kDim)),
           hw::View(out.data(), kTokens, kHeads, kDim), {.head_map = &maps[m]});
    std::printf("%-10s  query heads read KV heads", names[m]);
    for (hw::Index h = 0; h < kHeads; ++h) {
      const float read = out[static_cast<std::size_t>(h * kDim)];
      std::printf(" %.0f", static_cast<double>(read));
      if (read != static_cast<float>(maps[m].kv_head_of(h))) return 1;
    }
    std::printf("\n");
  }
  return 0;
}
