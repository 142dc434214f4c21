// SPDX-License-Identifier: MIT
// Keys and values in blocks of the caller's give the bits of the same tokens in rows, wherever the blocks lie, whatever
// their size, and nothing that no length reaches is read.
#include <algorithm>
#include <numeric>

#include "tests/attention/run.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// The tokens of Inputs, as many of each sequence as its length says, in shuffled blocks of NaN. Sequences of equal first
/// tokens share the blocks that hold nothing else.
class Blocks {
 public:
  Blocks(const Inputs& in, Index block_size, std::vector<Index> lengths, Storage keys, Storage values, Layout layout,
         Index shared_tokens = 0)
      : lengths_(std::move(lengths)), max_blocks_(ceil_div(in.key_tokens, block_size) + 2) {
    const Heads<>& heads = in.heads;
    Index used = 0;
    // behind what a length reaches: numbers that are no blocks
    table_.assign(static_cast<std::size_t>(in.sequences * max_blocks_), -12345);
    const auto entry = [&](Index b, Index j) -> std::int32_t& {
      return table_[static_cast<std::size_t>(b * max_blocks_ + j)];
    };
    for (Index b = 0; b < in.sequences; ++b)
      for (Index j = 0; j * block_size < length(b); ++j)
        entry(b, j) = b > 0 && (j + 1) * block_size <= std::min(shared_tokens, std::min(length(0), length(b)))
                          ? entry(0, j)
                          : static_cast<std::int32_t>(used++);
    const Index blocks = used + 3;
    std::vector<std::int32_t> place(static_cast<std::size_t>(blocks));
    std::iota(place.begin(), place.end(), 0);
    std::shuffle(place.begin(), place.end(), std::mt19937(7));
    for (auto& block : table_)
      if (block >= 0) block = place[static_cast<std::size_t>(block)];

    const auto in_blocks = [&](const std::vector<float>& tokens, Index row) {
      std::vector<float> result(static_cast<std::size_t>(blocks * block_size * row), kNan);
      for (Index b = 0; b < in.sequences; ++b)
        for (Index t = 0; t < length(b); ++t)
          std::copy_n(tokens.begin() + (b * in.key_tokens + t) * row, row,
                      result.begin() + (entry(b, t / block_size) * block_size + t % block_size) * row);
      return result;
    };
    const Index n = heads.num_kv_heads(), dk = heads.head_dim(), dv = heads.value_dim();
    keys_.emplace_back(in_blocks(in.k, n * dk), keys, blocks, block_size, n, dk, layout);
    values_.emplace_back(in_blocks(in.v, n * dv), values, blocks, block_size, n, dv, layout);
  }

  template <class K, class V = K>
  KvBlocks source() {
    return {keys_[0].view<const K>(), values_[0].view<const V>(),
            BlockTable(table_.data(), std::ssize(lengths_), max_blocks_), lengths_};
  }

 private:
  Index length(Index b) const { return lengths_[static_cast<std::size_t>(b)]; }

  std::vector<Index> lengths_;
  Index max_blocks_;
  std::vector<std::int32_t> table_;
  std::vector<Memory> keys_, values_;  // one each
};

constexpr Index kSizes[] = {1, 16, 17, 48, 64, 100, 128, 256};

class AttentionBlocks : public EveryIsa {};

TEST_P(AttentionBlocks, GiveTheBitsOfRowsForEveryBlockSizeLengthAndWindow) {
  const std::vector<Index> lengths{300, 0, 63, 257}, queries{1, 0, 1, 1}, many{7, 0, 63, 40};
  const Options options[] = {{.key_lengths = lengths, .query_lengths = queries},
                             {.key_lengths = lengths, .query_lengths = many},
                             {.window = 90, .key_lengths = lengths, .query_lengths = many}};
  for (const Storage storage : kAllStorages) {
    const Inputs in({8, 2, 40, 24}, 4, 63, 300, 41, {.coarse = false, .storage = storage});
    for (const Options& option : options) {
      const Results rows = run(in, {.source = Source::packed_rows, .storage = storage}, option);
      Options without = option;
      without.key_lengths = {};
      for (const Index size : kSizes) {
        Blocks blocks(in, size, lengths, storage, storage, Layout::packed);
        with_type(storage, [&]<class T>() {
          EXPECT_EQ(run_over(blocks.source<T>(), in, without), rows)
              << "blocks of " << size << " of " << headwise::name_of(storage);
        });
      }
    }
  }
}

