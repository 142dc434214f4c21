// SPDX-License-Identifier: MIT
#include "llama/model/model.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/llama/loaded_model.hpp"
#include "tests/llama/naive_model.hpp"

namespace llama {
namespace {

using headwise::Serial;
using llama_test::Loaded;
using llama_test::NaiveModel;
using llama_test::read_in_chunks;
using llama_test::Row;
using llama_test::some_tokens;
using llama_test::TinyModel;

void expect_equal_to_naive(TinyModel tiny) {
  const Loaded loaded(tiny);
  const NaiveModel naive(tiny);
  for (const std::size_t count : {1u, 2u, 7u, 70u}) {
    const auto tokens = some_tokens(count);
    const Vector logits = read_in_chunks(loaded.model, tokens, count);
    const Row expected = naive.logits(tokens);
    ASSERT_EQ(logits.size(), std::ssize(expected));
    // a few hundred float roundings of numbers of about 1
    for (Index i = 0; i < logits.size(); ++i)
      ASSERT_NEAR(logits(i), expected[static_cast<std::size_t>(i)], 2e-5)
          << "logit " << i << " after " << count << " tokens";
  }
}

TEST(Model, GivesTheLogitsOfTheDefinition) { expect_equal_to_naive({}); }

TEST(Model, HasItsOwnOutputWeightsWhereTheFileDoes) {
  TinyModel tiny;
  tiny.tied = false;
  expect_equal_to_naive(tiny);
}

TEST(Model, AddsBiasesWhereTheFileHasThem) {
  TinyModel tiny;
  tiny.biases = true;
  expect_equal_to_naive(tiny);
}

TEST(Model, RotatesOnlyTheRotaryDimensions) {
  TinyModel tiny;
  tiny.rotary_dim = 4;
  expect_equal_to_naive(tiny);
}

TEST(Model, WorksWithAnyGrouping) {
  for (const std::uint32_t kv_heads : {1u, 4u}) {
    TinyModel tiny;
    tiny.kv_heads = kv_heads;
    expect_equal_to_naive(tiny);
  }
}

TEST(Model, LayersMayHaveOtherNumbersOfKvHeads) {
  TinyModel tiny;
  tiny.layers = 3;
  for (const char* architecture : {"llama", "deci", "headwise"}) {
    tiny.architecture = architecture;
    tiny.layer_kv_heads = {4, 1, 2};
    expect_equal_to_naive(tiny);
  }
}

TEST(Model, QueryHeadsMayReadAnyKvHead) {
  TinyModel tiny;
  tiny.architecture = "headwise";
  tiny.layer_kv_heads = {2, 3};
  tiny.head_map = {1, 0, 1, 1, 2, 0, 2, 2};  // KV head 1 of layer 1 is read by none
  expect_equal_to_naive(tiny);
}

TEST(Model, LayersMayShareKeysAndValues) {
  TinyModel tiny;
  tiny.architecture = "headwise";
  tiny.layers = 4;
  tiny.kv_source = {0, 0, 2, 0};
  expect_equal_to_naive(tiny);
  const Loaded loaded(tiny);
  EXPECT_EQ(loaded.model.make_cache<float>(1).bytes_per_token(), 2 * 2 * (8 + 16) * 4);  // two producers, padded heads
}

TEST(Model, AllStatesOfAPassAreThoseOfEachToken) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(9);
  auto cache = loaded.model.make_cache<float>(9), other = loaded.model.make_cache<float>(9);
  Model::Scratch scratch;
  Serial serial;
  const Matrix all = loaded.model.read_all(std::span(tokens), cache, scratch, serial);
  const Matrix logits = loaded.model.logits(all, serial);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const Vector one = loaded.model.read(std::span(tokens).subspan(t, 1), other, scratch, serial);
    EXPECT_EQ(Vector(all.row(static_cast<Index>(t))), one) << t;
    EXPECT_EQ(Vector(logits.row(static_cast<Index>(t))), loaded.model.logits(one, serial)) << t;
  }
}

