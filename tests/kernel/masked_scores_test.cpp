// SPDX-License-Identifier: MIT
// Scores that know which keys each row sees: their weights are, bit for bit, those of a softmax in memory of scores whose
// hidden ones were made −inf there.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/kernel/tables.hpp"

namespace headwise {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
constexpr Index kDim = 24, kMostRows = 23;

/// Rows, a tile of keys of any storage, and what each row sees of it.
struct Meeting {
  Meeting(const TileKernels& table, Storage kind, Index count, unsigned seed)
      : kernels(table), storage(kind), rows(count), generator(seed) {
    std::normal_distribution<float> normal;
    std::vector<float> numbers(kTileTokens * kDim);
    for (float& x : numbers) x = normal(generator);
    keys.resize(static_cast<std::size_t>(key_tile_bytes(storage, kDim)) + 64);
    if (is_element(storage)) {
      for (Index t = 0; t < kTileTokens; ++t)
        for (Index d = 0; d < kDim; ++d)
          store_element(key_tile(), storage, key_index(storage, kDim, t, d),
                        numbers[static_cast<std::size_t>(t * kDim + d)]);
    } else {  // any codes; scales of about 1/64 where there are some
      for (char& byte : keys) byte = static_cast<char>(generator() % 40);
      if (has_scales(storage)) {
        char* const scales =
            key_tile() + key_tile_bytes(storage, kDim) - 2 * kTileTokens * scales_per_token(storage, kDim);
        for (Index i = 0; i < kTileTokens * scales_per_token(storage, kDim); ++i)
          store_element(scales, Storage::bf16, i, 0.015f);
      }
    }
    queries.resize(static_cast<std::size_t>(rows * row_bytes(operand(), padded_head_dim(kDim))) + 64);
    for (Index r = 0; r < rows; ++r) {
      for (Index d = 0; d < kDim; ++d) numbers[static_cast<std::size_t>(d)] = normal(generator);
      kernels.prepare_row(numbers.data(), Storage::f32, kDim, padded_head_dim(kDim), 0.3f, operand(),
                          aligned(queries) + r * row_bytes(operand(), padded_head_dim(kDim)));
    }
    for (Index r = 0; r < rows; ++r) {
      std::uint64_t word = generator();
      word = word << 32 | generator();
      switch (generator() % 6) {
        case 0:
          word = 0;
          break;
        case 1:
          word = ~std::uint64_t{0};
          break;
        case 2:
          word >>= generator() % 64;
          break;
        case 3:
          word = (std::uint64_t{1} << generator() % 64) - 1;
          break;
        default:
          break;
      }
      visible.push_back(word);
      ends.push_back(std::max<Index>(r > 0 ? ends.back() : 0, static_cast<Index>(std::bit_width(word))));
    }
  }

  static char* aligned(std::vector<char>& bytes) {
    const auto at = reinterpret_cast<std::uintptr_t>(bytes.data());
    return bytes.data() + (64 - at % 64) % 64;
  }
  char* key_tile() { return aligned(keys); }
  Operand operand() const { return kernels.operand[static_cast<int>(storage)]; }

  ScoreArgs args(float* scores) {
    return {aligned(queries), key_tile(), scores, rows, padded_head_dim(kDim), ends.back(), ends.data(), {}};
  }
  bool meet(const ScoreArgs& args, const SoftmaxState* softmax) const {
    return kernels.scores[static_cast<int>(storage)](args, softmax);
  }

  const TileKernels& kernels;
  Storage storage;
  Index rows;
  std::mt19937 generator;
  std::vector<char> keys, queries;
  std::vector<std::uint64_t> visible;
  std::vector<Index> ends;
};

/// A softmax's state in memory that holds NaN where nothing was written.
struct State {
  State(Index rows, float of_all)
      : max(static_cast<std::size_t>(rows), of_all),
        sum(static_cast<std::size_t>(rows * kMaxLanes), 0.5f),
        tile_sum(sum.size(), kNan),
        weights(static_cast<std::size_t>(rows * kTileTokens), kNan) {}
  SoftmaxState of(Operand operand) { return {max.data(), sum.data(), tile_sum.data(), weights.data(), operand}; }
  std::vector<float> max, sum, tile_sum, weights;
};

void expect_same_bits(const std::vector<float>& actual, const std::vector<float>& expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i)
    ASSERT_EQ(std::bit_cast<std::uint32_t>(actual[i]), std::bit_cast<std::uint32_t>(expected[i]))
        << what << " at " << i;
}

