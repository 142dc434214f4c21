// SPDX-License-Identifier: MIT
// A whole encoder-decoder (that of examples/09_encoder_decoder), against its definition in double, and what beam search
// over its cache promises.
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "examples/09_encoder_decoder/search.hpp"
#include "tests/nn/module_definition.hpp"

namespace encoder_decoder {
namespace {

using headwise::testing::module_definition;
using headwise::testing::ModuleWeights;

/// The model's layers with weights that the definition knows.
struct KnownModel {
  EncoderDecoder model;
  std::vector<ModuleWeights> encoder, self, cross;

  explicit KnownModel(const Shape& shape, unsigned seed = 1) : model(shape, seed) {
    const auto give = [](std::vector<ModuleWeights>& known, MultiHeadAttention& module, unsigned number) {
      known.emplace_back(module, number);
      known.back().wq /= std::sqrt(static_cast<float>(*module.options().head_dim));  // as scores are not scaled
      known.back().give_to(module);
    };
    unsigned number = 100 * seed;
    for (EncoderLayer& layer : model.encoder) give(encoder, layer.attention, number += 10);
    for (DecoderLayer& layer : model.decoder) {
      give(self, layer.self, number += 10);
      give(cross, layer.cross, number += 10);
    }
  }
};

Eigen::MatrixXd norm(Eigen::MatrixXd x) {
  for (Index row = 0; row < x.rows(); ++row)
    x.row(row) /= std::sqrt(x.row(row).squaredNorm() / static_cast<double>(x.cols()) + 1e-6);
  return x;
}
Eigen::MatrixXd product(const Eigen::MatrixXd& x, const Linear& weight) {
  return x * Eigen::Map<const Matrix>(weight.weight(), weight.outputs(), weight.inputs()).transpose().cast<double>();
}
Eigen::MatrixXd feed_forward(const FeedForward& f, const Eigen::MatrixXd& x) {
  return product(product(x, f.up).cwiseMax(0.0), f.down);
}
Eigen::MatrixXd embedded(const Matrix& embedding, const std::vector<Index>& tokens) {
  Eigen::MatrixXd x(std::ssize(tokens), embedding.cols());
  for (Index t = 0; t < x.rows(); ++t) x.row(t) = embedding.row(tokens[static_cast<std::size_t>(t)]).cast<double>();
  return x;
}
Matrix rounded(const Eigen::MatrixXd& x) { return x.cast<float>(); }

Eigen::MatrixXd encoded_by_definition(const KnownModel& known, const std::vector<Index>& tokens) {
  Eigen::MatrixXd x = embedded(known.model.embedding, tokens);
  for (std::size_t i = 0; i < known.encoder.size(); ++i) {
    const EncoderLayer& layer = known.model.encoder[i];
    const Matrix in = rounded(norm(x));
    x += module_definition(layer.attention, known.encoder[i], in, in);
    x += feed_forward(layer.feed_forward, norm(x));
  }
  return norm(x);
}

/// Log-probabilities of what follows each token of one text.
Eigen::MatrixXd read_by_definition(const KnownModel& known, const Matrix& memory, const std::vector<Index>& tokens) {
  const EncoderDecoder& model = known.model;
  Eigen::MatrixXd x = embedded(model.embedding, tokens);
  for (std::size_t i = 0; i < known.self.size(); ++i) {
    const DecoderLayer& layer = model.decoder[i];
    const Matrix in = rounded(norm(x));
    x += module_definition(layer.self, known.self[i], in, in);
    x += module_definition(layer.cross, known.cross[i], rounded(norm(x)), memory, true);
    x += feed_forward(layer.feed_forward, norm(x));
  }
  Eigen::MatrixXd result = norm(x) * model.output.transpose().cast<double>();
  for (Index row = 0; row < result.rows(); ++row)
    result.row(row).array() -= std::log(result.row(row).array().exp().sum());  // logits are small here
  return result;
}

std::vector<Index> text(Index count, Index vocabulary, Index seed) {
  std::vector<Index> tokens;
  for (Index t = 0; t < count; ++t) tokens.push_back((t * t * 7 + t * seed + 3) % vocabulary);
  return tokens;
}

// Two layers of each stack; activations grow to about 10 before they are normed, and differences pass on through both
// (seen: 29 · 2^-24 at most).
constexpr double kTolerance = 256 * 0x1p-24;

void expect_near(const Eigen::MatrixXd& got, const Eigen::MatrixXd& want) {
  ASSERT_EQ(got.rows(), want.rows());
  ASSERT_EQ(got.cols(), want.cols());
  EXPECT_LE((got - want).cwiseAbs().maxCoeff(), kTolerance);
}

struct Case {
  const char* name;
  Shape shape;
};

class EncoderDecoders : public ::testing::TestWithParam<Case> {
 protected:
  KnownModel known{GetParam().shape};
  const EncoderDecoder& model = known.model;
  Index vocabulary = GetParam().shape.vocabulary;
};

TEST_P(EncoderDecoders, EncodeByTheDefinition) {
  for (const Index count : {1, 2, 70, 200}) {
    const std::vector<Index> source = text(count, vocabulary, 5);
    expect_near(model.encode(source).cast<double>(), encoded_by_definition(known, source));
  }
}

TEST_P(EncoderDecoders, DecodeTokenByTokenByTheDefinition) {
  const Matrix memory = model.encode(text(90, vocabulary, 5));
  const std::vector<Index> tokens = text(80, vocabulary, 2);
  const Eigen::MatrixXd expected = read_by_definition(known, memory, tokens);
  DecoderState state = model.start(memory, 1, 80);
  for (std::size_t t = 0; t < tokens.size(); ++t)
    expect_near(model.read({&tokens[t], 1}, state), expected.row(static_cast<Index>(t)));
}

TEST_P(EncoderDecoders, ReadATextToTheSameBitsAtOnceAndBesideOthers) {
  const Matrix memory = model.encode(text(90, vocabulary, 5));
  const std::vector<Index> first = text(70, vocabulary, 2), second = text(70, vocabulary, 3);
  DecoderState alone = model.start(memory, 1, 70), both = model.start(memory, 2, 70);
  const Eigen::MatrixXd at_once = model.read(second, alone);
  for (std::size_t t = 0; t < first.size(); ++t) {
    const Index pair[] = {first[t], second[t]};
    const Eigen::MatrixXd next = model.read(pair, both);
    ASSERT_EQ(Eigen::MatrixXd(next.row(1)), Eigen::MatrixXd(at_once.row(static_cast<Index>(t)))) << t;
  }
}

TEST_P(EncoderDecoders, ABeamOfOneIsGreedy) {
  for (const Index seed : {1, 2, 3, 4}) {
    const Matrix memory = model.encode(text(40, vocabulary, seed));
    const Hypothesis expected = greedy(model, memory, 30);
    const std::vector<Hypothesis> beams = beam_search(model, memory, 1, 30);
    ASSERT_EQ(beams.size(), 1u);
    EXPECT_EQ(beams[0].tokens, expected.tokens);
    EXPECT_EQ(beams[0].log_probability, expected.log_probability);
  }
}

TEST_P(EncoderDecoders, EveryBeamHasTheLogProbabilityOfItsTextAlone) {
  bool some_ended = false;
  for (const Index width : {2, 4, 7})
    for (const Index seed : {1, 2, 3}) {
      const Matrix memory = model.encode(text(40, vocabulary, seed));
      const std::vector<Hypothesis> beams = beam_search(model, memory, width, 75);  // past a tile's border
      ASSERT_EQ(std::ssize(beams), width);
      std::map<std::vector<Index>, int> seen;
      for (const Hypothesis& beam : beams) {
        EXPECT_EQ(beam.log_probability, log_probability(model, memory, beam.tokens));
        EXPECT_EQ(++seen[beam.tokens], 1);
        some_ended = some_ended || beam.has_ended();
        for (std::size_t t = 0; t + 1 < beam.tokens.size(); ++t) EXPECT_NE(beam.tokens[t], kEnd);
      }
      EXPECT_TRUE(std::ranges::is_sorted(beams, std::greater<>(), &Hypothesis::log_probability));
    }
  EXPECT_TRUE(some_ended) << "no text ended: the test does not show what happens then";
}

INSTANTIATE_TEST_SUITE_P(Named, EncoderDecoders,
                         ::testing::Values(Case{"t5", {.decoder_kv_heads = 8}},
                                           Case{"t5_gqa_decoder", {.decoder_kv_heads = 2}},
                                           Case{"shazeer_mqa", {.encoder_kv_heads = 1, .decoder_kv_heads = 1}},
                                           Case{"wide_heads", {.hidden_size = 32, .head_dim = 24, .num_layers = 1}}),
                         [](const auto& test) { return std::string(test.param.name); });

/// All texts of exactly `length` tokens, or shorter ones that have ended.
void all_texts(Index vocabulary, Index length, std::vector<Index>& begun, std::vector<std::vector<Index>>& result) {
  if (std::ssize(begun) == length || (!begun.empty() && begun.back() == kEnd)) {
    result.push_back(begun);
    return;
  }
  for (Index token = 0; token < vocabulary; ++token) {
    begun.push_back(token);
    all_texts(vocabulary, length, begun, result);
    begun.pop_back();
  }
}

TEST(BeamSearch, WideEnoughFindsTheLikeliestTextsOfAll) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    const KnownModel known({.vocabulary = 3, .hidden_size = 32, .decoder_kv_heads = 2, .num_layers = 1}, seed);
    const Matrix memory = known.model.encode(text(10, 3, 1));
    std::vector<Index> begun;
    std::vector<std::vector<Index>> texts;
    all_texts(3, 4, begun, texts);
    std::vector<std::pair<double, std::vector<Index>>> by_definition;
    for (const std::vector<Index>& tokens : texts) {
      std::vector<Index> read{kStart};
      read.insert(read.end(), tokens.begin(), tokens.end() - 1);
      const Eigen::MatrixXd next = read_by_definition(known, memory, read);
      double sum = 0;
      for (std::size_t t = 0; t < tokens.size(); ++t) sum += next(static_cast<Index>(t), tokens[t]);
      by_definition.emplace_back(sum, tokens);
    }
    std::ranges::sort(by_definition, std::greater<>());
    // as many beams as there are unfinished texts and ended ones before the last step: nothing is cut off
    const std::vector<Hypothesis> beams = beam_search(known.model, memory, 15, 4);
    ASSERT_EQ(beams.size(), 15u);
    for (std::size_t b = 0; b < 5; ++b) {
      EXPECT_EQ(beams[b].tokens, by_definition[b].second);
      EXPECT_NEAR(beams[b].log_probability, by_definition[b].first, 4 * kTolerance);
    }
  }
}

}  // namespace
}  // namespace encoder_decoder
