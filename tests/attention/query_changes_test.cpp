// SPDX-License-Identifier: MIT
// Queries normed and turned by RoPE where a call gathers them (Options::query_norm, query_rope, query_positions).
#include <array>
#include <numeric>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/attention/oracle.hpp"
#include "tests/attention/ragged.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using namespace testing;

std::vector<float> weights(Index dim) {
  std::vector<float> result;
  for (Index d = 0; d < dim; ++d) result.push_back(0.5f + static_cast<float>(d * 7 % 11) / 8);
  return result;
}

/// Positions of no order, the edges among them: [token][axes].
std::vector<Index> positions_of(Index tokens, Index axes) {
  std::vector<Index> result;
  for (Index i = 0; i < tokens * axes; ++i) result.push_back(i * 7919 % 1000);
  const Index edges[] = {0, Index{1} << 31, Index{1} << 53, 5, 5};
  for (std::size_t i = 0; i < std::min(std::size(edges), result.size()); ++i) result[i] = edges[i];
  return result;
}

/// The same inputs with queries changed apart, as the options say, and the options without these.
struct Apart {
  Inputs in;
  Options options;

  Apart(const Inputs& inputs, const Options& all) : in(inputs), options(all) {
    const View<float> q(in.q.data(), in.sequences, in.query_tokens, in.heads.num_heads(), in.heads.head_dim());
    if (all.query_norm) all.query_norm->apply(q);
    if (all.query_rope && !all.query_positions.empty()) all.query_rope->apply(q, all.query_positions);
    if (all.query_rope && all.query_positions.empty()) all.query_rope->apply(q, in.key_tokens - in.query_tokens);
    options.query_norm = nullptr;
    options.query_rope = nullptr;
    options.query_positions = {};
  }
};

struct Shape {
  Heads<> heads;
  Index queries, keys;
};

class QueryChanges : public EveryIsa {};
HEADWISE_FOR_EVERY_ISA(QueryChanges);

TEST_P(QueryChanges, AreTheBitsOfChangingQueriesFirst) {
  ThreadPool pool(2);
  for (const auto& [heads, queries, keys] : {Shape{{4, 2, 64}, 1, 1100}, Shape{{4, 2, 64}, 70, 130},
                                             Shape{{3, 3, 22, 40}, 5, 65}, Shape{{6, 1, 13}, 64, 64}}) {
    const Inputs in(heads, 2, queries, keys, 3);  // coarse: any type of q holds the same numbers
    const Index dim = heads.head_dim();
    const auto weight = weights(dim);
    const QkNorm norm(dim, weight, 1e-5f), plain_norm(dim);
    const Rope rope(dim, {.rotary_dim = dim / 2 * 2}),
        partial(dim, {.style = RopeStyle::interleaved, .rotary_dim = 8, .rotary_begin = 3});
    const Rope sections(dim, {.rotary_dim = 12, .sections = {2, 3, 1}});
    const auto ones = positions_of(2 * queries, 1), threes = positions_of(2 * queries, 3);
    int i = 0;
    for (const Options& options :
         {Options{.query_rope = &rope}, Options{.query_norm = &norm}, Options{.query_norm = &norm, .query_rope = &rope},
          Options{.query_norm = &plain_norm, .query_rope = &partial, .query_positions = ones, .window = 40},
          Options{.query_rope = &sections, .query_positions = threes, .softcap = 5.0f},
          Options{.query_rope = &sections}}) {
      const Apart apart(in, options);
      const Route route{.source = kAllSources[i % 5],
                        .storage = kAllStorages[i % 3],
                        .queries = kAllStorages[(i + 1) % 3],
                        .query_layout = kAllLayouts[i % 4]};
      const Results want = run(apart.in, {.source = route.source, .storage = route.storage}, apart.options);
      EXPECT_EQ(run(in, route, options), want) << i;
      EXPECT_EQ(run(in, route, options, pool), want) << i << " on other threads";
      EXPECT_FALSE(run(in, route, apart.options) == want) << i << " does nothing";
      ++i;
    }
  }
}

