// SPDX-License-Identifier: MIT
// A K tile's first dimensions as a V tile, element by element by the layout.
#include <cstring>
#include <random>
#include <vector>

#include "headwise/core/heads.hpp"
#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

class ValuesOfKeys : public testing::EveryTable {
 protected:
  /// All panels of a V tile.
  void make(Storage storage, const void* keys, Index head_dim, Index value_dim, void* values) const {
    for (Index d = 0; d < padded_value_dim(value_dim); d += kPanelDims)
      kernels->values_of_keys[static_cast<int>(storage)](
          keys, head_dim, value_dim, d,
          static_cast<char*>(values) + value_index(storage, value_dim, 0, d) * size_of(storage));
  }
};

TEST_P(ValuesOfKeys, AreTheirFirstDimensionsBitForBitForEveryDim) {
  std::mt19937 generator(1);
  for (const Storage storage : {Storage::f32, Storage::bf16}) {
    if (!kernels->values_of_keys[static_cast<int>(storage)]) continue;
    const Index size = size_of(storage);
    for (Index head_dim = 1; head_dim <= kMaxHeadDim; head_dim = head_dim < 70 ? head_dim + 1 : head_dim + 61) {
      std::vector<char> keys(static_cast<std::size_t>(key_tile_bytes(storage, head_dim)));
      for (char& byte : keys)
        byte = static_cast<char>(generator());  // NaN and infinities too: moved, not computed with
      for (const Index value_dim : {Index{1}, head_dim / 2 + 1, std::max<Index>(1, head_dim - 8), head_dim}) {
        const Index bytes = value_tile_bytes(storage, value_dim);
        std::vector<char> values(static_cast<std::size_t>(bytes + 64), '\x5a');
        make(storage, keys.data(), head_dim, value_dim, values.data());
        for (Index t = 0; t < kTileTokens; ++t)
          for (Index d = 0; d < value_dim; ++d)
            ASSERT_EQ(
                std::memcmp(values.data() + value_index(storage, value_dim, t, d) * size,
                            keys.data() + key_index(storage, head_dim, t, d) * size, static_cast<std::size_t>(size)),
                0)
                << name_of(storage) << ", " << head_dim << " and " << value_dim << ", token " << t << ", dim " << d;
        for (Index i = bytes; i < bytes + 64; ++i) ASSERT_EQ(values[static_cast<std::size_t>(i)], '\x5a') << "beyond";
      }
    }
  }
}

TEST_P(ValuesOfKeys, HaveZerosInDimensionsThatNoKeyHas) {
  const Index head_dim = 20, value_dim = 20;  // padded to 24 and 32
  const std::vector<float> keys(static_cast<std::size_t>(kTileTokens * padded_head_dim(head_dim)), 1.0f);
  std::vector<float> values(static_cast<std::size_t>(kTileTokens * padded_value_dim(value_dim)), 2.0f);
  make(Storage::f32, keys.data(), head_dim, value_dim, values.data());
  for (Index t = 0; t < kTileTokens; ++t)
    for (Index d = 24; d < 32; ++d)
      ASSERT_EQ(values[static_cast<std::size_t>(value_index(Storage::f32, value_dim, t, d))], 0.0f);
}

HEADWISE_FOR_EVERY_TABLE(ValuesOfKeys);

}  // namespace
}  // namespace headwise
