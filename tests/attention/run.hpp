// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/attention/inputs.hpp"

// Runs the library on Inputs, from any source of keys and values, with any storage types.

namespace headwise::testing {

enum class Source { cache, packed_rows, head_major_rows, odd_rows, scattered_rows };
inline constexpr Source kAllSources[] = {Source::cache, Source::packed_rows, Source::head_major_rows, Source::odd_rows,
                                         Source::scattered_rows};
inline std::string name_of(Source source) {
  constexpr const char* names[] = {"cache", "packed_rows", "head_major_rows", "odd_rows", "scattered_rows"};
  return names[static_cast<int>(source)];
}

/// How Inputs reach the library and come back.
struct Route {
  Source source = Source::cache;
  Storage storage = Storage::f32;  // of keys and values
  Storage queries = Storage::f32;
  Storage outputs = Storage::f32;
  Layout query_layout = Layout::packed;
  Layout output_layout = Layout::packed;
};

struct Results {
  std::vector<float> output;  // [sequence][token][head][value_dim]
  std::vector<float> lse;     // [sequence][token][head]
  /// The same bits: a NaN equals itself, 0 does not equal −0.
  friend bool operator==(const Results& a, const Results& b) {
    const auto same = [](const std::vector<float>& x, const std::vector<float>& y) {
      return x.size() == y.size() && (x.empty() || std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
    };
    return same(a.output, b.output) && same(a.lse, b.lse);
  }
};
inline void PrintTo(const Results& results, std::ostream* out) {
  *out << "results of " << results.lse.size() << " rows, first " << (results.output.empty() ? 0.0f : results.output[0]);
}

/// Behind the rows that are there, those of the next call.
inline void append_to(Results& all, const Results& part) {
  all.output.insert(all.output.end(), part.output.begin(), part.output.end());
  all.lse.insert(all.lse.end(), part.lse.begin(), part.lse.end());
}

/// A cache that holds the keys and values of the inputs.
template <class T>
KvCache<T> cache_of(const Inputs& in) {
  KvCache<T> cache(in.heads, std::max<Index>(1, in.key_tokens), {.num_sequences = in.sequences});
  cache.append(
      View<const float>(in.k.data(), in.sequences, in.key_tokens, in.heads.num_kv_heads(), in.heads.head_dim()),
      View<const float>(in.v.data(), in.sequences, in.key_tokens, in.heads.num_kv_heads(), in.heads.value_dim()));
  return cache;
}

/// Attention over any source; outputs hold NaN before, so that what is not written shows.
template <class S>
Results run_with(ExecutorRef executor, const S& source, const Inputs& in, const Options& options, const Route& route,
                 const HeadMap* map) {
  const Heads<>& heads = in.heads;
  const Index rows = in.sequences * in.query_tokens * heads.num_heads();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Memory q(in.q, route.queries, in.sequences, in.query_tokens, heads.num_heads(), heads.head_dim(), route.query_layout);
  Memory out(std::vector<float>(static_cast<std::size_t>(rows * heads.value_dim()), nan), route.outputs, in.sequences,
             in.query_tokens, heads.num_heads(), heads.value_dim(), route.output_layout);
  Memory lse(std::vector<float>(static_cast<std::size_t>(rows), nan), Storage::f32, in.sequences, in.query_tokens,
             heads.num_heads(), 1, route.output_layout);
  const Attention<> attend = map ? Attention<>(heads, *map) : Attention<>(heads);
  with_type(route.queries, [&]<class Q>() {
    with_type(route.outputs, [&]<class O>() {
      attend(q.view<const Q>(), source, {out.view<O>(), lse.view<float>()}, options, executor);
    });
  });
  EXPECT_TRUE(out.gaps_untouched());
  EXPECT_TRUE(lse.gaps_untouched());
  return {out.packed(), lse.packed()};
}
// nine combinations of types for each source: compiled once, in run.cpp
#define HEADWISE_RUN_WITH(linkage, S) \
  linkage template Results run_with(ExecutorRef, const S&, const Inputs&, const Options&, const Route&, const HeadMap*)
HEADWISE_RUN_WITH(extern, KvCache<float>);
HEADWISE_RUN_WITH(extern, KvCache<f16>);
HEADWISE_RUN_WITH(extern, KvCache<bf16>);
HEADWISE_RUN_WITH(extern, KvRows);
HEADWISE_RUN_WITH(extern, CacheLayer);
HEADWISE_RUN_WITH(extern, KvBlocks);

template <class S, class E = const Serial&>
Results run_over(const S& source, const Inputs& in, const Options& options = {}, E&& executor = Serial{},
                 const Route& route = {}, const HeadMap* map = nullptr) {
  return run_with(ExecutorRef(executor), source, in, options, route, map);
}

/// Calls f(source) with the keys and values of the inputs as the route's source holds them.
template <class F>
auto with_source(const Inputs& in, const Route& route, F&& f) {
  const Heads<>& heads = in.heads;
  return with_type(route.storage, [&]<class T>() {
    if (route.source == Source::cache) return f(cache_of<T>(in));
    const Layout layout = kAllLayouts[static_cast<int>(route.source) - 1];
    Memory k(in.k, route.storage, in.sequences, in.key_tokens, heads.num_kv_heads(), heads.head_dim(), layout);
    Memory v(in.v, route.storage, in.sequences, in.key_tokens, heads.num_kv_heads(), heads.value_dim(), layout);
    return f(KvRows(k.view<const T>(), v.view<const T>()));
  });
}

Results run_with(ExecutorRef executor, const Inputs& in, const Route& route, const Options& options,
                 const HeadMap* map);

template <class E = const Serial&>
Results run(const Inputs& in, const Route& route = {}, const Options& options = {}, E&& executor = Serial{},
            const HeadMap* map = nullptr) {
  return run_with(ExecutorRef(executor), in, route, options, map);
}

/// A test that runs once for every ISA of this architecture; those that the CPU or the build lacks are skipped.
class EveryIsa : public ::testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    const auto isas = available_isas();
    if (std::find(isas.begin(), isas.end(), GetParam()) == isas.end())
      GTEST_SKIP() << "skipped: no " << headwise::name_of(GetParam());
    before_ = current_isa();
    set_isa(GetParam());
  }
  void TearDown() override {
    if (!IsSkipped()) set_isa(before_);
  }

 private:
  Isa before_{};
};

#if defined(__aarch64__)
inline const auto kIsas = ::testing::Values(Isa::neon);
#else
inline const auto kIsas = ::testing::Values(Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16);
#endif

struct IsaName {
  std::string operator()(const ::testing::TestParamInfo<Isa>& info) const {
    return std::string(headwise::name_of(info.param));
  }
};

#define HEADWISE_FOR_EVERY_ISA(Suite) \
  INSTANTIATE_TEST_SUITE_P(Isas, Suite, ::headwise::testing::kIsas, ::headwise::testing::IsaName{})

}  // namespace headwise::testing
