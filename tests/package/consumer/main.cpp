// SPDX-License-Identifier: MIT
// A program outside headwise's build: four query heads share two KV heads and see one key, so every output is the value
// of the head's group.
#include <headwise/headwise.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  namespace hw = headwise;
  const hw::Gqa<4, 2, 8> attend;
  const std::vector<float> q(4 * 8, 0.5f), k(2 * 8, 0.25f);
  std::vector<float> v(2 * 8), out(4 * 8, -1.0f);
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = static_cast<float>(i);

  hw::KvCache<float> cache(attend.heads(), 16);
  cache.append(hw::View<const float>(k.data(), 1, 2, 8), hw::View<const float>(v.data(), 1, 2, 8));
  attend(hw::View<const float>(q.data(), 1, 4, 8), cache, hw::View<float>(out.data(), 1, 4, 8));

  for (std::size_t h = 0; h < 4; ++h)
    for (std::size_t d = 0; d < 8; ++d)
      if (!(std::abs(out[h * 8 + d] - v[h / 2 * 8 + d]) < 1e-5f)) {
        std::printf("head %zu, dimension %zu: %g instead of %g\n", h, d, out[h * 8 + d], v[h / 2 * 8 + d]);
        return 1;
      }
}
