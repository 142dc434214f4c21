// SPDX-License-Identifier: MIT
// The kernels that sum weights over rows: exact integers, whatever the table.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

class MassKernels : public testing::EveryTable {};

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST_P(MassKernels, ScoresBecomeSoftmaxWeights) {
  std::vector<float> scores, max{1000.5f, -3.0f, 0.0f, 2.0f}, factor{0.25f, 0x1p38f, 0.0f, 1.0f},
      weights(4 * kTileTokens);
  for (Index i = 0; i < 4 * kTileTokens; ++i) {
    const Index row = i / kTileTokens;
    const float below = static_cast<float>(i % kTileTokens) * (row == 1 ? 1.3f : 2.37f) + (row == 1 ? 38 : 0);
    scores.push_back(i % 11 == 0 ? -kInfinity : max[static_cast<std::size_t>(row)] - below);
  }
  kernels->softmax_weights(scores.data(), 4, max.data(), factor.data(), weights.data());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::size_t row = i / kTileTokens;
    const double want =
        std::exp2(static_cast<double>(scores[i]) - static_cast<double>(max[row])) * static_cast<double>(factor[row]);
    // the difference is rounded, and the exponent added to it
    EXPECT_NEAR(static_cast<double>(weights[i]), want, want * 256 * 0x1p-24 + 0x1p-125) << i;
  }
}

/// Weights of rows in tiles, as a record keeps them, and the sums that are due.
struct Paid {
  Operand operand;
  Index rows, tiles, heads, tile_bytes;
  std::vector<char> memory;
  std::vector<float> row_max, row_factor;

  Paid(Operand kept, Index row_count, Index tile_count, Index head_count)
      : operand(kept),
        rows(row_count),
        tiles(tile_count),
        heads(head_count),
        tile_bytes(4 * round_up(rows, kMaxLanes) + rows * row_bytes(kept, kTileTokens)),
        memory(static_cast<std::size_t>(tiles * tile_bytes)) {
    std::mt19937 random(3);
    std::uniform_real_distribution<float> uniform;
    for (Index i = 0; i < tiles; ++i) {
      for (Index r = 0; r < rows; ++r) {
        store_element(max(i), Storage::f32, r, r % 7 == 3 ? -kInfinity : -4 * uniform(random));
        for (Index t = 0; t < kTileTokens; ++t)
          store_element(weights(i), storage(), r * kTileTokens + t,
                        t % 5 == 0    ? 0.0f
                        : t % 11 == 0 ? 1.0f
                                      : uniform(random) * 0x1p-6f);
      }
    }
    // a factor of 1 makes a weight of 1 the largest there is
    for (Index r = 0; r < round_up(rows, kMaxLanes); ++r) {
      row_max.push_back(r < rows ? uniform(random) * 3 : 0);
      row_factor.push_back(r % 4 == 0 ? 1.0f : r % 4 == 1 ? 0.0f : uniform(random) * 0.5f);
    }
  }

  Storage storage() const { return operand == Operand::f32 ? Storage::f32 : Storage::bf16; }
  char* max(Index tile) { return memory.data() + tile * tile_bytes; }
  char* weights(Index tile) { return max(tile) + 4 * round_up(rows, kMaxLanes); }

  /// In units, and how far off what is computed may be: factors have an error that may take a product over a half.
  double units(Index head, Index key) {
    double sum = 0;
    for (Index r = head; r < rows; r += heads) {
      const auto at = static_cast<std::size_t>(r);
      const double below =
          static_cast<double>(load_element(max(key / kTileTokens), Storage::f32, r)) - static_cast<double>(row_max[at]);
      const double weight =
          static_cast<double>(load_element(weights(key / kTileTokens), storage(), r * kTileTokens + key % kTileTokens));
      sum += std::nearbyint(weight * std::exp2(below) * static_cast<double>(row_factor[at]) * 0x1p23);
    }
    return sum;
  }
  double slack() const { return static_cast<double>(ceil_div(rows, heads)) * 8; }

  void add(const TileKernels& kernels, MassTo to, void* const* masses, Index keys) {
    kernels.add_mass({weights(0), reinterpret_cast<const float*>(max(0)), tile_bytes, tiles, operand, row_max.data(),
                      row_factor.data(), rows, heads, to, masses, keys});
  }
};

