// SPDX-License-Identifier: MIT
// The node tests of ONNX's operator Attention: every case from rows and from a cache.
#include "tests/conformance/mask_of.hpp"
#include "tests/conformance/onnx_attention.hpp"
#include "tests/conformance/suite.hpp"

namespace headwise::conformance {
namespace {

const CaseFile& file = cases("onnx");

TEST(OnnxFile, HoldsEveryCaseThatWasWritten) { expect_whole(file, 93); }

class Onnx : public ::testing::TestWithParam<Index> {};

/// Numbers of the operator beside those of the library, with the published ones and with those of float64.
void check_output(const Case& given, const OnnxAttention& call, const Results& results, std::string_view source) {
  const Tensor &published = given.at("Y"), &exact = given.at("Y_f64"), &spread = given.at("Y_spread");
  const Rows y(published, call.queries().heads());
  // where element i of the results, [sequence][token][head][dim], lies in the operator's output
  std::vector<Index> place;
  for (Index b = 0; b < y.sequences(); ++b)
    for (Index t = 0; t < y.tokens(); ++t)
      for (Index h = 0; h < y.heads(); ++h)
        for (Index d = 0; d < y.dim(); ++d) place.push_back(y.at(b, t, h, d));
  ASSERT_EQ(results.output.size(), place.size());
  const auto at = [&](const Tensor& x) { return [&](Index i) { return x[place[static_cast<std::size_t>(i)]]; }; };
  for (const bool is_exact : {true, false}) {
    const Tensor& expected = is_exact ? exact : published;
    Arithmetic arithmetic = call.arithmetic();
    if (!is_exact) arithmetic.others_roundoff = epsilon_of(call.queries().storage());
    expect_near(
        results.output, at(expected), [&](Index i) { return arithmetic.of_output(at(expected)(i), at(spread)(i)); },
        std::string(source) + (is_exact ? ", Y in float64" : ", Y"));
  }
}

/// present_key and present_value are what the cache reads back, bit for bit.
void check_present(const Case& given, const KvCache<>& cache) {
  for (const bool keys : {true, false}) {
    const Tensor* present = given.find(keys ? "present_key" : "present_value");
    if (!present) continue;
    const Rows rows(*present, present->size(1));
    ASSERT_EQ(cache.num_tokens(), rows.tokens());
    std::vector<float> row(static_cast<std::size_t>(rows.dim()));
    for (Index b = 0; b < rows.sequences(); ++b)
      for (Index t = 0; t < rows.tokens(); ++t)
        for (Index h = 0; h < rows.heads(); ++h) {
          if (keys)
            cache.read_key(0, b, t, h, row);
          else
            cache.read_value(0, b, t, h, row);
          for (Index d = 0; d < rows.dim(); ++d)
            ASSERT_EQ(static_cast<double>(row[static_cast<std::size_t>(d)]), rows(b, t, h, d));
        }
  }
}

/// qk_matmul_output at the stage that its mode asks for, [sequence][head][query][key].
std::optional<Scores> wanted_scores(const Case& given) {
  const Tensor* scores = given.find("qk_matmul_output");
  if (!scores) return {};
  constexpr ScoreStage kStages[] = {ScoreStage::scaled, ScoreStage::softcapped, ScoreStage::biased,
                                    ScoreStage::weights};
  const auto mode = static_cast<std::size_t>(given.attribute("qk_matmul_output_mode", 0));
  return Scores{kStages[mode], scores->size(3)};
}

void check_scores(const Case& given, const OnnxAttention& call, const Results& results, std::string_view source) {
  const std::optional<Scores> wanted = wanted_scores(given);
  if (!wanted) return;
  const Index T = call.queries().tokens(), H = call.queries().heads(), K = wanted->keys;
  const auto place = [&](Index i) {
    const Index t = i % K, h = i / K % H, q = i / K / H % T, b = i / K / H / T;
    return ((b * H + h) * T + q) * K + t;
  };
  for (const bool is_exact : {true, false}) {
    const Tensor& expected = given.at(is_exact ? "qk_matmul_output_f64" : "qk_matmul_output");
    Arithmetic arithmetic = call.arithmetic();
    if (!is_exact) arithmetic.others_roundoff = epsilon_of(call.queries().storage());
    expect_near(
        results.scores, [&](Index i) { return expected[place(i)]; },
        [&](Index i) {
          return wanted->stage == ScoreStage::weights ? arithmetic.of_weight(expected[place(i)])
                                                      : arithmetic.of_score();
        },
        std::string(source) + (is_exact ? ", scores in float64" : ", scores"));
  }
}

TEST_P(Onnx, Case) {
  const Case given = file.read(GetParam());
  const OnnxAttention call(given);
  Options options = call.options();
  if (call.mask()) set_mask(options, *call.mask());
  const auto parts = call.keys_and_values();
  const KvCache<> cache = cache_of(parts);
  check_present(given, cache);
  const auto check = [&](const auto& keys, std::string_view source) {
    const Results results = attend(call.queries(), keys, call.value_dim(), options, wanted_scores(given));
    check_output(given, call, results, source);
    check_scores(given, call, results, source);
  };
  check(cache, "cache");
  if (!call.has_past()) check(rows_of(parts.front().first, parts.front().second), "rows");
}

INSTANTIATE_TEST_SUITE_P(Cases, Onnx, ::testing::ValuesIn(indices_of(file)), CaseName{&file});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Onnx);

}  // namespace
}  // namespace headwise::conformance
