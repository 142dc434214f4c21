// SPDX-License-Identifier: MIT
// Attention allocates nothing after the first call of its size, which counted_new.hpp sees for the whole test program,
// except where a sanitizer brings its own operator new.
#include "tests/support/sanitizers.hpp"

#if !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include <gtest/gtest.h>

#include <array>

#include "tests/attention/ragged.hpp"
#include "tests/support/counted_new.hpp"

namespace headwise {
namespace {

using namespace testing;

/// One thread that promises three, so that work is split and every call runs where the first one ran.
struct Promising {
  Index concurrency() const { return 3; }
  template <class F>
  void parallel_for(Index n, F&& f) const {
    for (Index i = 0; i < n; ++i) f(i);
  }
};

TEST(Allocation, OfTheFirstCallAreSeenByTheCounter) {
  const long before = allocations;
  const Inputs in({8, 2, 64}, 1, 1, 10);
  EXPECT_GT(allocations, before);
}

TEST(Allocation, DecodingMakesNoneAfterTheFirstCall) {
  const Inputs in({8, 2, 64}, 2, 1, 2100);
  std::vector<float> out(2 * 8 * 64), lse(2 * 8);
  const View<const float> q(in.q.data(), 2, 1, 8, 64);
  const Outputs outputs{View<float>(out.data(), 2, 1, 8, 64), View<float>(lse.data(), 2, 1, 8, 1)};
  const Gqa<8, 2, 64> attend;
  for (const Storage storage : kAllStorages)
    for (const Source source : {Source::cache, Source::packed_rows})
      with_source(in, {.source = source, .storage = storage}, [&](const auto& kv) {
        attend(q, kv, outputs);
        const long before = allocations;
        for (int step = 0; step < 10; ++step) attend(q, kv, outputs, {.window = 100 * step, .softcap = 3.0f});
        attend(q, kv, outputs);
        EXPECT_EQ(allocations, before) << testing::name_of(source) << " of " << headwise::name_of(storage);
      });
}

TEST(Allocation, DecodingWithNormAndRopeMakesNoneAfterTheFirstCall) {
  const Inputs in({8, 2, 64}, 2, 1, 2100);
  std::vector<float> out(2 * 8 * 64);
  const View<const float> q(in.q.data(), 2, 1, 8, 64);
  const View<float> output(out.data(), 2, 1, 8, 64);
  const Gqa<8, 2, 64> attend;
  const auto cache = cache_of<bf16>(in);
  const QkNorm norm(64);
  const Rope rope(64, {.scaling = DynamicNtkScaling{.factor = 2, .original_max_position = 100}});
  const auto step = [&](Index position) {
    const std::array<Index, 2> positions{position, 7};
    attend(q, cache, output, {.query_norm = &norm, .query_rope = &rope, .query_positions = positions}, Promising{});
  };
  step(0);
  const long before = allocations;
  for (Index position = 1; position < 10; ++position) step(position);
  EXPECT_EQ(allocations, before);
}

TEST(Allocation, GroupsThatChangeFromCallToCallMakeNone) {
  const Inputs in({8, 2, 64}, 2, 1, 2100);
  std::vector<float> out(2 * 8 * 64);
  const View<const float> q(in.q.data(), 2, 1, 8, 64);
  const Gqa<8, 2, 64> attend;
  const auto of_both = [](Index a, Index b) { return std::array<Index, 6>{0, a, 8, 0, b, 8}; };
  for (const Source source : {Source::cache, Source::packed_rows})
    with_source(in, {.source = source, .storage = Storage::bf16}, [&](const auto& kv) {
      const auto call = [&](Index a, Index b) {
        const auto boundaries = of_both(a, b);
        attend(q, kv, View<float>(out.data(), 2, 1, 8, 64), {.group_boundaries = boundaries});
      };
      call(0, 8);  // the largest group: all memory that any other needs
      const long before = allocations;
      for (Index first = 0; first <= 8; ++first) call(first, 8 - first);
      EXPECT_EQ(allocations, before) << testing::name_of(source);
    });
}

TEST(Allocation, MixedStepsMakeNoneAfterTheFirstCall) {
  const RaggedBatch batch({8, 2, 64}, {{150, 150}, {1, 5000}, {0, 20}, {7, 1100}, {1, 40}});
  const Options options = batch.over_all({});
  std::vector<float> out(batch.queries.q.size());
  const View<const float> q(batch.queries.q.data(), 1, batch.queries.query_tokens, 8, 64);
  const View<float> output(out.data(), 1, batch.queries.query_tokens, 8, 64);
  const Gqa<8, 2, 64> attend;
  const Promising three;
  for (const Source source : {Source::cache, Source::packed_rows})
    with_source(batch.keys, {.source = source}, [&](const auto& kv) {
      attend(q, kv, output, options, three);
      const long before = allocations;
      for (int step = 0; step < 5; ++step) attend(q, kv, output, options, three);
      EXPECT_EQ(allocations, before) << testing::name_of(source);
    });
}

TEST(Allocation, APlanMadeAnewForASmallerStepMakesNone) {
  const Heads<> heads{8, 2, 64};
  const RaggedBatch large(heads, {{150, 150}, {1, 5000}, {0, 20}, {7, 1100}, {1, 40}}),
      small(heads, {{100, 150}, {1, 4000}, {0, 20}, {7, 1101}, {1, 0}});
  std::vector<float> out(large.queries.q.size());
  const auto attend = Gqa<8, 2, 64>();
  const Promising three;
  AttentionPlan plan;
  const auto step = [&](const RaggedBatch& batch, const auto& kv) {
    const Index tokens = batch.queries.query_tokens;
    attend.plan(plan, tokens, kv, batch.over_all({.window = 3000}), three);
    for (int layer = 0; layer < 3; ++layer)
      attend(plan, View<const float>(batch.queries.q.data(), 1, tokens, 8, 64), kv,
             View<float>(out.data(), 1, tokens, 8, 64), three);
  };
  with_source(large.keys, {}, [&](const auto& kv) {
    step(large, kv);
    const long before = allocations;
    step(large, kv);
    step(small, kv);
    step(large, kv);
    EXPECT_EQ(allocations, before);
  });
}

TEST(Allocation, AppendingATokenMakesNone) {
  KvCache<bf16> cache(Heads<>{8, 2, 64}, 300);
  const std::vector<float> token(2 * 64, 1.0f);
  const View<const float> row(token.data(), 1, 2, 64);
  const long before = allocations;
  for (int t = 0; t < 300; ++t) cache.append(row, row);
  EXPECT_EQ(allocations, before);
}

}  // namespace
}  // namespace headwise
#endif
