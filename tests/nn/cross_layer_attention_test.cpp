// SPDX-License-Identifier: MIT
// Layers that borrow the keys and values of an earlier one: Cross-Layer Attention.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "headwise/nn/check_sharing.hpp"
#include "headwise/nn/multi_head_attention.hpp"
#include "tests/nn/layers.hpp"
#include "tests/nn/module_definition.hpp"
#include "tests/support/errors.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::expect_error;
using headwise::testing::kHidden;
using headwise::testing::Layers;
using headwise::testing::module_definition;
using headwise::testing::ModuleWeights;
using headwise::testing::random_matrix;

MultiHeadAttentionOptions options_of(bool borrows) {
  return {.hidden_size = kHidden,
          .num_heads = 6,
          .num_kv_heads = 2,
          .value_dim = 12,
          .query_bias = true,
          .key_bias = !borrows,
          .output_bias = true,
          .rope = RopeOptions{.scaling = YarnScaling{4.0, 32}},
          .borrows_kv = borrows};
}

/// The layers of a model that share keys and values so.
struct Model : Layers {
  explicit Model(const KvSharing& kv_sharing) : Layers(layers_of(kv_sharing), kv_sharing) {}

  static std::vector<MultiHeadAttentionOptions> layers_of(const KvSharing& sharing) {
    std::vector<MultiHeadAttentionOptions> options;
    for (Index l = 0; l < sharing.num_layers(); ++l) options.push_back(options_of(!sharing.is_producer(l)));
    return options;
  }
  template <class T>
  KvCache<T> cache(Index max_tokens, Index sequences = 1) const {
    return KvCache<T>(shapes(), sharing, max_tokens, {.num_sequences = sequences});
  }
};

const std::vector<KvSharing> kSharings{KvSharing::every(5, 2), KvSharing::every(4, 3), KvSharing::keep_ends(5, 3),
                                       KvSharing::from_sources(std::vector<Index>{0, 1, 0, 1})};

// Four times what one layer with activations near 1 may differ (multi_head_attention_test.cpp): over the layers they
// grow to about 9 (seen: 18 at most).
constexpr double kTolerance = 4 * 32 * 0x1p-24;

TEST(CrossLayerAttention, IsTheDefinitionWithTheKeysAndValuesOfTheSource) {
  for (const KvSharing& sharing : kSharings) {
    const Model model(sharing);
    auto cache = model.cache<float>(80);
    const auto h = model.trace(random_matrix(70, kHidden, 1), cache);
    for (std::size_t l = 0; l < model.modules.size(); ++l) {
      const auto source = static_cast<std::size_t>(sharing.source(static_cast<Index>(l)));
      // a plain module with this layer's Wq and Wo and the source's Wk and Wv, whose memory is what entered the source
      const MultiHeadAttention plain(options_of(false));
      ModuleWeights w = model.weights[l];
      w.wk = model.weights[source].wk, w.wv = model.weights[source].wv;
      w.bk = model.weights[source].bk, w.bv = model.weights[source].bv;
      const Eigen::MatrixXd expected = h[l].cast<double>() + module_definition(plain, w, h[l], h[source]);
      EXPECT_LE((h[l + 1].cast<double>() - expected).cwiseAbs().maxCoeff(), kTolerance) << "layer " << l;
    }
  }
}

/// The layer step by step over a cache of one layer that holds exactly its source's keys and values.
template <class T>
Matrix explicit_forward(const Matrix& x, const ModuleWeights& w, const KvCache<T>& source) {
  const auto o = MultiHeadAttention(options_of(true)).options();
  const Index n = x.rows(), H = o.num_heads, dk = *o.head_dim, dv = *o.value_dim;
  Matrix q(n, H * dk), attended(n, H * dv), y(n, kHidden);
  Linear(w.wq, w.bq)(x, q);
  Rope(dk, *o.rope).apply(View<float>(q.data(), n, H, dk), source.num_tokens() - n);
  Attention<Heads<>> attend(Heads<>(H, *o.num_kv_heads, dk, dv));
  attend(View<const float>(q.data(), n, H, dk), source.layer(), View<float>(attended.data(), n, H, dv));
  Linear(w.wo, w.bo)(attended, y);
  return y;
}

