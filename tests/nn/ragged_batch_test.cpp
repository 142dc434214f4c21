// SPDX-License-Identifier: MIT
// Ragged batches over a paged cache: every token has the bits it has alone, in a KvCache of its own sequence.
#include "headwise/nn/ragged_batch.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "headwise/nn/check_sharing.hpp"
#include "headwise/nn/multi_head_attention.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "tests/nn/layers.hpp"
#include "tests/support/errors.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::expect_error;
using headwise::testing::kHidden;
using headwise::testing::Layers;
using headwise::testing::random_matrix;
using headwise::testing::small_layer;

MultiHeadAttentionOptions plain(std::optional<RopeOptions> rope = RopeOptions{}) {
  auto options = small_layer(rope);
  options.value_dim = 12;
  return options;
}
MultiHeadAttentionOptions with(void (*change)(MultiHeadAttentionOptions&)) {
  auto options = plain();
  change(options);
  return options;
}

/// Steps of prompts in pieces, single tokens and both, with sequences that come and go.
template <class T, class E>
void expect_bits_of_each_alone(const Layers& layers, E&& executor) {
  auto paged = layers.paged<T>(40);
  std::vector<SequenceId> ids;
  std::vector<KvCache<T>> alone;
  for (int b = 0; b < 4; ++b) {
    ids.push_back(paged.create());
    alone.push_back(layers.alone<T>());
  }
  const std::vector<std::vector<Index>> steps = {{5, 0, 0, 0}, {1, 70, 0, 0}, {1, 1, 130, 3}, {1, 1, 0, 60},
                                                 {1, 1, 1, 1}, {0, 64, 1, 0}, {1, 1, 1, 1}};
  RaggedBatch batch;
  unsigned seed = 7;
  for (const auto& step : steps) {
    batch.clear();
    std::vector<Matrix> inputs;
    for (std::size_t b = 4; b-- > 0;) {  // not in the order of their names
      if (step[b] == 0) continue;
      batch.add(ids[b], step[b]);
      inputs.push_back(random_matrix(step[b], kHidden, ++seed));
    }
    Matrix x(batch.num_tokens(), kHidden);
    for (Index i = 0; i < batch.num_sequences(); ++i)
      x.middleRows(batch.offset(i), batch.num_tokens(i)) = inputs[static_cast<std::size_t>(i)];
    const Matrix y = layers.forward(x, paged, batch, executor);
    Index i = 0;
    for (std::size_t b = 4; b-- > 0;) {
      if (step[b] == 0) continue;
      const Matrix expected = layers.forward(inputs[static_cast<std::size_t>(i)], alone[b]);
      ASSERT_EQ(Matrix(y.middleRows(batch.offset(i), batch.num_tokens(i))), expected) << "sequence " << b;
      ++i;
    }
  }
}

struct Case {
  const char* name;
  std::vector<MultiHeadAttentionOptions> layers;
};

class RaggedModules : public ::testing::TestWithParam<Case> {};

TEST_P(RaggedModules, GiveEveryTokenTheBitsItHasAlone) {
  const Layers layers(GetParam().layers);
  ThreadPool pool(2);
  expect_bits_of_each_alone<float>(layers, Serial{});
  expect_bits_of_each_alone<bf16>(layers, pool);
}

const std::vector<float> kSlopes = {1, 0.5f, 0.25f, 0.125f, 0.1f, 0};

INSTANTIATE_TEST_SUITE_P(
    Options, RaggedModules,
    ::testing::Values(
        Case{"rope", {plain()}}, Case{"no_rope", {plain(std::nullopt)}},
        Case{"interleaved", {plain(RopeOptions{.style = RopeStyle::interleaved, .rotary_dim = 4})}},
        Case{"sections", {plain(RopeOptions{.rotary_dim = 4, .sections = {1, 1, 0}})}},
        Case{"norms", {with([](auto& o) { o.qk_norm_epsilon = 1e-5f; })}},
        Case{"alibi", {with([](auto& o) { o.alibi_slopes = kSlopes; })}},
        // layers that may and may not share a plan
        Case{"layers",
             {plain(), plain(), with([](auto& o) { o.window = 20; }), with([](auto& o) { o.window = 20; }),
              with([](auto& o) { o.head_map = HeadMap::cyclic(6, 2); }), with([](auto& o) { o.softcap = 2; }),
              with([](auto& o) { o.scale = 0.5f; }), with([](auto& o) { o.num_kv_heads = 3; }),
              with([](auto& o) { o.value_dim = 16; }), plain()}}),
    [](const auto& options) { return options.param.name; });

