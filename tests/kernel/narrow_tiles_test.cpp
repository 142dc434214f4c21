// SPDX-License-Identifier: MIT
// Tiles of 8-bit floats, int8 and int4 hold exactly the numbers that core/quantize.hpp says, on every table.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "headwise/core/quantize.hpp"
#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

constexpr Storage kNarrow[] = {Storage::e4m3, Storage::e5m2, Storage::int8, Storage::int4};
constexpr Index kDims[] = {1, 5, 16, 24, 40, 46, 64, 80, 128, 500};

struct alignas(64) Line {
  unsigned char bytes[64];
};

/// A K or V tile of any codes and scales.
struct Tile {
  Storage storage;
  Index dim;
  bool of_keys;
  std::vector<Line> lines;

  Tile(Storage s, Index d, bool keys)
      : storage(s), dim(d), of_keys(keys), lines(static_cast<std::size_t>(ceil_div(bytes(), 64))) {}

  Index bytes() const { return of_keys ? key_tile_bytes(storage, dim) : value_tile_bytes(storage, dim); }
  Index code_bytes() const { return of_keys ? key_code_bytes(storage, dim) : value_code_bytes(storage, dim); }
  Index padded() const { return of_keys ? padded_head_dim(dim) : padded_value_dim(dim); }
  unsigned char* data() { return lines.front().bytes; }
  Index index(Index t, Index d) const {
    return of_keys ? key_index(storage, dim, t, d) : value_index(storage, dim, t, d);
  }

  void set_scale(Index t, Index d, std::uint16_t bits) {
    std::memcpy(data() + code_bytes() + 2 * scale_index(storage, t, d), &bits, 2);
  }
  std::uint8_t code(Index t, Index d) {
    const Index i = index(t, d);
    if (storage != Storage::int4) return data()[i];
    return static_cast<std::uint8_t>(data()[i / 8 * 4 + i % 4] >> (i % 8 / 4 * 4) & 15);
  }
  float number(Index t, Index d) {
    if (storage == Storage::e4m3) return from_e4m3_bits(code(t, d));
    if (storage == Storage::e5m2) return from_e5m2_bits(code(t, d));
    std::uint16_t bits;
    std::memcpy(&bits, data() + code_bytes() + 2 * scale_index(storage, t, d), 2);
    return storage == Storage::int8 ? from_int8_code(code(t, d), from_bf16_bits(bits))
                                    : from_int4_code(code(t, d), from_bf16_bits(bits));
  }
};

/// Every code, and scales of the whole range; without infinities and NaN where `finite`.
Tile random_tile(Storage storage, Index dim, bool keys, bool finite, std::mt19937& random) {
  Tile tile(storage, dim, keys);
  std::uniform_int_distribution<int> byte(0, 255), exponent(1, 0xf6), mantissa(0, 127);
  for (Index i = 0; i < tile.code_bytes(); ++i) {
    auto& code = tile.data()[i];
    code = static_cast<unsigned char>(byte(random));
    if (finite && storage == Storage::e4m3 && (code & 0x7f) == 0x7f) code = 0x7e;
    if (finite && storage == Storage::e5m2 && (code & 0x7f) >= 0x7c) code = 0x7b;
  }
  if (has_scales(storage))
    for (Index t = 0; t < kTileTokens; ++t)
      for (Index d = 0; d < tile.padded(); d += storage == Storage::int4 ? kScaleDims : tile.padded()) {
        const int sign = storage == Storage::int4 ? byte(random) % 2 << 15 : 0;
        tile.set_scale(t, d, static_cast<std::uint16_t>(sign | exponent(random) << 7 | mantissa(random)));
        if (!finite && byte(random) < 8) tile.set_scale(t, d, 0x7fc0);
      }
  return tile;
}

bool same_bits(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0; }

class NarrowTiles : public testing::EveryTable {};

TEST_P(NarrowTiles, WidenToExactlyTheNumbersTheyStandFor) {
  std::mt19937 random(1);
  for (const Storage storage : kNarrow)
    for (const Index dim : kDims)
      for (const bool keys : {true, false}) {
        Tile tile = random_tile(storage, dim, keys, false, random);
        std::vector<float> wide(static_cast<std::size_t>(kTileTokens * tile.padded()) + 1, 7.0f);
        const auto s = static_cast<int>(storage);
        (keys ? kernels->widen_keys[s] : kernels->widen_values[s])(tile.data(), dim, wide.data());
        for (Index t = 0; t < kTileTokens; ++t)
          for (Index d = 0; d < tile.padded(); ++d) {
            const Index at = keys ? key_index(Storage::f32, dim, t, d) : value_index(Storage::f32, dim, t, d);
            const float got = wide[static_cast<std::size_t>(at)], want = tile.number(t, d);
            ASSERT_TRUE(same_bits(got, want) || (std::isnan(got) && std::isnan(want)))
                << name_of(storage) << " dim " << dim << " at " << t << ", " << d << ": " << got << " for " << want;
          }
        EXPECT_EQ(wide.back(), 7.0f);
      }
}