TEST_P(AttentionBlocks, GiveTheBitsOfRowsOverSeveralSegmentsAndThreads) {
  const std::vector<Index> lengths{2200};
  const Inputs in({16, 8, 64}, 1, 3, 2200, 42, {.coarse = false});
  const Results rows = run(in, {.source = Source::packed_rows});
  ThreadPool pool(3);
  for (const Index size : {16, 17, 256}) {
    Blocks blocks(in, size, lengths, Storage::f32, Storage::f32, Layout::packed);
    EXPECT_EQ(run_over(blocks.source<float>(), in), rows) << "blocks of " << size;
    EXPECT_EQ(run_over(blocks.source<float>(), in, {}, pool), rows) << "blocks of " << size;
  }
}

TEST_P(AttentionBlocks, GiveTheBitsOfRowsForAnyDimensionAndLayout) {
  const std::vector<Index> lengths{150, 97};
  for (const auto& [dim, value_dim] :
       {std::pair<Index, Index>{1, 1}, {2, 5}, {46, 33}, {80, 128}, {128, 80}, {512, 511}})
    for (const Storage storage : kAllStorages) {
      const Inputs in({4, 2, dim, value_dim}, 2, 5, 150, 43, {.coarse = false, .storage = storage});
      const Results rows = run(in, {.source = Source::packed_rows, .storage = storage}, {.key_lengths = lengths});
      for (const Layout layout : kAllLayouts)
        for (const Index size : {16, 100}) {
          Blocks blocks(in, size, lengths, storage, storage, layout);
          with_type(storage, [&]<class T>() {
            EXPECT_EQ(run_over(blocks.source<T>(), in), rows)
                << dim << ", " << value_dim << ", layout " << static_cast<int>(layout) << ", blocks of " << size;
          });
        }
    }
}

TEST_P(AttentionBlocks, MayBeSharedBySequences) {
  Inputs in({6, 3, 32}, 3, 4, 200, 44);
  const Index shared = 130;
  for (Index b = 1; b < 3; ++b) {
    std::copy_n(in.k.begin(), shared * 3 * 32, in.k.begin() + b * 200 * 3 * 32);
    std::copy_n(in.v.begin(), shared * 3 * 32, in.v.begin() + b * 200 * 3 * 32);
  }
  const std::vector<Index> lengths{200, 131, 130};
  const Results rows = run(in, {.source = Source::packed_rows}, {.key_lengths = lengths});
  for (const Index size : kSizes) {
    Blocks blocks(in, size, lengths, Storage::f32, Storage::f32, Layout::packed, shared);
    EXPECT_EQ(run_over(blocks.source<float>(), in), rows) << "blocks of " << size;
  }
}

TEST_P(AttentionBlocks, MayHoldKeysAndValuesOfDifferentTypes) {
  const Inputs in({4, 2, 24, 40}, 1, 3, 100, 45);
  const std::vector<Index> lengths{100};
  Memory k(in.k, Storage::bf16, 1, 100, 2, 24), v(in.v, Storage::f16, 1, 100, 2, 40);
  Blocks blocks(in, 16, lengths, Storage::bf16, Storage::f16, Layout::packed);
  EXPECT_EQ(run_over(blocks.source<bf16, f16>(), in), run_over(KvRows(k.view<const bf16>(), v.view<const f16>()), in));
}

HEADWISE_FOR_EVERY_ISA(AttentionBlocks);

}  // namespace
}  // namespace headwise