template <class T>
void expect_bits_of_explicit_layers() {
  for (const KvSharing& sharing : kSharings) {
    const Model model(sharing);
    auto cache = model.cache<T>(80);
    std::vector<KvCache<T>> own;  // one cache per producer, as if there were no sharing
    for (Index l = 0; l < sharing.num_layers(); ++l) own.emplace_back(model.modules[0].heads(), 80);
    for (const Index count : {66, 1, 1, 5}) {
      const auto h = model.trace(random_matrix(count, kHidden, static_cast<unsigned>(count)), cache);
      for (std::size_t l = 0; l < model.modules.size(); ++l) {
        const auto source = static_cast<std::size_t>(sharing.source(static_cast<Index>(l)));
        const Matrix y =
            source == l ? model.modules[l].forward(h[l], own[l]) : explicit_forward(h[l], model.weights[l], own[source]);
        ASSERT_EQ(h[l + 1], Matrix(h[l] + y)) << "layer " << l << ", " << count << " tokens";
      }
    }
  }
}

TEST(CrossLayerAttention, HasTheBitsOfLayersThatAreHandedTheirKeysAndValues) {
  expect_bits_of_explicit_layers<float>();
  expect_bits_of_explicit_layers<f16>();
  expect_bits_of_explicit_layers<bf16>();
}

TEST(CrossLayerAttention, IsTheSameInPiecesAndTokenByToken) {
  const Model model(KvSharing::every(5, 2));
  const Index tokens = 70;
  const Matrix x = random_matrix(tokens, kHidden, 1);
  auto whole = model.cache<bf16>(tokens);
  const Matrix expected = model.forward(x, whole);
  for (const Index piece : {1, 7, 64}) {
    auto cache = model.cache<bf16>(tokens);
    for (Index t = 0; t < tokens; t += piece) {
      const Index n = std::min(piece, tokens - t);
      EXPECT_EQ(model.forward(x.middleRows(t, n), cache), Matrix(expected.middleRows(t, n))) << t;
    }
    EXPECT_EQ(cache.num_tokens(4), tokens);
  }
}

TEST(CrossLayerAttention, ContinuesEachSequenceFromItsOwnPosition) {
  const Model model(KvSharing::every(3, 3));
  const Matrix x = random_matrix(12, kHidden, 1), next = random_matrix(2, kHidden, 2);
  auto both = model.cache<float>(20, 2), a = model.cache<float>(20), b = model.cache<float>(20);
  model.forward(x, both);
  both.truncate(1, 4);
  model.forward(x.topRows(6), a);
  model.forward(x.middleRows(6, 4), b);
  const Matrix y = model.forward(next, both);
  EXPECT_EQ(Matrix(y.row(0)), model.forward(next.row(0), a));
  EXPECT_EQ(Matrix(y.row(1)), model.forward(next.row(1), b));
}

TEST(CrossLayerAttention, OfABorrowerTakesGroupsToo) {
  const Model model(KvSharing::every(2, 2));
  const Matrix x = random_matrix(5, kHidden, 1);
  const std::vector<Index> halves{0, 3, 6}, uneven{0, 1, 6};
  auto cache = model.cache<float>(10);
  model.modules[0].forward(x, cache, 0);
  const auto with = [&](const std::vector<Index>& boundaries) {
    const auto groups = [&](const KvCache<>&, Index) { return std::span<const Index>(boundaries); };
    return model.modules[1].forward(x, cache, 1, {.groups = groups});
  };
  EXPECT_EQ(with(halves), model.modules[1].forward(x, cache, 1));
  EXPECT_NE(with(uneven), with(halves));
  const std::vector<Index> wrong{0, 7, 6};
  expect_error([&] { with(wrong); }, {"group_boundaries"});
  EXPECT_EQ(cache.num_tokens(1), 5);  // of the producer: not taken back
}

TEST(CrossLayerAttention, OfABorrowerReadsAMemoryThatItsProducerFilled) {
  const Model model(KvSharing::every(2, 2));
  auto cache = model.cache<float>(10);
  const Matrix x = random_matrix(3, kHidden, 1), memory = random_matrix(9, kHidden, 2);
  model.modules[0].fill_cross(memory, cache, 0);
  MultiHeadAttention plain(options_of(false));
  ModuleWeights w = model.weights[1];
  w.wk = model.weights[0].wk, w.wv = model.weights[0].wv, w.bk = model.weights[0].bk;
  w.give_to(plain);
  KvCache<float> own(plain.heads(), 10);
  plain.fill_cross(memory, own);
  EXPECT_EQ(model.modules[1].forward_cross(x, cache, 1), plain.forward_cross(x, own));
}

