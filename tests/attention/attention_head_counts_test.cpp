// SPDX-License-Identifier: MIT
// Keys and values of different head counts in the caller's memory: as if the fewer were repeated, without being copied.
#include "tests/attention/oracle.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

/// [token][head][dim] with every head `times` times, one behind another.
std::vector<float> repeated(const std::vector<float>& heads, Index dim, Index times) {
  std::vector<float> result;
  for (std::size_t at = 0; at < heads.size(); at += static_cast<std::size_t>(dim))
    for (Index i = 0; i < times; ++i)
      result.insert(result.end(), heads.begin() + static_cast<Index>(at), heads.begin() + static_cast<Index>(at) + dim);
  return result;
}

struct Counts {
  Index queries, keys, values;  // heads
};
constexpr Counts kCounts[] = {{8, 4, 2}, {8, 8, 1}, {6, 2, 6}, {12, 1, 3}, {4, 4, 4}, {16, 16, 8}};
constexpr Index kTokens = 150, kDim = 40, kValueDim = 56;

/// Inputs of max(keys, values) KV heads whose fewer heads are repeated; `k` and `v` are what is stored.
struct Uneven {
  Inputs in;
  std::vector<float> k, v;

  Uneven(const Counts& heads, Index sequences, unsigned seed)
      : in({heads.queries, std::max(heads.keys, heads.values), kDim, kValueDim}, sequences, 3, kTokens, seed) {
    const Inputs keys({heads.keys, heads.keys, kDim}, sequences, 0, kTokens, seed + 1),
        values({heads.values, heads.values, kValueDim}, sequences, 0, kTokens, seed + 2);
    k = keys.k;
    v = values.k;
    in.k = repeated(k, kDim, in.heads.num_kv_heads() / heads.keys);
    in.v = repeated(v, kValueDim, in.heads.num_kv_heads() / heads.values);
  }
};

class AttentionHeadCounts : public EveryIsa {};

TEST_P(AttentionHeadCounts, OfRowsPairUpAsIfTheFewerWereRepeated) {
  ThreadPool pool(2);
  unsigned seed = 0;
  for (const Counts& heads : kCounts) {
    const Uneven data(heads, 2, ++seed);
    const Expected expected(data.in);
    for (const Storage storage : kAllStorages)
      for (const Layout layout : kAllLayouts) {
        Memory k(data.k, storage, 2, kTokens, heads.keys, kDim, layout),
            v(data.v, storage, 2, kTokens, heads.values, kValueDim, layout);
        with_type(storage, [&]<class T>() {
          const KvRows rows(k.view<const T>(), v.view<const T>());
          const Results results = run_over(rows, data.in);
          expected.check(results, {.source = Source::packed_rows, .storage = storage});
          EXPECT_EQ(run_over(rows, data.in, {}, pool), results);
        });
        if (HasFatalFailure()) return;
      }
  }
}

TEST_P(AttentionHeadCounts, OfBlocksPairUpAsThoseOfRows) {
  for (const Counts& heads : kCounts) {
    const Uneven data(heads, 1, 20);
    constexpr Index kBlock = 50, kBlocks = kTokens / kBlock;  // in their order in memory
    Memory k(data.k, Storage::f32, kBlocks, kBlock, heads.keys, kDim),
        v(data.v, Storage::f32, kBlocks, kBlock, heads.values, kValueDim);
    const std::vector<std::int32_t> table{0, 1, 2};
    const std::vector<Index> lengths{kTokens};
    const KvBlocks blocks(k.view<const float>(), v.view<const float>(), BlockTable(table.data(), 1, kBlocks), lengths);
    Memory rows_k(data.k, Storage::f32, 1, kTokens, heads.keys, kDim),
        rows_v(data.v, Storage::f32, 1, kTokens, heads.values, kValueDim);
    EXPECT_EQ(run_over(blocks, data.in),
              run_over(KvRows(rows_k.view<const float>(), rows_v.view<const float>()), data.in));
  }
}

HEADWISE_FOR_EVERY_ISA(AttentionHeadCounts);

TEST(HeadCounts, ThatDoNotPairUpAreRefused) {
  const std::vector<float> memory(1000);
  const auto rows = [&](Index keys, Index values) {
    return
        [&memory, keys, values] { (void)KvRows(View(memory.data(), 3, keys, 8), View(memory.data(), 3, values, 8)); };
  };
  expect_error(rows(4, 3), {"heads (3) of the values", "keys (4)", "multiple or a divisor"});
  expect_error(rows(2, 5), {"heads (5) of the values"});
  expect_error(rows(2, 0), {"heads (0) of the values"});
  const std::vector<float> q(1000);
  std::vector<float> out(1000);
  expect_error(
      [&] {
        Attention<>(Heads<>{4, 2, 8})(View(q.data(), 1, 4, 8),
                                      KvRows(View(memory.data(), 3, 4, 8), View(memory.data(), 3, 2, 8)),
                                      View(out.data(), 1, 4, 8));
      },
      {"KV heads of the keys and values (4)", "num_kv_heads (2)"});
}

}  // namespace
}  // namespace headwise