TEST_P(MassKernels, SumsOfRoundedWeightsAreThoseOfPlainLoops) {
  for (const Operand operand : {Operand::f32, Operand::bf16_pair})
    for (const Index rows : {1, 2, 5, 96, 288, 510})
      for (const Index heads : {1, 3}) {
        const Index tiles = 3, present = std::min(heads, rows);
        Paid paid(operand, rows, tiles, heads);
        std::vector<std::vector<std::uint64_t>> sums(3, std::vector<std::uint64_t>(3 * kTileTokens, 5));
        void* const to[] = {sums[0].data(), sums[1].data(), sums[2].data()};
        paid.add(*kernels, MassTo::sum, to, tiles * kTileTokens);
        for (Index h = 0; h < heads; ++h)
          for (Index t = 0; t < tiles * kTileTokens; ++t)
            ASSERT_NEAR(static_cast<double>(sums[static_cast<std::size_t>(h)][static_cast<std::size_t>(t)]),
                        5 + (h < present ? paid.units(h, t) : 0), paid.slack())
                << rows << " rows, head " << h << ", key " << t;
      }
}

TEST_P(MassKernels, AreSetOrAddedInWeightsAndEndWithTheKeys) {
  for (const Operand operand : {Operand::f32, Operand::bf16_pair})
    for (const Index rows : {1, 4, 300})
      for (const Index heads : {1, 4})
        for (const Index keys : {129, 160, 191, 192}) {
          Paid paid(operand, rows, 3, heads);
          const Index present = std::min(heads, rows);
          std::vector<std::uint64_t> units(static_cast<std::size_t>(4 * 192));
          std::vector<float> set(static_cast<std::size_t>(4 * 200), 7.0f), added = set;
          const auto addresses = [&](auto& memory, Index stride) {
            std::vector<void*> at;
            for (Index h = 0; h < present; ++h) at.push_back(memory.data() + h * stride);
            return at;
          };
          paid.add(*kernels, MassTo::sum, addresses(units, 192).data(), 192);
          paid.add(*kernels, MassTo::set, addresses(set, 200).data(), keys);
          paid.add(*kernels, MassTo::add, addresses(added, 200).data(), keys);
          for (Index h = 0; h < present; ++h)
            for (Index t = 0; t < 200; ++t) {
              const auto at = static_cast<std::size_t>(h * 200 + t);
              const float mass =
                  t < keys ? static_cast<float>(units[static_cast<std::size_t>(h * 192 + t)]) * kMassUnit : 0;
              ASSERT_EQ(set[at], t < keys ? mass : 7.0f) << rows << " rows, head " << h << ", key " << t;
              ASSERT_EQ(added[at], 7.0f + mass) << rows << " rows, head " << h << ", key " << t;
            }
        }
}

TEST_P(MassKernels, ColumnsBecomeRowsOfAnyLength) {
  std::mt19937 random(4);
  std::uniform_real_distribution<float> uniform;
  for (const Index rows : {1, 3, 4, 8, 17, 32})
    for (const Index columns : {1, 15, 16, 63, 64})
      for (const bool adds : {false, true}) {
        const Index from_stride = 70, to_stride = 37;
        std::vector<float> from(static_cast<std::size_t>(rows * from_stride));
        for (float& x : from) x = uniform(random);
        std::vector<float> to(static_cast<std::size_t>(columns * to_stride + 1), 3.0f);
        char* const misaligned = reinterpret_cast<char*>(to.data()) + 1;
        kernels->transpose(from.data(), from_stride, rows, columns, misaligned, to_stride, false);
        if (adds) kernels->transpose(from.data(), from_stride, rows, columns, misaligned, to_stride, true);
        for (Index c = 0; c < columns; ++c)
          for (Index r = 0; r < rows; ++r) {
            const float x = from[static_cast<std::size_t>(r * from_stride + c)];
            ASSERT_EQ(load_element(misaligned, Storage::f32, c * to_stride + r), adds ? x + x : x);
          }
        for (Index i = rows; i + 1 < to_stride; ++i)  // what lies between rows is left
          ASSERT_EQ(std::memcmp(misaligned + 4 * i, reinterpret_cast<char*>(to.data() + to_stride - 2) + 1, 4), 0);
      }
}

HEADWISE_FOR_EVERY_TABLE(MassKernels);

}  // namespace
}  // namespace headwise