TEST(QueryChange, OfEveryTypeAndLayoutOfQueriesHasTheSameBits) {
  const Inputs in({4, 2, 40}, 2, 9, 70, 4);
  const Rope rope(40);
  const auto weight = weights(40);
  const QkNorm norm(40, weight);
  const Options options{.query_norm = &norm, .query_rope = &rope};
  const Apart apart(in, options);
  const Results want = run(apart.in, {}, apart.options);
  for (const Storage storage : kAllStorages)
    for (const Layout layout : kAllLayouts)
      EXPECT_EQ(run(in, {.queries = storage, .query_layout = layout}, options), want);
}

TEST(QueryChange, ComesBeforeWhatASourceTransformedItsKeysFor) {
  const Heads<> heads{4, 2, 32};
  const Inputs in(heads, 1, 6, 90, 5);
  std::vector<float> scales(64);
  for (std::size_t i = 0; i < 64; ++i) scales[i] = std::exp2(static_cast<float>(i * 7 % 11) / 4 - 1);
  KvCache<float> cache(heads, 100, {.hadamard_keys = true, .key_channel_scales = {scales}});
  cache.append(View<const float>(in.k.data(), 90, 2, 32), View<const float>(in.v.data(), 90, 2, 32));
  const Rope rope(32);
  const QkNorm norm(32);
  const Options options{.query_norm = &norm, .query_rope = &rope};
  const Apart apart(in, options);
  EXPECT_EQ(run_over(cache, in, options), run_over(cache, apart.in, apart.options));
}

TEST(QueryChange, OfRaggedBatchesIsThatOfEachSequenceAlone) {
  const std::vector<RaggedSequence> sequences{{150, 150}, {1, 1200}, {0, 30}, {7, 70}, {1, 1}};
  const RaggedBatch batch({4, 2, 24}, sequences);
  const Rope rope(24, {.scaling = DynamicNtkScaling{.factor = 2, .original_max_position = 100}});
  const Rope sections(24, {.sections = {4, 4, 4}, .section_order = RopeSectionOrder::interleaved});
  const QkNorm norm(24);
  const auto positions = positions_of(159, 3);
  ThreadPool pool(3);
  const Route route{.storage = Storage::bf16};
  for (const Options& options : {Options{.query_norm = &norm, .query_rope = &rope},
                                 Options{.query_rope = &sections, .query_positions = positions}}) {
    Results want;
    for (Index b = 0; b < std::ssize(sequences); ++b) {
      Options alone = options;
      if (!positions.empty() && !options.query_positions.empty()) {
        const auto first = static_cast<std::size_t>(3 * batch.offsets[static_cast<std::size_t>(b)]);
        alone.query_positions = options.query_positions.subspan(
            first, static_cast<std::size_t>(3 * sequences[static_cast<std::size_t>(b)].queries));
      }
      const Apart apart(batch.alone(b), alone);
      const Results one = run(apart.in, route, apart.options);
      want.output.insert(want.output.end(), one.output.begin(), one.output.end());
      want.lse.insert(want.lse.end(), one.lse.begin(), one.lse.end());
    }
    Inputs in = batch.queries;
    with_source(batch.keys, route, [&](const auto& keys) {
      EXPECT_EQ(run_over(keys, in, batch.over_all(options), pool), want);
      const Attention<> attend(in.heads);
      const AttentionPlan plan = attend.plan(159, keys, batch.over_all(options), pool);
      Results got{std::vector<float>(want.output.size(), NAN), std::vector<float>(want.lse.size(), NAN)};
      attend(plan, View<const float>(in.q.data(), 159, 4, 24), keys,
             {View<float>(got.output.data(), 159, 4, 24), View<float>(got.lse.data(), 159, 4, 1)});
      EXPECT_EQ(got, want) << "planned";
    });
  }
}