TEST(CrossLayerAttention, CountsNeitherWeightsNorBytesForWhatIsBorrowed) {
  const MultiHeadAttention producer({.hidden_size = 2048, .num_heads = 16, .num_kv_heads = 1});
  const MultiHeadAttention borrower({.hidden_size = 2048, .num_heads = 16, .num_kv_heads = 1, .borrows_kv = true});
  EXPECT_EQ(producer.parameters(), 2 * 2048 * 2048 + 2 * 2048 * 128);
  EXPECT_EQ(borrower.parameters(), 2 * 2048 * 2048);
  EXPECT_EQ(producer.kv_bytes_per_token(Storage::bf16), 512);
  EXPECT_EQ(borrower.kv_bytes_per_token(Storage::bf16), 0);
  EXPECT_EQ(borrower.cache_shape(), producer.cache_shape());
  const MultiHeadAttention biased(options_of(true));
  EXPECT_EQ(biased.parameters(), 48 * 48 + 48 + 48 * 72 + 48);
}

TEST(CrossLayerAttention, TakesThePublishedBytesPerToken) {
  const auto bytes = [](Index heads, Index kv_heads, Index head_dim, const char* name) {
    const KvSharing sharing = KvSharing::by_name(name, 20);
    Index total = 0;
    for (Index l = 0; l < 20; ++l)
      total += MultiHeadAttention({.hidden_size = 2048,
                                   .num_heads = heads,
                                   .num_kv_heads = kv_heads,
                                   .head_dim = head_dim,
                                   .borrows_kv = !sharing.is_producer(l)})
                   .kv_bytes_per_token(Storage::bf16);
    return total;
  };
  EXPECT_EQ(bytes(16, 16, 128, "none"), 163840);
  EXPECT_EQ(bytes(16, 4, 128, "none"), 40960);
  EXPECT_EQ(bytes(16, 2, 128, "none"), 20480);
  EXPECT_EQ(bytes(16, 1, 128, "none"), 10240);
  EXPECT_EQ(bytes(16, 1, 128, "cla2"), 5120);
  EXPECT_EQ(bytes(32, 1, 64, "cla2"), 2560);
  EXPECT_EQ(bytes(16, 1, 128, "cla3"), 3584);
  EXPECT_EQ(bytes(16, 1, 128, "cla4"), 2560);
  EXPECT_EQ(bytes(16, 1, 128, "keep-ends"), 5632);
  EXPECT_EQ(bytes(16, 1, 128, "dense-front"), 5632);
  EXPECT_EQ(bytes(16, 1, 128, "dense-back"), 5632);
  EXPECT_EQ(bytes(45, 1, 46, "none"), 3680);
  EXPECT_EQ(bytes(23, 1, 90, "cla2"), 3600);
}

// --- mistakes ---

TEST(CrossLayerAttentionErrors, NameWeightsAndOptionsThatDoNotFit) {
  MultiHeadAttentionOptions options = options_of(true);
  options.key_bias = true;
  expect_error([&] { MultiHeadAttention{options}; }, {"key_bias (true)", "borrows_kv"});
  options.key_bias = false;
  options.value_bias = true;
  expect_error([&] { MultiHeadAttention{options}; }, {"value_bias (true)", "borrows_kv"});
  MultiHeadAttention borrower(options_of(true)), producer(options_of(false));
  const ModuleWeights w(producer);
  expect_error([&] { w.give_to(borrower); }, {"key and value weights (given)", "borrows_kv is true"});
  expect_error(
      [&] {
        producer.set_weights({w.wq, w.bq}, {w.wo, w.bo});
      },
      {"key and value weights (missing)", "borrows_kv is false"});
  expect_error([&] { borrower.set_weights({w.wq, w.bq}, {w.wq, w.bo}); }, {"output weight (48 x 48)", "48 x 72"});
  expect_error([&] { borrower.set_weights(w.wq, {w.wo, w.bo}); }, {"query bias (none)", "given"});
}

TEST(CrossLayerAttentionErrors, NameCallsThatNeedKeysAndValues) {
  const Model model(KvSharing::every(2, 2));
  const MultiHeadAttention& borrower = model.modules[1];
  auto cache = model.cache<float>(10);
  const Matrix x = random_matrix(3, kHidden, 1);
  expect_error([&] { borrower.forward(x); }, {"borrows_kv (true)", "forward without a cache"});
  expect_error([&] { borrower.fill_cross(x, cache, 1); }, {"borrows_kv (true)", "fill_cross"});
}