TEST(RaggedBatch, TurnsWithTheLengthOfEachSequenceWhereRopeAsksForIt) {
  // dynamic NTK depends on how a prompt is cut, so the same pieces are read alone
  expect_bits_of_each_alone<float>(Layers({plain(RopeOptions{.scaling = DynamicNtkScaling{2.0, 40}})}), Serial{});
}

TEST(RaggedBatch, LayersMayBorrowKeysAndValues) {
  auto borrower = plain();
  borrower.borrows_kv = true;
  const Layers layers({plain(), borrower, plain(), borrower}, KvSharing::every(4, 2));
  expect_bits_of_each_alone<float>(layers, Serial{});
}

TEST(RaggedBatch, ThatIsNotClearedIsPlannedAnewForTheNextStep) {
  const Layers layers({plain(), plain()});
  auto paged = layers.paged<float>(8);
  auto a = layers.alone<float>(), b = layers.alone<float>();
  RaggedBatch batch;
  batch.add(paged.create(), 2);
  batch.add(paged.create(), 3);
  for (unsigned step = 0; step < 30; ++step) {
    const Matrix x = random_matrix(5, kHidden, step);
    const Matrix y = layers.forward(x, paged, batch, Serial{});
    EXPECT_EQ(Matrix(y.topRows(2)), layers.forward(Matrix(x.topRows(2)), a));
    EXPECT_EQ(Matrix(y.bottomRows(3)), layers.forward(Matrix(x.bottomRows(3)), b));
    if (step == 10) {  // rolled back, and other tokens at the same places
      for (const SequenceId& id : batch.sequences()) paged.truncate(id, paged.num_tokens(0, id) - 1);
      a.truncate(a.num_tokens() - 1), b.truncate(b.num_tokens() - 1);
    }
  }
}

TEST(RaggedBatch, SequencesWithOneBeginningHaveTheBitsOfEachAlone) {
  const Layers layers({plain(), plain(), with([](auto& o) { o.window = 1100; })});
  constexpr Index kShared = 1152, kForks = 4;  // in whole pages, beyond a segment of the plan
  auto paged = layers.paged<bf16>(40);
  const Matrix beginning = random_matrix(kShared, kHidden, 1);
  std::vector<SequenceId> ids{paged.create()};
  RaggedBatch batch;
  batch.add(ids[0], kShared);
  layers.forward(beginning, paged, batch, Serial{});
  std::vector<KvCache<bf16>> alone;
  for (Index b = 0; b < kForks; ++b) {
    if (b > 0) ids.push_back(paged.fork(ids[0]));
    alone.push_back(layers.alone<bf16>());
    layers.forward(beginning, alone.back());
  }
  ThreadPool pool(2);
  for (const Index tokens : {1, 3, 70, 1}) {
    batch.clear();
    for (const SequenceId& id : ids) batch.add(id, tokens);
    const Matrix x = random_matrix(kForks * tokens, kHidden, static_cast<unsigned>(tokens));
    const Matrix y = layers.forward(x, paged, batch, pool);
    for (Index b = 0; b < kForks; ++b)
      EXPECT_EQ(Matrix(y.middleRows(b * tokens, tokens)),
                layers.forward(Matrix(x.middleRows(b * tokens, tokens)), alone[static_cast<std::size_t>(b)]));
  }
}

TEST(RaggedBatch, OfNoTokensDoesNothing) {
  const Layers layers({plain()});
  auto paged = layers.paged<float>(1);
  RaggedBatch batch;
  EXPECT_EQ(layers.modules[0].forward(Matrix(0, kHidden), paged, batch).rows(), 0);
}