class MaskedScoresTest : public testing::EveryTable {
 protected:
  /// f(meeting, what it is) for every storage whose scores there are, and some numbers of rows.
  template <class F>
  void for_each_meeting(F f) {
    for (int s = 0; s < kStorages; ++s) {
      const auto storage = static_cast<Storage>(s);
      if (!kernels->scores[s]) continue;
      for (const Index rows :
           {Index{1}, Index{2}, Index{3}, Index{4}, Index{5}, Index{7}, Index{8}, Index{12}, kMostRows}) {
        if (rows >= kernels->widen_rows[s]) continue;
        Meeting meeting(*kernels, storage, rows, static_cast<unsigned>(100 * s + rows));
        f(meeting, std::string(name_of(storage)) + ", " + std::to_string(rows) + " rows");
        if (HasFatalFailure()) return;
      }
    }
  }
};

TEST_P(MaskedScoresTest, AreMinusInfinityWhereARowDoesNotSeeAndTheSameWhereItDoes) {
  for_each_meeting([&](Meeting& meeting, const std::string& what) {
    std::vector<float> all(static_cast<std::size_t>(meeting.rows * kTileTokens), kNan), masked = all;
    ScoreArgs args = meeting.args(all.data());
    args.ends = nullptr, args.tokens = kTileTokens;
    meeting.meet(args, nullptr);
    for (Index r = 0; r < meeting.rows; ++r)
      for (Index t = 0; t < kTileTokens; ++t)
        if ((meeting.visible[static_cast<std::size_t>(r)] >> t & 1) == 0)
          all[static_cast<std::size_t>(r * kTileTokens + t)] = -kInf;
    args = meeting.args(masked.data());
    args.visible = meeting.visible.data();
    meeting.meet(args, nullptr);
    expect_same_bits(masked, all, what);
  });
}

TEST_P(MaskedScoresTest, WeighAsASoftmaxInMemoryOfScoresWhoseHiddenOnesAreMinusInfinity) {
  for_each_meeting([&](Meeting& meeting, const std::string& what) {
    for (const Operand operand : {Operand::f32, Operand::bf16_pair}) {
      if (!kernels->fuses(meeting.storage, operand)) continue;
      std::vector<float> scores(static_cast<std::size_t>(meeting.rows * kTileTokens), kNan);
      State fused(meeting.rows, 1.0f), apart(meeting.rows, 1.0f);
      ScoreArgs args = meeting.args(scores.data());
      args.visible = meeting.visible.data();
      const SoftmaxState fused_state = fused.of(operand), apart_state = apart.of(operand);
      ASSERT_FALSE(meeting.meet(args, &fused_state)) << what;
      meeting.meet(args, nullptr);
      ASSERT_FALSE(kernels->softmax(scores.data(), meeting.rows, apart_state)) << what;
      if (operand == Operand::bf16_pair) {  // half of the memory
        fused.weights.resize(fused.weights.size() / 2);
        apart.weights.resize(apart.weights.size() / 2);
      }
      expect_same_bits(fused.weights, apart.weights, "weights, " + what);
      expect_same_bits(fused.sum, apart.sum, "sums, " + what);
    }
  });
}

TEST_P(MaskedScoresTest, OfATransformAreThereForARescale) {
  for_each_meeting([&](Meeting& meeting, const std::string& what) {
    std::vector<ScoreRowInfo> infos;
    std::vector<float> added(static_cast<std::size_t>(kTileTokens * 2));
    std::vector<const float*> added_of;
    for (float& x : added) x = static_cast<float>(meeting.generator() % 16) / 4;
    for (Index r = 0; r < meeting.rows; ++r) {
      infos.push_back({0, r, 70 + r, 0.01f * static_cast<float>(r), nullptr});
      added_of.push_back(added.data() + r % 2 * kTileTokens);
    }
    const ScoreTransform how{kernels->softcap, infos.data(), 0.5f, 2.0f, true, false, 0, 0, 1.0f, 0, added_of.data()};
    std::vector<float> alone(static_cast<std::size_t>(meeting.rows * kTileTokens), kNan), beside = alone;
    ScoreArgs args = meeting.args(alone.data());
    args.transform = &how;
    args.visible = meeting.visible.data();
    meeting.meet(args, nullptr);
    State state(meeting.rows, 1.0f);
    const SoftmaxState softmax = state.of(Operand::f32);
    args.scores = beside.data();
    ASSERT_FALSE(meeting.meet(args, &softmax)) << what;
    for (Index r = 0; r < meeting.rows; ++r)
      for (Index t = 0; t < kTileTokens; ++t)
        if ((meeting.visible[static_cast<std::size_t>(r)] >> t & 1) == 0)
          beside[static_cast<std::size_t>(r * kTileTokens + t)] = -kInf;
    expect_same_bits(beside, alone, what);
  });
}