TEST(CrossLayerAttentionErrors, NameAProducerThatHasNotRunAndRolesThatAreSwapped) {
  const Model model(KvSharing::from_sources(std::vector<Index>{0, 1, 0}));
  auto cache = model.cache<float>(10, 2);
  const Matrix x = random_matrix(6, kHidden, 1);
  Matrix y = x;
  Workspace workspace;
  const auto forward = [&](std::size_t module, Index layer, const Matrix& in) {
    return [&, module, layer] { model.modules[module].forward(in, cache, layer, y, workspace); };
  };
  expect_error(forward(2, 2, x),
               {"layer 0 of the cache (0 tokens in sequence 0)", "at least the 3 tokens of x", "layer 2 borrows"});
  expect_error(forward(1, 2, x), {"borrows_kv (false)", "must be true for layer 2", "of layer 0"});
  expect_error(forward(2, 0, x), {"layer 0 of the cache (0 tokens"});
  EXPECT_EQ(y, x);
  for (Index layer = 0; layer < 3; ++layer) EXPECT_EQ(cache.num_tokens(layer), 0);
  model.modules[0].forward(x, cache, 0);
  cache.truncate(0, 1, 2);
  expect_error(forward(2, 2, x), {"2 tokens in sequence 1", "3 tokens of x"});
}

TEST(CrossLayerAttentionErrors, NameTheLayerThatDoesNotFitTheSharing) {
  const KvSharing sharing = KvSharing::every(3, 3);
  const auto check = [&](auto change, Index at) {
    return [=] {
      std::vector<MultiHeadAttention> layers;
      for (Index l = 0; l < 3; ++l) {
        MultiHeadAttentionOptions options = options_of(l > 0);
        if (l == at) change(options);
        layers.emplace_back(options);
      }
      check_sharing(layers, sharing);
    };
  };
  using Options = MultiHeadAttentionOptions;
  EXPECT_NO_THROW(check([](Options& o) { o.softcap = 5.0f; }, 1)());  // of the queries alone
  expect_error(check([](Options& o) { o.borrows_kv = false; }, 2),
               {"layers[2].borrows_kv (false)", "must be true", "layers[0]"});
  expect_error(check([](Options& o) { o.borrows_kv = true, o.key_bias = false; }, 0),
               {"layers[0].borrows_kv (true)", "must be false", "its own source"});
  expect_error(check([](Options& o) { o.num_kv_heads = 3; }, 1), {"layers[1].num_kv_heads (3)", "2 of layers[0]"});
  expect_error(check([](Options& o) { o.head_dim = 16; }, 1), {"layers[1].head_dim (16)", "8 of layers[0]"});
  expect_error(check([](Options& o) { o.value_dim = 8; }, 2), {"layers[2].value_dim (8)", "12 of layers[0]"});
  expect_error(check([](Options& o) { o.rope.reset(); }, 1), {"layers[1].rope (unset)", "must be set", "layers[0]"});
  expect_error(check([](Options& o) { o.rope.reset(); }, 0), {"layers[1].rope (set)", "must be unset", "layers[0]"});
  expect_error(check([](Options& o) { o.rope->base = 5e5; }, 2),
               {"layers[2].rope.base (500000)", "10000", "layers[0]"});
  expect_error(check([](Options& o) { o.rope->style = RopeStyle::interleaved; }, 1),
               {"layers[1].rope.style (interleaved)", "half_split"});
  expect_error(check([](Options& o) { o.rope->rotary_dim = 4; }, 1), {"layers[1].rope.rotary_dim (4)", "must be 8"});
  EXPECT_NO_THROW(check([](Options& o) { o.rope->rotary_dim = 8; }, 1)());  // what unset means
  expect_error(check([](Options& o) { o.rope->scaling = YarnScaling{8.0, 32}; }, 1), {"layers[1].rope.scaling"});
  expect_error(check([](Options& o) { o.rope->scaling = {}; }, 1), {"layers[1].rope.scaling"});

  const MultiHeadAttention producer(options_of(false)), borrower(options_of(true));
  using Pointers = std::vector<const MultiHeadAttention*>;
  EXPECT_NO_THROW(check_sharing(Pointers{&producer, &borrower, &borrower}, sharing));
  expect_error([&] { check_sharing(Pointers{&producer, &borrower}, sharing); }, {"sharing (3 layers)", "layers (2)"});
  expect_error([&] { check_sharing(Pointers{&producer, nullptr, &borrower}, sharing); }, {"layers[1] (null)"});
}

}  // namespace
}  // namespace headwise::nn
