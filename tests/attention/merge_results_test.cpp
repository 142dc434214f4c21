// SPDX-License-Identifier: MIT
// Results over disjoint keys, merged, are the result over all of them (merge_results).
#include <array>

#include "tests/attention/oracle.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

/// Rows' results of [rows][dim] and [rows], as parts.
struct Part {
  std::vector<float> output, lse;
  Index rows, dim;

  PartialResult view() const {
    return {View<const float>(output.data(), 1, rows, dim), View<const float>(lse.data(), 1, rows, 1)};
  }
  Outputs outputs() { return {View<float>(output.data(), 1, rows, dim), View<float>(lse.data(), 1, rows, 1)}; }
};

Part empty_part(Index rows, Index dim) {
  return {std::vector<float>(static_cast<std::size_t>(rows * dim), kNan),
          std::vector<float>(static_cast<std::size_t>(rows), kNan), rows, dim};
}

template <class E = const Serial&>
Part merged(const std::vector<Part>& parts, Index rows, Index dim, E&& executor = Serial{}) {
  Part result = empty_part(rows, dim);
  std::vector<PartialResult> views;
  for (const Part& part : parts) views.push_back(part.view());
  merge_results(views, result.outputs(), executor);
  return result;
}

Results results_of(const Part& part) { return {part.output, part.lse}; }

/// Numbers of three parts of `rows` rows, the lse of part i of row r at (i + r) · step.
std::vector<Part> three_parts(Index rows, Index dim, float step = 1) {
  std::mt19937 generator(5);
  std::vector<Part> parts;
  for (Index i = 0; i < 3; ++i) {
    parts.push_back({random_numbers(rows * dim, generator), {}, rows, dim});
    for (Index r = 0; r < rows; ++r) parts.back().lse.push_back(static_cast<float>(i + r) * step);
  }
  return parts;
}

/// A cache with tokens [first, last) of the inputs' keys and values.
KvCache<float> cache_of_range(const Inputs& in, Index first, Index last) {
  KvCache<float> cache(in.heads, std::max<Index>(1, last - first), {.num_sequences = in.sequences});
  Inputs part = in;
  part.k.clear();
  part.v.clear();
  const Index k = in.heads.num_kv_heads() * in.heads.head_dim(), v = in.heads.num_kv_heads() * in.heads.value_dim();
  for (Index b = 0; b < in.sequences; ++b) {
    const Index at = b * in.key_tokens;
    part.k.insert(part.k.end(), in.k.begin() + (at + first) * k, in.k.begin() + (at + last) * k);
    part.v.insert(part.v.end(), in.v.begin() + (at + first) * v, in.v.begin() + (at + last) * v);
  }
  part.key_tokens = last - first;
  return cache_of<float>(part);
}

TEST(MergeResults, OverRangesOfKeysInSeveralCachesGiveTheResultOverAll) {
  for (const auto& [queries, keys] : {std::pair<Index, Index>{1, 300}, {20, 200}, {5, 2100}})
    for (const std::vector<Index>& cuts : {std::vector<Index>{0}, {100}, {0, 1, 65, 130}, {64, 64, 128}}) {
      const Inputs in({4, 2, 24, 16}, 2, queries, keys, 91, {.coarse = false});
      std::vector<Results> parts;
      std::vector<PartialResult> views;
      parts.reserve(cuts.size() + 1);
      for (std::size_t i = 0; i <= cuts.size(); ++i) {
        const Index first = i == 0 ? 0 : cuts[i - 1], last = i == cuts.size() ? keys : cuts[i];
        // the last holds the queries' own tokens: only there is the causal mask at work
        parts.push_back(run_over(cache_of_range(in, first, last), in, {.causal = i == cuts.size()}));
        views.emplace_back(View<const float>(parts[i].output.data(), 2, queries, 4, 16),
                           View<const float>(parts[i].lse.data(), 2, queries, 4, 1));
      }
      Results whole{std::vector<float>(parts[0].output.size(), kNan), std::vector<float>(parts[0].lse.size(), kNan)};
      merge_results(views, {View<float>(whole.output.data(), 2, queries, 4, 16),
                            View<float>(whole.lse.data(), 2, queries, 4, 1)});
      // each part is as near to its own result as a whole call is; merging rounds once more
      Expected(in).check(whole, {});
    }
}

