// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

constexpr Storage kEvery[] = {Storage::f32, Storage::f16, Storage::bf16};
constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

struct alignas(64) Line {
  char bytes[64];
};
/// Aligned bytes, filled with a pattern that reads as NaN in every storage type.
struct Tile {
  explicit Tile(Index bytes) : lines(static_cast<std::size_t>(ceil_div(bytes, 64))) {
    std::memset(lines.data(), 0xff, lines.size() * 64);
  }
  void* data() { return lines.data(); }
  std::vector<Line> lines;
};

std::vector<char> random_rows(Storage storage, Index count, std::mt19937& random) {
  std::normal_distribution<float> normal;
  std::vector<char> rows(static_cast<std::size_t>(count * size_of(storage)) + 1);
  for (Index i = 0; i < count; ++i) store_element(rows.data() + 1, storage, i, normal(random));
  return rows;  // the elements start at byte 1: misaligned on purpose
}

/// Rows one behind another as the pack kernels take them, with addresses of nothing behind them.
struct RowList {
  RowList(const char* first, Index stride, Index tokens) {
    rows.fill(reinterpret_cast<const char*>(std::uintptr_t{4096}));  // no memory there; null is no number to add to
    for (Index t = 0; t < tokens; ++t) rows[static_cast<std::size_t>(t)] = first + t * stride;
  }
  const char* const* data() const { return rows.data(); }
  std::array<const char*, kTileTokens + kRowsAhead> rows;
};

class TileKernelsTest : public testing::EveryTable {};

TEST_P(TileKernelsTest, PackedKeysLieWhereTheLayoutSaysAndPaddingIsZero) {
  std::mt19937 random(1);
  for (const Storage storage : kEvery)
    for (const Index dim : {1, 2, 3, 7, 8, 13, 16, 46, 64, 80, 128, 511})
      for (const Index tokens : {1, 2, 3, 15, 16, 17, 63, 64}) {
        const Index stride = (dim + 3) * size_of(storage) + 1;
        std::vector<char> rows = random_rows(storage, tokens * (dim + 4), random);
        Tile tile(key_tile_bytes(storage, dim));
        kernels->pack_keys[static_cast<int>(storage)](RowList(rows.data() + 1, stride, tokens).data(), tokens, dim,
                                                      tile.data());
        for (Index t = 0; t < kTileTokens; ++t)
          for (Index d = 0; d < padded_head_dim(dim); ++d) {
            const float got = load_element(tile.data(), storage, key_index(storage, dim, t, d));
            const float want = t < tokens && d < dim ? load_element(rows.data() + 1 + t * stride, storage, d) : 0.0f;
            ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
                << name_of(storage) << " dim " << dim << " tokens " << tokens << " at " << t << ", " << d;
          }
      }
}

TEST_P(TileKernelsTest, PackedValuesLieWhereTheLayoutSaysAndPaddingIsZero) {
  std::mt19937 random(2);
  for (const Storage storage : kEvery)
    for (const Index dim : {1, 2, 3, 7, 8, 13, 16, 46, 48, 64, 80, 128, 511})
      for (const Index tokens : {1, 2, 3, 15, 16, 17, 63, 64}) {
        const Index stride = (dim + 3) * size_of(storage) + 1;
        std::vector<char> rows = random_rows(storage, tokens * (dim + 4), random);
        Tile tile(value_tile_bytes(storage, dim));
        kernels->pack_values[static_cast<int>(storage)](RowList(rows.data() + 1, stride, tokens).data(), tokens, dim,
                                                        tile.data());
        for (Index t = 0; t < kTileTokens; ++t)
          for (Index d = 0; d < padded_value_dim(dim); ++d) {
            const float got = load_element(tile.data(), storage, value_index(storage, dim, t, d));
            const float want = t < tokens && d < dim ? load_element(rows.data() + 1 + t * stride, storage, d) : 0.0f;
            ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want)))
                << name_of(storage) << " dim " << dim << " tokens " << tokens << " at " << t << ", " << d;
          }
      }
}

TEST_P(TileKernelsTest, RowsMayLieAnywhere) {
  std::mt19937 random(12);
  for (const Storage storage : kEvery)
    for (const Index dim : {5, 16, 46, 128})
      for (const Index tokens : {1, 7, 33, 64}) {
        const Index bytes = dim * size_of(storage);
        const std::vector<char> rows = random_rows(storage, kTileTokens * dim, random);
        RowList list(rows.data() + 1, bytes, tokens);
        std::shuffle(list.rows.begin(), list.rows.begin() + tokens, random);
        Tile keys(key_tile_bytes(storage, dim)), values(value_tile_bytes(storage, dim));
        kernels->pack_keys[static_cast<int>(storage)](list.data(), tokens, dim, keys.data());
        kernels->pack_values[static_cast<int>(storage)](list.data(), tokens, dim, values.data());
        for (Index t = 0; t < tokens; ++t)
          for (Index d = 0; d < dim; ++d) {
            const float want = load_element(list.data()[t], storage, d);
            ASSERT_EQ(load_element(keys.data(), storage, key_index(storage, dim, t, d)), want);
            ASSERT_EQ(load_element(values.data(), storage, value_index(storage, dim, t, d)), want);
          }
      }
}