TEST(QueryChange, LooksAtNoPositionBeyondTheQueryLengths) {
  const Inputs in({2, 2, 16}, 2, 5, 40, 7);
  const Rope rope(16);
  const std::vector<Index> lengths{5, 2};
  std::vector<Index> clean = positions_of(10, 1), dirty = clean;
  for (std::size_t i = 7; i < 10; ++i) dirty[i] = -1;
  const Options options{.query_rope = &rope, .query_positions = clean, .query_lengths = lengths};
  Options other = options;
  other.query_positions = dirty;
  const Apart apart(in, options);
  const Results want = run(apart.in, {}, apart.options);
  EXPECT_EQ(run(in, {}, options), want);
  EXPECT_EQ(run(in, {}, other), want);
}

TEST(QueryChange, OfDecodingAndOfAnyPiecesIsThatOfPrefill) {
  const Heads<> heads{4, 2, 48};
  const Index tokens = 1100;
  const Inputs in(heads, 1, tokens, tokens, 8, {.coarse = false});
  const Rope rope(48, {.base = 1e6});
  const auto weight = weights(48);
  const QkNorm norm(48, weight);
  const Options options{.query_norm = &norm, .query_rope = &rope};
  ThreadPool pool(2);
  const Attention<> attend(heads);
  const auto rows = [&](const std::vector<float>& x, Index first, Index count, Index width) {
    return View<const float>(x.data() + first * width * 48, count, width, 48);
  };
  const auto read_in_pieces = [&](std::vector<Index> pieces) {
    KvCache<bf16> cache(heads, tokens);
    std::vector<float> out(in.q.size());
    Index first = 0;
    for (const Index n : pieces) {
      cache.append(rows(in.k, first, n, 2), rows(in.v, first, n, 2), {.key_norm = &norm, .rope = &rope});
      attend(rows(in.q, first, n, 4), cache, View<float>(out.data() + first * 4 * 48, n, 4, 48), options, pool);
      first += n;
    }
    EXPECT_EQ(first, tokens);
    return out;
  };
  std::vector<Index> one_by_one(40, 1);
  one_by_one.push_back(tokens - 40 - 3);
  one_by_one.insert(one_by_one.end(), 3, 1);
  const auto whole = read_in_pieces({tokens});
  EXPECT_EQ(read_in_pieces(one_by_one), whole);
  EXPECT_EQ(read_in_pieces({63, 2, 1000, 35}), whole);
}

/// Queries or keys [token][head][dim] by the definition, in double, rounded at the end.
std::vector<float> normed_and_turned(const std::vector<float>& x, Index heads, Index dim,
                                     const std::vector<float>& weight, double epsilon, double base) {
  std::vector<float> result(x.size());
  for (std::size_t row = 0; row < x.size() / static_cast<std::size_t>(dim); ++row) {
    const float* const in = x.data() + row * static_cast<std::size_t>(dim);
    const auto position = static_cast<double>(static_cast<Index>(row) / heads);
    double squares = 0;
    for (Index d = 0; d < dim; ++d) squares += static_cast<double>(in[d]) * static_cast<double>(in[d]);
    const double root = std::sqrt(squares / static_cast<double>(dim) + epsilon);
    const auto normed = [&](Index d) {
      return static_cast<double>(in[d]) / root * static_cast<double>(weight[static_cast<std::size_t>(d)]);
    };
    for (Index i = 0; i < dim / 2; ++i) {
      const double angle = position * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
      const double a = normed(i), b = normed(i + dim / 2);
      float* const out = result.data() + row * static_cast<std::size_t>(dim);
      out[i] = static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      out[i + dim / 2] = static_cast<float>(b * std::cos(angle) + a * std::sin(angle));
    }
  }
  return result;
}