TEST(MergeResults, OverRangesOfOneCacheGiveTheResultOverAll) {
  const Inputs in({4, 2, 8}, 1, 1, 500, 92, {.coarse = false});
  const auto cache = cache_of<float>(in);
  const std::vector<Index> half{200};
  const Results early = run_over(cache, in, {.key_lengths = half}), late = run_over(cache, in, {.window = 300});
  Part whole = empty_part(4, 8);
  const std::vector<Part> parts{{early.output, early.lse, 4, 8}, {late.output, late.lse, 4, 8}};
  whole = merged(parts, 4, 8);
  Expected(in).check(results_of(whole), {});
}

TEST(MergeResults, WithSinkLogitsInOnePartGiveTheResultWithThem) {
  // by the definition alone: parts of it, as f32
  const Inputs in({2, 1, 8}, 1, 3, 40, 93);
  const std::vector<double> sinks{1.5, -2.0}, q(in.q.begin(), in.q.end()), k(in.k.begin(), in.k.end()),
      v(in.v.begin(), in.v.end());
  const auto part = [&](Index first, Index last, std::span<const double> logits) {
    reference::Parameters parameters{.sink_logits = logits};
    parameters.visible = [=](Index, Index, Index t) { return t >= first && t < last; };
    const reference::Result result = reference::attend({3, 40, 2, 1, 8, 8}, q, k, v, parameters);
    return Part{{result.output.begin(), result.output.end()}, {result.lse.begin(), result.lse.end()}, 6, 8};
  };
  const Part whole = part(0, 40, sinks);
  for (const std::vector<Part>& parts : {std::vector<Part>{part(0, 15, {}), part(15, 40, sinks)},
                                         std::vector<Part>{part(0, 0, sinks), part(0, 15, {}), part(15, 40, {})}}) {
    const Part got = merged(parts, 6, 8);
    for (std::size_t i = 0; i < got.output.size(); ++i) EXPECT_NEAR(got.output[i], whole.output[i], 4 * 0x1p-22f);
    for (std::size_t i = 0; i < got.lse.size(); ++i) EXPECT_NEAR(got.lse[i], whole.lse[i], 4 * 0x1p-22f);
  }
}

TEST(MergeResults, OfEveryTypeAndLayoutAreWeighedByTheirLse) {
  const Index rows = 4, dim = 70;
  const std::vector<Part> parts = three_parts(rows, dim, 0.5f);
  for (const Storage in : kAllStorages)
    for (const Storage out : kAllStorages)
      for (const Layout layout : kAllLayouts) {
        std::vector<Memory> values, sums;
        std::vector<PartialResult> views;
        for (const Part& part : parts) {
          values.emplace_back(part.output, in, 1, 1, rows, dim, layout);
          sums.emplace_back(part.lse, in, 1, 1, rows, 1, layout);
        }
        for (std::size_t i = 0; i < 3; ++i)
          with_type(in, [&]<class T>() { views.emplace_back(values[i].view<const T>(), sums[i].view<const T>()); });
        Memory result(std::vector<float>(static_cast<std::size_t>(rows * dim), kNan), out, 1, 1, rows, dim, layout);
        Memory lse(std::vector<float>(static_cast<std::size_t>(rows), kNan), Storage::f32, 1, 1, rows, 1, layout);
        with_type(out, [&]<class T>() { merge_results(views, {result.view<T>(), lse.view<float>()}); });
        EXPECT_TRUE(result.gaps_untouched());
        EXPECT_TRUE(lse.gaps_untouched());
        const std::vector<float> got = result.packed(), got_lse = lse.packed();
        for (Index r = 0; r < rows; ++r) {
          double total = 0;
          for (const Part& part : parts) total += std::exp(static_cast<double>(part.lse[static_cast<std::size_t>(r)]));
          EXPECT_NEAR(static_cast<double>(got_lse[static_cast<std::size_t>(r)]), std::log(total), 4 * 0x1p-24);
          for (Index d = 0; d < dim; ++d) {
            double expected = 0;
            for (const Part& part : parts)
              expected += std::exp(static_cast<double>(part.lse[static_cast<std::size_t>(r)])) / total *
                          static_cast<double>(part.output[static_cast<std::size_t>(r * dim + d)]);
            // one rounding to f32, one to the type
            EXPECT_NEAR(static_cast<double>(got[static_cast<std::size_t>(r * dim + d)]), expected,
                        (epsilon_of(out) + 0x1p-24) * std::abs(expected) + 0x1p-25);
          }
        }
      }
}

