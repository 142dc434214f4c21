// SPDX-License-Identifier: MIT
// The node tests of ONNX's operator Attention: every case from rows and from a cache.
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

TEST_P(Onnx, Case) {
  const Case given = file.read(GetParam());
  const OnnxAttention call(given);
  const Options options = call.options();
  if (call.mask()) GTEST_SKIP() << "masks";
  const auto parts = call.keys_and_values();
  const KvCache<> cache = cache_of(parts);
  check_present(given, cache);
  check_output(given, call, attend(call.queries(), cache, call.value_dim(), options), "cache");
  if (!call.has_past()) {
    const KvRows rows = rows_of(parts.front().first, parts.front().second);
    check_output(given, call, attend(call.queries(), rows, call.value_dim(), options), "rows");
  }
  if (given.find("qk_matmul_output")) GTEST_SKIP() << "score outputs";
}

INSTANTIATE_TEST_SUITE_P(Cases, Onnx, ::testing::ValuesIn(indices_of(file)), CaseName{&file});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Onnx);

}  // namespace
}  // namespace headwise::conformance