TEST(RaggedBatch, LeavesEverythingAsItWasWherePagesRunOut) {
  const Layers layers({plain()});
  auto paged = layers.paged<float>(3);
  const SequenceId first = paged.create(), second = paged.create();
  RaggedBatch batch;
  batch.add(first, 60);
  batch.add(second, 10);
  auto alone = layers.alone<float>();
  const Matrix x = random_matrix(70, kHidden, 3);
  layers.forward(x, paged, batch, Serial{});
  layers.forward(Matrix(x.bottomRows(10)), alone);
  batch.clear();
  batch.add(first, 4);
  batch.add(second, 200);
  Workspace workspace;
  const Matrix more = random_matrix(204, kHidden, 4);
  Matrix y = Matrix::Constant(204, kHidden, 5);
  EXPECT_THROW(layers.modules[0].forward(more, paged, batch, 0, y, workspace), OutOfPages);
  EXPECT_EQ(y, Matrix::Constant(204, kHidden, 5));
  EXPECT_EQ(paged.num_tokens(0, first), 60);
  EXPECT_EQ(paged.num_tokens(0, second), 10);
  EXPECT_EQ(paged.pages().free, 1);
  batch.clear();
  batch.add(second, 20);
  EXPECT_EQ(layers.forward(Matrix(more.topRows(20)), paged, batch, Serial{}),
            layers.forward(Matrix(more.topRows(20)), alone));
}

/// Fails in the middle of attention.
struct Failing {
  Index concurrency() const { return 2; }
  template <class F>
  void parallel_for(Index n, F&& f) {
    if (--calls_left < 0) throw std::runtime_error("no threads");
    for (Index i = 0; i < n; ++i) f(i);
  }
  int calls_left;
};

TEST(RaggedBatch, TakesBackWhatItAppendedWhereAttentionFails) {
  const Layers layers({plain()});
  auto paged = layers.paged<float>(8);
  const SequenceId id = paged.create(), other = paged.create();
  RaggedBatch batch;
  batch.add(id, 70);
  batch.add(other, 1);
  const Matrix x = random_matrix(71, kHidden, 3);
  Matrix y(71, kHidden);
  Workspace workspace;
  int failures = 0;
  for (int calls = 0; calls < 20; ++calls) try {
      Failing executor{calls};
      layers.modules[0].forward(x, paged, batch, 0, y, workspace, executor);
      break;
    } catch (const std::runtime_error&) {
      ++failures;
      EXPECT_EQ(paged.num_tokens(0, id), 0);
      EXPECT_EQ(paged.num_tokens(0, other), 0);
    }
  EXPECT_GE(failures, 5);  // three projections, RoPE, attention
  auto alone = layers.alone<float>();
  EXPECT_EQ(Matrix(y.topRows(70)), layers.modules[0].forward(Matrix(x.topRows(70)), alone));
}

TEST(RaggedBatch, RefusesWhatDoesNotFit) {
  const Layers layers({plain()}), wide({with([](auto& o) { o.num_kv_heads = 3; })});
  auto paged = layers.paged<float>(8);
  const SequenceId id = paged.create(), gone = paged.create();
  paged.release(gone);
  RaggedBatch batch;
  expect_error([&] { batch.add(id, 0); }, {"tokens (0)", "at least 1"});
  batch.add(id, 3);
  expect_error([&] { batch.add(id, 1); }, {"sequence (0)", "once"});
  EXPECT_EQ(batch.num_tokens(), 3);
  const auto run = [&](const Layers& which, Index rows) {
    which.modules[0].forward(random_matrix(rows, kHidden, 1), paged, batch);
  };
  expect_error([&] { run(layers, 4); }, {"x (4 rows)", "3 tokens"});
  expect_error([&] { run(wide, 3); }, {"num_kv_heads 2", "must have num_kv_heads 3"});
  expect_error([&] { layers.modules[0].forward(random_matrix(3, kHidden, 1), paged, batch, 1); }, {"layer (1)"});
  batch.clear();
  batch.add(gone, 3);
  EXPECT_THROW(run(layers, 3), std::invalid_argument);

  auto borrowing = plain();
  borrowing.borrows_kv = true;
  const Layers pair({plain(), borrowing}, KvSharing::every(2, 2));
  auto shared = pair.paged<float>(8);
  RaggedBatch one;
  one.add(shared.create(), 2);
  const Matrix x = random_matrix(2, kHidden, 1);
  expect_error([&] { pair.modules[0].forward(x, shared, one, 1); }, {"borrows_kv (false)", "layer 1"});
  expect_error([&] { pair.modules[1].forward(x, shared, one, 1); }, {"(0 tokens in sequence 0)", "at least the 2"});
}

}  // namespace
}  // namespace headwise::nn