TEST_P(MaskedScoresTest, OfHiddenKeysAskForNoRescaleWhateverTheyAre) {
  // the second row has seen no key, the third a NaN: neither sees any of this tile
  constexpr Index kRows = 3;
  alignas(64) float queries[kRows * 8], keys[kTileTokens * 8], scores[kRows * kTileTokens];
  std::fill_n(queries, kRows * 8, 1.0f);
  std::fill_n(keys, kTileTokens * 8, 0.0f);
  for (Index d = 0; d < 8; ++d) {
    keys[key_index(Storage::f32, 8, 7, d)] = kNan;
    keys[key_index(Storage::f32, 8, 30, d)] = 100.0f;
  }
  const std::uint64_t visible[kRows] = {~(std::uint64_t{1} << 7 | std::uint64_t{1} << 30), 0, 0};
  ScoreArgs args{queries, keys, scores, kRows, 8, kTileTokens, nullptr, {}};
  args.visible = visible;
  State state(kRows, 0.0f);
  state.max[1] = -kInf;
  state.max[2] = kNan;
  const SoftmaxState softmax = state.of(Operand::f32);
  ASSERT_FALSE(kernels->scores[static_cast<int>(Storage::f32)](args, &softmax));
  for (Index t = 0; t < kTileTokens; ++t) {
    EXPECT_EQ(state.weights[static_cast<std::size_t>(t)], t == 7 || t == 30 ? 0.0f : 1.0f);
    EXPECT_EQ(state.weights[static_cast<std::size_t>(64 + t)], 0.0f);
    EXPECT_EQ(state.weights[static_cast<std::size_t>(128 + t)], 0.0f);
  }
  // where it is seen it does
  const std::uint64_t sees_it[kRows] = {visible[0] | std::uint64_t{1} << 30, 0, 0};
  args.visible = sees_it;
  EXPECT_TRUE(kernels->scores[static_cast<int>(Storage::f32)](args, &softmax));
}

TEST_P(MaskedScoresTest, NumbersThatAMaskAddsAreScaledAndKnownForWhatTheyAre) {
  for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16})
    for (const Index tokens : {0, 1, 15, 16, 17, 63, 64}) {
      std::vector<char> numbers(static_cast<std::size_t>(tokens * size_of(storage)) + 1);
      const auto set = [&](Index t, float x) { store_element(numbers.data() + 1, storage, t, x); };
      const auto kinds = [&](std::vector<float>& added) {
        return kernels->prepare_added(numbers.data() + 1, storage, tokens, {2.0f, 1000.0f}, added.data());
      };
      for (Index t = 0; t < tokens; ++t) set(t, 0.0f);
      std::vector<float> added(kTileTokens, kNan);
      AddedKinds found = kinds(added);
      EXPECT_EQ(found.seen, ~std::uint64_t{0});
      EXPECT_FALSE(found.some || found.beyond);
      EXPECT_EQ(added, std::vector<float>(kTileTokens, 0.0f));
      if (tokens == 0) continue;
      const Index last = tokens - 1;
      set(last, -kInf);
      found = kinds(added);
      EXPECT_EQ(found.seen, ~(std::uint64_t{1} << last));
      EXPECT_FALSE(found.some || found.beyond);
      EXPECT_EQ(added[static_cast<std::size_t>(last)], -kInf);
      set(last, -0.5f);
      found = kinds(added);
      EXPECT_EQ(found.seen, ~std::uint64_t{0});
      EXPECT_TRUE(found.some && !found.beyond);
      EXPECT_EQ(added[static_cast<std::size_t>(last)], -1.0f);
      for (const float x : {-1024.0f, kInf, kNan}) {
        set(last, x);
        found = kinds(added);
        EXPECT_EQ(found.seen, ~std::uint64_t{0});
        EXPECT_TRUE(found.some && found.beyond) << x;
      }
    }
}

TEST_P(MaskedScoresTest, NumbersAreAllWithinABoundUntilOneIsNot) {
  constexpr float kMost = std::numeric_limits<float>::max();
  for (const Index count : {16, 48, 128})
    for (const float bound : {1024.0f, kMost}) {
      std::vector<float> x(static_cast<std::size_t>(count), -bound);
      x[0] = bound;
      EXPECT_TRUE(kernels->all_within(x.data(), count, bound));
      for (const Index at : {Index{0}, count / 2, count - 1})
        for (const float bad : {kNan, kInf, -kInf, bound * 1.001f, bound * -1.001f}) {
          x[static_cast<std::size_t>(at)] = bad;
          EXPECT_FALSE(kernels->all_within(x.data(), count, bound));
          x[static_cast<std::size_t>(at)] = 0.0f;
        }
    }
}

HEADWISE_FOR_EVERY_TABLE(MaskedScoresTest);

}  // namespace
}  // namespace headwise