TEST(Model, APassMayBeginAtALayer) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(9);
  Model::Scratch scratch;
  Serial serial;
  std::vector<Matrix> states;
  auto cache = loaded.model.make_cache<float>(9);
  const Matrix whole = loaded.model.read_all(std::span(tokens), cache, scratch, serial,
                                             {.before_layer = [&](Index, const Matrix& x) { states.push_back(x); }});
  ASSERT_EQ(states.size(), 2u);
  EXPECT_EQ(states[0], loaded.model.embed(tokens));
  for (Index layer = 0; layer < 2; ++layer) {
    auto fresh = loaded.model.make_cache<float>(9);
    EXPECT_EQ(loaded.model.read_states(states[static_cast<std::size_t>(layer)], layer, fresh, scratch, serial), whole);
  }
}

TEST(Model, AttentionThatIsReadAndPutBackIsTheSame) {
  TinyModel tiny;
  tiny.biases = true;
  Loaded loaded(tiny);
  const auto tokens = some_tokens(20);
  const Vector before = read_in_chunks(loaded.model, tokens, 20);
  for (Index l = 0; l < 2; ++l) {
    const auto weights = read_attention(loaded.file, loaded.model.shape(), l, loaded.executor);
    loaded.model.set_attention(l, make_attention(loaded.model.shape(), weights));
  }
  EXPECT_EQ(read_in_chunks(loaded.model, tokens, 20), before);
  auto none = read_attention(loaded.file, loaded.model.shape(), 0, loaded.executor);
  EXPECT_THROW(loaded.model.set_attention(2, make_attention(loaded.model.shape(), none)), std::invalid_argument);
}

TEST(Model, GivesTheSameBitsHoweverAPromptIsCut) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(150);
  const Vector at_once = read_in_chunks(loaded.model, tokens, tokens.size());
  for (const std::size_t chunk : {1u, 7u, 64u, 149u})
    EXPECT_EQ(read_in_chunks(loaded.model, tokens, chunk), at_once) << "chunks of " << chunk;
}

TEST(Model, GivesTheSameBitsForAnyNumberOfThreads) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(150);
  const Vector serial = read_in_chunks(loaded.model, tokens, 40);
  for (const Index threads : {1, 2, 3}) {
    headwise::ThreadPool pool(threads);
    EXPECT_EQ(read_in_chunks(loaded.model, tokens, 40, pool), serial) << threads << " threads";
  }
}

TEST(Model, StaysNearWithANarrowCache) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  const auto tokens = some_tokens(100);
  const Vector wide = read_in_chunks(loaded.model, tokens, 100);
  // 2^-8 and 2^-11 relative on keys and values of about 1; the sum over tokens averages it down
  EXPECT_LT((read_in_chunks<headwise::bf16>(loaded.model, tokens, 100) - wide).cwiseAbs().maxCoeff(), 0.02f);
  EXPECT_LT((read_in_chunks<headwise::f16>(loaded.model, tokens, 100) - wide).cwiseAbs().maxCoeff(), 0.0025f);
}

TEST(Model, ReportsEveryLayer) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  auto cache = loaded.model.make_cache<float>(3);
  Model::Scratch scratch;
  Serial serial;
  int layers = 0;
  loaded.model.read(std::span<const TokenId>(some_tokens(3)), cache, scratch, serial,
                    {.after_layer = [&] { ++layers; }});
  EXPECT_EQ(layers, 2);
}

TEST(Model, RefusesTokensThatDoNotExistOrDoNotFit) {
  TinyModel tiny;
  const Loaded loaded(tiny);
  auto cache = loaded.model.make_cache<float>(4);
  Model::Scratch scratch;
  Serial serial;
  const auto refused = [&](std::vector<TokenId> tokens) {
    EXPECT_THROW(loaded.model.read(std::span<const TokenId>(tokens), cache, scratch, serial), std::invalid_argument);
    EXPECT_EQ(cache.num_tokens(), 0);
  };
  refused({});
  refused({1, -1});
  refused({1, static_cast<TokenId>(tiny.vocabulary())});
  refused({1, 2, 3, 4, 5});
}

}  // namespace
}  // namespace llama