TEST(MergeResults, WithoutKeysAddNothingWhateverTheyHold) {
  std::vector<Part> parts = three_parts(3, 5);
  const std::vector<Part> two{parts[0], parts[2]};
  parts[1].lse.assign(3, -kInfinity);
  for (const float garbage : {kNan, kInfinity, 3e38f}) {
    parts[1].output.assign(15, garbage);
    EXPECT_EQ(results_of(merged(parts, 3, 5)), results_of(merged(two, 3, 5)));
  }
  for (Part& part : parts) {
    part.lse.assign(3, -kInfinity);
    part.output.assign(15, kNan);
  }
  const Results nothing{std::vector<float>(15, 0.0f), std::vector<float>(3, -kInfinity)};
  EXPECT_EQ(results_of(merged(parts, 3, 5)), nothing);
  EXPECT_EQ(results_of(merged({}, 3, 5)), nothing) << "of no parts";
}

TEST(MergeResults, OfOnePartAreItsOwn) {
  const Part part = three_parts(4, 9)[1];
  EXPECT_EQ(results_of(merged({part}, 4, 9)), results_of(part));
}

TEST(MergeResults, OfLargeAndFarApartSumsNeitherOverflowNorVanish) {
  std::vector<Part> parts = three_parts(2, 4, 0);
  for (const float far : {-3e38f, 3e38f, 1000.0f}) {
    for (Part& part : parts) part.lse.assign(2, far);
    const Part even = merged(parts, 2, 4);
    for (std::size_t i = 0; i < 8; ++i)
      EXPECT_NEAR(even.output[i], (parts[0].output[i] + parts[1].output[i] + parts[2].output[i]) / 3, 4 * 0x1p-23f);
    parts[1].lse.assign(2, far < 0 ? 0.0f : far * 1.1f > 3.4e38f ? far : far * 1.1f);
  }
}

TEST(MergeResults, LetNanThrough) {
  std::vector<Part> parts = three_parts(2, 4);
  parts[1].output[6] = kNan;  // row 1, dimension 2
  Part got = merged(parts, 2, 4);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(std::isnan(got.output[i]), i == 6);
  EXPECT_FALSE(std::isnan(got.lse[1]));
  for (const std::size_t of : {0u, 1u, 2u}) {
    parts = three_parts(2, 4);
    parts[of].lse[0] = kNan;
    got = merged(parts, 2, 4);
    for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(std::isnan(got.output[i]), i < 4) << of;
    EXPECT_TRUE(std::isnan(got.lse[0]) && !std::isnan(got.lse[1]));
  }
}

TEST(MergeResults, GoIntoTheMemoryOfAnyPart) {
  const std::vector<Part> parts = three_parts(5, 130);
  const Results expected = results_of(merged(parts, 5, 130));
  for (const std::size_t of : {0u, 1u, 2u}) {
    std::vector<Part> own = parts;
    const std::array<PartialResult, 3> views{own[0].view(), own[1].view(), own[2].view()};
    merge_results(views, own[of].outputs());
    EXPECT_EQ(results_of(own[of]), expected);
  }
}

TEST(MergeResults, HaveTheSameBitsForAnyThreads) {
  ThreadPool pool(3);
  const std::vector<Part> parts = three_parts(67, 33);
  EXPECT_EQ(results_of(merged(parts, 67, 33, pool)), results_of(merged(parts, 67, 33)));
}

TEST(MergeResults, OfOtherShapesAreErrors) {
  std::vector<float> x(100, 7.0f), out(100, 77.0f);
  const auto merge = [&](View<float> output, View<float> lse, Outputs merged) {
    const PartialResult parts[] = {{View<float>(x.data(), 2, 3, 4), View<float>(x.data(), 2, 3, 1)}, {output, lse}};
    merge_results(parts, merged);
  };
  const View<float> values(x.data(), 2, 3, 4), lse(x.data(), 2, 3, 1), to(out.data(), 2, 3, 4);
  EXPECT_NO_THROW(merge(values, lse, to));
  std::fill(out.begin(), out.end(), 77.0f);
  expect_error([&] { merge(View<float>(x.data(), 2, 3, 5), lse, to); }, {"output of parts[1]", "[1][2][3][5]"});
  expect_error([&] { merge(values, View<float>(x.data(), 2, 2, 1), to); }, {"lse of parts[1]", "[1][2][2][1]"});
  expect_error([&] { merge(values, lse, View<float>(out.data(), 3, 3, 4)); }, {"output of parts[0]", "[1][3][3][4]"});
  expect_error([&] { merge(values, lse, {to, View<float>(out.data(), 2, 3, 2)}); }, {"merged lse", "[1][2][3][2]"});
  Outputs more = to;
  more.mass = MassOutput(View<float>(out.data(), 1, 1, 1));
  expect_error([&] { merge(values, lse, more); }, {"merged", "alone"});
  for (const float y : out) EXPECT_EQ(y, 77.0f);
}

}  // namespace
}  // namespace headwise