TEST_P(QueryChanges, AndThoseOfAnAppendGiveTheAttentionOfTheDefinition) {
  const Heads<> heads{4, 2, 64};
  const Index tokens = 140;
  const Inputs raw(heads, 1, tokens, tokens, 9);
  const auto query_weight = weights(64), key_weight = std::vector<float>(64, 1.25f);
  const QkNorm query_norm(64, query_weight, 1e-5f), key_norm(64, key_weight, 1e-5f);
  const Rope rope(64, {.base = 5000});
  KvCache<float> cache(heads, tokens);
  cache.append(View<const float>(raw.k.data(), tokens, 2, 64), View<const float>(raw.v.data(), tokens, 2, 64),
               {.key_norm = &key_norm, .rope = &rope});
  Inputs defined = raw;
  defined.q = normed_and_turned(raw.q, 4, 64, query_weight, static_cast<double>(1e-5f), 5000);
  defined.k = normed_and_turned(raw.k, 2, 64, key_weight, static_cast<double>(1e-5f), 5000);
  // norm and RoPE round each number a few times, each time for itself: over a score that is less than the roundings of its
  // sum, which Expected allows for
  Expected(defined).check(run_over(cache, raw, {.query_norm = &query_norm, .query_rope = &rope}), {});
}

TEST(QueryChange, OfAPlanServesLayersWithNormsOfTheirOwn) {
  const Heads<> heads{4, 2, 32};
  const Inputs in(heads, 1, 40, 100, 10);
  const auto cache = cache_of<float>(in);
  const auto weight = weights(32);
  const QkNorm first(32), second(32, weight), narrow(8);
  const Attention<> attend(heads);
  AttentionPlan plan;
  const Rope rope(32);
  {
    const std::vector<Index> positions = positions_of(40, 1);  // of which a plan has its own copy
    attend.plan(plan, 40, cache, {.query_norm = &first, .query_rope = &rope, .query_positions = positions});
  }
  const std::vector<Index> positions = positions_of(40, 1);
  std::vector<float> out(in.q.size());
  const View<const float> q(in.q.data(), 40, 4, 32);
  const View<float> output(out.data(), 40, 4, 32);
  const auto expect_norm = [&](const QkNorm& norm) {
    EXPECT_EQ(out,
              run_over(cache, in, {.query_norm = &norm, .query_rope = &rope, .query_positions = positions}).output);
  };
  attend(plan, q, cache, output);
  expect_norm(first);
  attend(plan, {.query_norm = &second}, q, cache, output);
  expect_norm(second);
  attend(plan, LayerOptions{}, q, cache, output);
  expect_norm(first);
  expect_error([&] { attend(plan, {.query_norm = &narrow}, q, cache, output); },
               {"head_dim (8) of query_norm", "(32)"});
}

TEST(QueryChange, MistakesAreNamedBeforeAnythingIsWritten) {
  const Inputs in({4, 2, 16}, 2, 3, 20);
  const auto cache = cache_of<float>(in);
  const Rope rope(16), narrow(8), sections(16, {.sections = {4, 2, 2}});
  const QkNorm norm(8);
  const Attention<> attend(in.heads);
  std::vector<float> out(in.q.size(), 7.0f);
  const auto expect_refused = [&](const Options& options, std::initializer_list<std::string_view> parts) {
    expect_error(
        [&] {
          attend(View<const float>(in.q.data(), 2, 3, 4, 16), cache, View<float>(out.data(), 2, 3, 4, 16), options);
        },
        parts);
    expect_error([&] { attend.plan(3, cache, options); }, parts);
  };
  const std::vector<Index> three{1, 2, 3}, six{1, 2, 3, 4, -5, 6}, large{1, 2, (Index{1} << 53) + 1, 4, 5, 6};
  expect_refused({.query_norm = &norm}, {"head_dim (8) of query_norm", "(16)"});
  expect_refused({.query_rope = &narrow}, {"head_dim (8) of query_rope", "(16)"});
  expect_refused({.query_positions = six}, {"query_positions (6)", "without query_rope"});
  expect_refused({.query_rope = &rope, .query_positions = three}, {"query_positions (3)", "one position", "(6)"});
  expect_refused({.query_rope = &sections, .query_positions = six}, {"query_positions (6)", "three", "(18)"});
  expect_refused({.query_rope = &rope, .query_positions = six}, {"query_positions[4] (-5)", "0 to"});
  expect_refused({.query_rope = &rope, .query_positions = large}, {"query_positions[2] (9007199254740993)"});
  EXPECT_EQ(out, std::vector<float>(in.q.size(), 7.0f));
}

}  // namespace
}  // namespace headwise