TEST_P(TileKernelsTest, AWidenedTileIsTheSameTileInF32) {
  std::mt19937 random(3);
  for (const Storage storage : {Storage::f16, Storage::bf16})
    for (const Index dim : {5, 16, 46, 64, 80, 128}) {
      const std::vector<char> rows = random_rows(storage, kTileTokens * dim, random);
      const RowList list(rows.data() + 1, dim * size_of(storage), 64);
      Tile tile(key_tile_bytes(storage, dim)), wide(key_tile_bytes(Storage::f32, dim));
      kernels->pack_keys[static_cast<int>(storage)](list.data(), 64, dim, tile.data());
      kernels->widen_keys[static_cast<int>(storage)](tile.data(), dim, static_cast<float*>(wide.data()));
      for (Index t = 0; t < kTileTokens; ++t)
        for (Index d = 0; d < dim; ++d)
          ASSERT_EQ(load_element(wide.data(), Storage::f32, key_index(Storage::f32, dim, t, d)),
                    load_element(rows.data() + 1, storage, t * dim + d));
      Tile values(value_tile_bytes(storage, dim)), wide_values(value_tile_bytes(Storage::f32, dim));
      kernels->pack_values[static_cast<int>(storage)](list.data(), 64, dim, values.data());
      kernels->widen_values[static_cast<int>(storage)](values.data(), dim, static_cast<float*>(wide_values.data()));
      for (Index t = 0; t < kTileTokens; ++t)
        for (Index d = 0; d < dim; ++d)
          ASSERT_EQ(load_element(wide_values.data(), Storage::f32, value_index(Storage::f32, dim, t, d)),
                    load_element(rows.data() + 1, storage, t * dim + d));
    }
}

TEST_P(TileKernelsTest, ATileIsFiniteUntilOneElementIsNot) {
  for (const Storage storage : kEvery)
    for (const Index dim : {5, 64}) {
      Tile tile(value_tile_bytes(storage, dim));
      const Index count = kTileTokens * padded_value_dim(dim);
      for (Index i = 0; i < count; ++i) store_element(tile.data(), storage, i, i % 2 ? 60000.0f : -1.0f);
      const auto finite = [&] { return kernels->all_finite[static_cast<int>(storage)](tile.data(), dim); };
      EXPECT_TRUE(finite());
      for (const Index at : {Index{0}, Index{17}, count - 1})
        for (const float bad : {kNan, kInf, -kInf}) {
          store_element(tile.data(), storage, at, bad);
          EXPECT_FALSE(finite()) << name_of(storage) << " at " << at;
          store_element(tile.data(), storage, at, 1.0f);
        }
      EXPECT_TRUE(finite());
    }
}

TEST_P(TileKernelsTest, RowsAreConvertedScaledAndPaddedExactlyAsSingleElementsAre) {
  std::mt19937 random(4);
  const float specials[] = {0.0f, -0.0f, kInf, -kInf, kNan, 1e-40f, 6e-8f, 65504.0f, 65520.0f, 3.3e38f, 1.00390625f};
  for (const Storage storage : kEvery)
    for (const Index dim : {1, 3, 4, 8, 15, 16, 17, 46, 128}) {
      std::vector<char> q = random_rows(storage, dim, random);
      for (Index i = 0; i < dim; i += 3)
        store_element(q.data() + 1, storage, i, specials[static_cast<std::size_t>(i / 3) % 11]);
      for (const Operand operand : {Operand::f32, Operand::bf16_pair}) {
        const Storage kept = operand == Operand::f32 ? Storage::f32 : Storage::bf16;
        Tile row(padded_head_dim(dim) * 4);
        kernels->prepare_row(q.data() + 1, storage, dim, padded_head_dim(dim), 0.75f, operand, row.data());
        for (Index d = 0; d < padded_head_dim(dim); ++d) {
          float want = d < dim ? load_element(q.data() + 1, storage, d) * 0.75f : 0.0f;
          if (kept == Storage::bf16) want = from_bf16_bits(to_bf16_bits(want));
          const float got = load_element(row.data(), kept, d);
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << d << ": " << got << " for " << want;
        }
      }
      std::vector<float> sums(static_cast<std::size_t>(dim));
      for (Index d = 0; d < dim; ++d) sums[static_cast<std::size_t>(d)] = load_element(q.data() + 1, storage, d);
      for (const Storage to : kEvery) {
        std::vector<char> out(static_cast<std::size_t>(dim * size_of(to)) + 2, 'x');
        kernels->finish_row(sums.data(), dim, 0.75f, out.data() + 1, to);
        for (Index d = 0; d < dim; ++d) {
          char one[4];
          store_element(one, to, 0, sums[static_cast<std::size_t>(d)] * 0.75f);
          const float got = load_element(out.data() + 1, to, d), want = load_element(one, to, 0);
          ASSERT_TRUE(got == want || (std::isnan(got) && std::isnan(want))) << name_of(to) << " " << d;
        }
        EXPECT_EQ(out.back(), 'x');
        EXPECT_EQ(out.front(), 'x');
      }
    }
}

HEADWISE_FOR_EVERY_TABLE(TileKernelsTest);

}  // namespace
}  // namespace headwise
