// SPDX-License-Identifier: MIT
// 2,000 random calls against PyTorch in float64, from rows and from a cache.
#include <cmath>

#include "tests/conformance/call.hpp"
#include "tests/conformance/mask_of.hpp"
#include "tests/conformance/suite.hpp"

namespace headwise::conformance {
namespace {

const CaseFile& file = cases("torch");

TEST(TorchFile, HoldsEveryCaseThatWasWritten) { expect_whole(file, 2000); }

class Torch : public ::testing::TestWithParam<Index> {};

template <class T>
std::vector<T> numbers(const Case& given, const std::string& name) {
  std::vector<T> result;
  if (const Tensor* x = given.find(name))
    for (Index i = 0; i < x->count(); ++i) result.push_back(static_cast<T>((*x)[i]));
  return result;
}

/// Attributes and tensors of a case are named as the options they are.
class TorchCall {
 public:
  explicit TorchCall(const Case& given)
      : key_lengths_(numbers<Index>(given, "key_lengths")),
        prefix_lengths_(numbers<Index>(given, "prefix_lengths")),
        key_starts_(numbers<Index>(given, "key_starts")),
        slopes_(numbers<float>(given, "alibi_slopes")),
        sinks_(numbers<float>(given, "sink_logits")) {
    const auto index = [&](const char* name) -> std::optional<Index> {
      if (!given.has(name)) return {};
      return static_cast<Index>(given.attribute(name, 0));
    };
    if (given.has("scale")) options_.scale = static_cast<float>(given.attribute("scale", 0));
    options_.causal = given.attribute("causal", 0) != 0;
    options_.window = index("window");
    options_.num_sink_tokens = index("num_sink_tokens").value_or(0);
    options_.window_right = index("window_right");
    options_.chunk_size = index("chunk_size");
    options_.prefix_lengths = prefix_lengths_;
    options_.key_starts = key_starts_;
    if (given.has("strength"))
      options_.temperature = {*index("floor_scale"), static_cast<float>(given.attribute("strength", 0))};
    options_.softcap = static_cast<float>(given.attribute("softcap", 0));
    options_.alibi_slopes = slopes_;
    options_.sink_logits = sinks_;
    options_.key_lengths = key_lengths_;
    if (const Tensor* mask = given.find("mask")) set_mask(options_, *mask);
  }
  TorchCall(const TorchCall&) = delete;
  TorchCall& operator=(const TorchCall&) = delete;

  const Options& options() const { return options_; }

 private:
  std::vector<Index> key_lengths_, prefix_lengths_, key_starts_;
  std::vector<float> slopes_, sinks_;
  Options options_;
};

TEST_P(Torch, Case) {
  const Case given = file.read(GetParam());
  const Tensor &output = given.at("output"), &spread = given.at("spread"), &lse = given.at("lse");
  const auto rows = [&](const char* name) { return Rows(given.at(name), given.at(name).size(1)); };
  const Rows q = rows("q"), k = rows("k"), v = rows("v"), y(output, q.heads());
  const TorchCall call(given);
  const double scale = given.attribute("scale", 1 / std::sqrt(static_cast<double>(q.dim())));
  const Arithmetic arithmetic{
      .keys = k.storage(),
      .outputs = q.storage(),
      .score_size = std::abs(scale) * given.attribute("largest_temperature", 1) * q.largest_norm() * k.largest_norm(),
      .added_size = given.attribute("largest_added", 0),
      .softcap = given.attribute("softcap", 0),
      .num_keys = k.tokens(),
      .head_dim = q.dim()};

  // where element i of the results, [sequence][token][head]([dim]), lies in PyTorch's [sequence][head][token]([dim])
  const Index H = q.heads(), T = q.tokens(), D = v.dim();
  const auto row_of = [&](Index i) { return ((i / (T * H)) * H + i % H) * T + i / H % T; };
  const auto at = [&](Index i) { return row_of(i / D) * D + i % D; };
  const auto check = [&](const Results& results, const std::string& source) {
    expect_near(
        results.output, [&](Index i) { return output[at(i)]; },
        [&](Index i) { return arithmetic.of_output(output[at(i)], spread[at(i)]); }, source + ", output");
    expect_near(
        results.lse, [&](Index i) { return lse[row_of(i)]; },
        [&](Index i) { return arithmetic.of_lse(lse[row_of(i)]); }, source + ", lse");
  };
  check(attend(q, rows_of(k, v), v.dim(), call.options()), "rows");
  const std::pair<Rows, Rows> both[] = {{k, v}};
  check(attend(q, cache_of(both), v.dim(), call.options()), "cache");
}

INSTANTIATE_TEST_SUITE_P(Cases, Torch, ::testing::ValuesIn(indices_of(file)), CaseName{&file});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Torch);

}  // namespace
}  // namespace headwise::conformance