TEST_P(NarrowTiles, AreFiniteUntilOneNumberIsNot) {
  std::mt19937 random(2);
  for (const Storage storage : kNarrow)
    for (const Index dim : {5, 40, 64}) {
      Tile tile = random_tile(storage, dim, false, true, random);
      const auto finite = [&] { return kernels->all_finite[static_cast<int>(storage)](tile.data(), dim); };
      EXPECT_TRUE(finite()) << name_of(storage) << " dim " << dim;
      for (const Index t : {0, 17, 63})
        for (const Index d : {Index{0}, dim - 1}) {
          const Tile before = tile;
          if (has_scales(storage))
            tile.set_scale(t, d, 0x7fc0);
          else
            tile.data()[tile.index(t, d)] = 0xff;
          EXPECT_FALSE(finite()) << name_of(storage) << " at " << t << ", " << d;
          tile = before;
        }
      EXPECT_TRUE(finite());
    }
}

TEST_P(NarrowTiles, MeetAFewRowsWithTheBitsOfTheirF32Tile) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  constexpr int f32 = static_cast<int>(Storage::f32);
  for (const Storage storage : kNarrow) {
    const auto s = static_cast<int>(storage);
    if (kernels->operand[s] != Operand::f32) continue;  // met in another way, with other bits
    for (const Index dim : kDims)
      for (Index rows = 1; rows <= kStreamRows && rows < kernels->widen_rows[s]; ++rows) {
        Tile keys = random_tile(storage, dim, true, true, random),
             values = random_tile(storage, dim, false, true, random);
        // scales near 1, or sums are of one term
        for (Tile* tile : {&keys, &values})
          for (Index t = 0; has_scales(storage) && t < kTileTokens; ++t)
            for (Index d = 0; d < dim; d += kScaleDims)
              tile->set_scale(t, d, to_bf16_bits(0.25f + std::fabs(normal(random))));
        const Index dk = keys.padded(), dv = values.padded();
        std::vector<Line> wide_keys(static_cast<std::size_t>(dk * 4)), wide_values(static_cast<std::size_t>(dv * 4));
        const auto floats = [](std::vector<Line>& lines) { return reinterpret_cast<float*>(lines.data()); };
        kernels->widen_keys[s](keys.data(), dim, floats(wide_keys));
        kernels->widen_values[s](values.data(), dim, floats(wide_values));
        std::vector<Line> queries(static_cast<std::size_t>(ceil_div(rows * dk, 16))),
            got(static_cast<std::size_t>(rows * 4)), weights(static_cast<std::size_t>(rows * 4)),
            sums(static_cast<std::size_t>(ceil_div(rows * dv, 16)));
        auto want = got;
        for (Index i = 0; i < rows * dk; ++i) floats(queries)[i] = i % dk < dim ? normal(random) : 0.0f;
        for (Index i = 0; i < rows * kTileTokens; ++i) floats(weights)[i] = std::fabs(normal(random));
        for (Index i = 0; i < rows * dv; ++i) floats(sums)[i] = normal(random);
        auto want_sums = sums;
        for (const Index tokens : {1, 9, 40, 64}) {
          const AheadArgs ahead{keys.data(), 4096};
          const auto scores = [&](int which, const void* tile, std::vector<Line>& out) {
            kernels->scores[which]({queries.data(), tile, floats(out), rows, dk, tokens, nullptr, ahead}, nullptr);
          };
          scores(s, keys.data(), got);
          scores(f32, wide_keys.data(), want);
          for (Index r = 0; r < rows; ++r)
            ASSERT_EQ(0, std::memcmp(floats(got) + r * 64, floats(want) + r * 64, static_cast<std::size_t>(tokens) * 4))
                << name_of(storage) << " dim " << dim << " rows " << rows << " row " << r;
          auto few = weights;  // of hidden tokens 0
          for (Index i = 0; i < rows * kTileTokens; ++i)
            if (i % kTileTokens >= tokens) floats(few)[i] = 0;
          kernels->weighted_sum[s]({few.data(), values.data(), floats(sums), rows, dv, tokens, nullptr, ahead});
          kernels->weighted_sum[f32](
              {few.data(), wide_values.data(), floats(want_sums), rows, dv, tokens, nullptr, ahead});
          for (Index i = 0; i < rows * dv; ++i)
            ASSERT_TRUE(same_bits(floats(sums)[i], floats(want_sums)[i]))
                << name_of(storage) << " dim " << dim << " rows " << rows << " sum " << i;
        }
      }
  }
}

HEADWISE_FOR_EVERY_TABLE(NarrowTiles);

}  // namespace
}  // namespace headwise
