// SPDX-License-Identifier: MIT
// Scores of any finite size: nothing overflows, nothing is lost, in whatever order large and small ones come.
#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

class Numerics : public EveryIsa {};

/// One query, `keys` keys whose scores are score(t) exactly.
template <class Score>
Inputs with_scores(Index keys, Score score) {
  Inputs in({1, 1, 8}, 1, 1, keys, 41);
  std::fill(in.q.begin(), in.q.end(), 0.0f);
  in.query(0, 0, 0)[0] = 1;
  for (Index t = 0; t < keys; ++t) in.key(0, t, 0)[0] = score(t);
  return in;
}

void expect_all_defined(const Inputs& in, std::string_view what) {
  for (const Storage storage : kAllStorages)
    for (const Source source : {Source::cache, Source::packed_rows})
      expect_defined(in, {.source = source, .storage = storage}, {.scale = 1.0f}, nullptr, what);
}

TEST_P(Numerics, RisingScoresReplaceWhatCameBefore) {
  for (const float step : {0.0625f, 1.0f, 16.0f, 1024.0f})  // each tile rises by 64 steps
    expect_all_defined(with_scores(400, [&](Index t) { return step * static_cast<float>(t / 8); }), "rising");
}

TEST_P(Numerics, FallingScoresAddLittle) {
  for (const float step : {0.0625f, 1.0f, 16.0f, 1024.0f})
    expect_all_defined(with_scores(400, [&](Index t) { return -step * static_cast<float>(t / 8); }), "falling");
}

TEST_P(Numerics, OneScoreFarAboveTheRestWinsWhereverItIs) {
  for (const Index peak : {Index{0}, Index{63}, Index{64}, Index{1023}, Index{1024}, Index{1099}})
    for (const float height : {8.0f, 13.0f, 30.0f, 1024.0f, 32768.0f})
      expect_all_defined(with_scores(1100, [&](Index t) { return t == peak ? height : 0.0f; }), "peak");
}

TEST_P(Numerics, EqualScoresAverageEvenVeryManyOfThem) {
  for (const float score : {0.0f, 100.0f, -100.0f, 32768.0f, -32768.0f})
    expect_all_defined(with_scores(3000, [&](Index) { return score; }), "equal");
}

TEST_P(Numerics, ScoresAtTheEdgeOfALazyRescaleAreExact) {
  // the accumulated output is rescaled only when a tile rises far enough: on both sides of every such rule
  for (int sixteenths = 100; sixteenths <= 255; ++sixteenths) {
    const float height = static_cast<float>(sixteenths) / 16;
    expect_all_defined(with_scores(130, [&](Index t) { return t >= 64 ? height : 0.0f; }), "edge");
    if (HasFatalFailure()) return;
  }
}

TEST_P(Numerics, TheLargestFiniteInputsDoNotOverflowTheSoftmax) {
  Inputs in({1, 1, 8}, 1, 1, 100, 42);
  std::fill(in.q.begin(), in.q.end(), 1e18f);
  std::fill(in.k.begin(), in.k.end(), 1e18f);
  const Results results = run(in, {}, {.scale = 0.125f});  // scores of 1e36
  double mean[8] = {};
  for (Index t = 0; t < 100; ++t)
    for (Index d = 0; d < 8; ++d) mean[d] += static_cast<double>(in.value(0, t, 0)[d]) / 100;
  for (std::size_t d = 0; d < 8; ++d) EXPECT_NEAR(static_cast<double>(results.output[d]), mean[d], 1e-5);
}

TEST_P(Numerics, LargeValuesKeepTheirSize) {
  Inputs in({2, 1, 8}, 1, 2, 200, 43);
  for (float& x : in.v) x *= 0x1p100f;
  for (const Source source : {Source::cache, Source::packed_rows}) {
    expect_defined(in, {.source = source});
    expect_defined(in, {.source = source, .storage = Storage::bf16});
  }
}

TEST_P(Numerics, OutputsTooLargeForTheirTypeBecomeInfinity) {
  Inputs in({1, 1, 8}, 1, 1, 20, 44);
  std::fill(in.v.begin(), in.v.end(), 1e6f);
  const Results results = run(in, {.outputs = Storage::f16});
  for (const float x : results.output) EXPECT_EQ(x, std::numeric_limits<float>::infinity());
}

TEST_P(Numerics, SubnormalHalfPrecisionInputsCount) {
  Inputs in({1, 1, 8}, 1, 1, 20, 45);
  for (float& x : in.v) x *= 0x1p-19f;  // multiples of 2^-24: every one a subnormal or small half
  for (const Source source : {Source::cache, Source::packed_rows})
    expect_defined(in, {.source = source, .storage = Storage::f16});
}

HEADWISE_FOR_EVERY_ISA(Numerics);

}  // namespace
}  // namespace headwise
