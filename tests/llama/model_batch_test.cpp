// SPDX-License-Identifier: MIT
// A model reads several sequences of a paged cache in one call.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/llama/loaded_model.hpp"

namespace llama {
namespace {

using headwise::SequenceId;
using headwise::Serial;
using llama_test::Loaded;
using llama_test::some_tokens;
using llama_test::TinyModel;

void expect_states_of_each_alone(TinyModel tiny) {
  const Loaded loaded(tiny);
  const Model& model = loaded.model;
  const std::vector<std::vector<std::vector<TokenId>>> steps = {
      {some_tokens(3), some_tokens(66, 9), {}}, {{17}, {8}, some_tokens(70, 2)}, {{1}, some_tokens(9), {5}}};
  headwise::ThreadPool pool(2);
  auto paged = model.make_paged_cache<headwise::bf16>(12);
  std::vector<SequenceId> ids;
  std::vector<headwise::KvCache<headwise::bf16>> caches;
  for (int b = 0; b < 3; ++b) {
    ids.push_back(paged.create());
    caches.push_back(model.make_cache<headwise::bf16>(200));
  }
  Model::Scratch scratch, other;
  Serial serial;
  for (const auto& step : steps) {
    std::vector<SequenceTokens> parts;
    std::vector<Vector> expected;
    for (std::size_t b = 0; b < 3; ++b) {
      if (step[b].empty()) continue;
      parts.push_back({ids[b], step[b]});
      expected.push_back(model.read(std::span(step[b]), caches[b], other, serial));
    }
    const Matrix states = model.read(parts, paged, scratch, pool);
    ASSERT_EQ(states.rows(), std::ssize(expected));
    for (Index i = 0; i < states.rows(); ++i) EXPECT_EQ(Vector(states.row(i)), expected[static_cast<std::size_t>(i)]);
  }
}

TEST(ModelBatch, GivesTheStatesOfEachSequenceAlone) { expect_states_of_each_alone({}); }

TEST(ModelBatch, GivesThemWhereLayersDiffer) {
  TinyModel tiny;
  tiny.architecture = "headwise";
  tiny.layers = 4;
  tiny.layer_kv_heads = {4, 2, 1, 2};
  expect_states_of_each_alone(tiny);
  tiny = {};
  tiny.architecture = "headwise";
  tiny.layers = 4;
  tiny.kv_source = {0, 0, 2, 0};
  expect_states_of_each_alone(tiny);
}

TEST(ModelBatch, ReportsEveryLayer) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  auto paged = loaded.model.make_paged_cache<float>(2);
  Model::Scratch scratch;
  Serial serial;
  const auto tokens = some_tokens(3);
  const SequenceTokens part{paged.create(), tokens};
  int before = 0, after = 0;
  loaded.model.read(
      std::span(&part, 1), paged, scratch, serial,
      {.before_layer = [&](Index, const Matrix& x) { before += x.rows() == 3; }, .after_layer = [&] { ++after; }});
  EXPECT_EQ(before, 2);
  EXPECT_EQ(after, 2);
}

TEST(ModelBatch, LeavesTheCacheAsItWasOnAnError) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  auto paged = loaded.model.make_paged_cache<float>(3);
  const SequenceId a = paged.create(), b = paged.create();
  Model::Scratch scratch;
  Serial serial;
  const auto read = [&](std::vector<TokenId> first, std::vector<TokenId> second, const ReadHooks& hooks = {}) {
    const SequenceTokens parts[] = {{a, first}, {b, second}};
    return loaded.model.read(parts, paged, scratch, serial, hooks);
  };
  read(some_tokens(60), some_tokens(10));
  const auto expect_unchanged = [&] {
    for (Index layer = 0; layer < 2; ++layer) {
      EXPECT_EQ(paged.num_tokens(layer, a), 60);
      EXPECT_EQ(paged.num_tokens(layer, b), 10);
    }
    EXPECT_EQ(paged.pages().free, 1);
  };
  EXPECT_THROW(read({1}, some_tokens(190)), headwise::OutOfPages);
  expect_unchanged();
  EXPECT_THROW(read({1}, {-1}), std::invalid_argument);
  EXPECT_THROW(read({1}, {static_cast<TokenId>(tiny.vocabulary())}), std::invalid_argument);
  EXPECT_THROW(read({1}, {}), std::invalid_argument);
  expect_unchanged();
  int layers = 0;
  const auto fail_between_layers = [&] {
    if (++layers == 1) throw std::runtime_error("enough");
  };
  EXPECT_THROW(read({1}, some_tokens(3), {.after_layer = fail_between_layers}), std::runtime_error);
  expect_unchanged();
  std::vector<headwise::regroup::KeyDrivenGroups> groups;
  for (int l = 0; l < 2; ++l) groups.emplace_back(4, 2);
  EXPECT_THROW(read({1}, {2}, {.key_driven = groups}), std::invalid_argument);
  expect_unchanged();
}

}  // namespace
}  // namespace llama
