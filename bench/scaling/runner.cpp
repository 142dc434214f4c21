// SPDX-License-Identifier: MIT
#include "scaling/runner.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "compare/figures.hpp"
#include "headwise/core/tile_layout.hpp"
#include "scaling/rotated.hpp"
#include "tests/support/tile_sources.hpp"

namespace scaling {

namespace {

using headwise::kTileTokens;

template <class F>
double median_over(const std::vector<Sample>& samples, F f) {
  std::vector<double> values;
  for (const Sample& sample : samples) values.push_back(f(sample));
  return compare::median(std::move(values));
}

headwise::Options options_of(const Case& c) {
  return c.windowed() ? headwise::Options{.window = c.window} : headwise::Options{};
}

// A prefill is long enough to be its own average.
int rounds_of(Phase phase, const RunOptions& options) {
  return phase == Phase::prefill ? std::min(options.repetitions, 3) : options.repetitions;
}

Limits mean(const Limits& a, const Limits& b) {
  return {2 / (1 / a.read_bandwidth + 1 / b.read_bandwidth), 2 / (1 / a.peak_flops + 1 / b.peak_flops)};
}

}  // namespace

double Result::seconds() const {
  return median_over(samples, [](const Sample& s) { return s.seconds; });
}
double Result::roofline_fraction() const {
  return median_over(samples,
                     [&](const Sample& s) { return s.limits.seconds(timed.kv_bytes(), timed.flops()) / s.seconds; });
}
double Result::peak_fraction() const {
  return median_over(samples, [&](const Sample& s) { return timed.flops() / s.limits.peak_flops / s.seconds; });
}

Runner::Runner(const RunOptions& options) : options_(options), roofline_(options.cold_bytes) {}

headwise::ExecutorRef Runner::executor(Index threads) {
  if (threads == 1) return headwise::ExecutorRef(serial_);
  auto& pool = pools_[threads];
  if (!pool) pool = std::make_unique<headwise::ThreadPool>(threads);
  return headwise::ExecutorRef(*pool);
}

Index Runner::cache_tokens() const {
  const Index longest =
      std::max(curves_.decode ? curves_.kv_lengths().back() : 0, curves_.prefill ? curves_.prompts().back() : 0);
  return headwise::round_up(longest, kTileTokens);
}

std::vector<Case> Runner::cases_of(Storage storage) const {
  std::vector<Case> cases;
  const auto add = [&](Phase phase, const std::vector<Index>& lengths) {
    for (const Index threads : curves_.threads)
      for (const Index tokens : lengths) {
        cases.push_back({curves_.heads, storage, phase, tokens, tokens, threads});
        if (curves_.window < tokens) cases.push_back({curves_.heads, storage, phase, tokens, curves_.window, threads});
      }
  };
  if (curves_.decode) add(Phase::decode, curves_.kv_lengths());
  if (curves_.prefill) add(Phase::prefill, curves_.prompts());
  return cases;
}

void Runner::count_and_verify(compare::Workload& workload, Result& result) {
  const Case& c = result.timed;
  Tiles& tiles = result.tiles;
  workload.clear_output();
  workload.with_layer(0, [&](const auto& layer) {
    const Rotated source(layer, 0, c.tokens);
    const headwise::testing::CountingSource counting(source);
    workload.attend_over(counting, c.new_tokens(), options_of(c), executor(curves_.threads.back()));
    tiles.asked = counting.calls();
    tiles.distinct = counting.distinct() + (counting.beyond() > 0);
    tiles.unseen = counting.beyond() > 0;
    for (Index head = 0; head < c.heads.num_kv_heads(); ++head)
      for (Index tile = 0; tile < (c.tokens - c.seen_tokens()) / kTileTokens; ++tile)
        tiles.unseen += counting.calls(0, head, tile) > 0;
  });
  tiles.tile_bytes = headwise::tile_bytes(c.storage, c.heads.head_dim(), c.heads.value_dim());
  result.check = workload.check_output(c.new_tokens(), c.tokens, c.window);
  if (result.check.passed()) return;
  all_verified_ = false;
  std::fprintf(stderr,
               "  WRONG: %s of %lld tokens, window %lld, is off by %.2e of the reference, at most %.2e expected\n",
               std::string(name_of(c.phase)).c_str(), static_cast<long long>(c.tokens),
               static_cast<long long>(c.window), result.check.error, result.check.limit);
}

Limits Runner::probe(const Case& c) {
  const headwise::ExecutorRef threads = executor(c.threads);
  return {roofline_.cold_bandwidth(threads), roofline_.peak_flops(threads, c.storage)};
}

Sample Runner::time(compare::Workload& workload, const Case& c) {
  using Clock = std::chrono::steady_clock;
  const Index tiles = cache_tokens() / kTileTokens, seen = headwise::ceil_div(c.seen_tokens(), kTileTokens);
  const Index unseen = headwise::ceil_div(c.tokens, kTileTokens) - seen;
  const headwise::Options options = options_of(c);
  const headwise::ExecutorRef threads = executor(c.threads);
  const Limits before = probe(c);
  Index calls = 0;
  double seconds = 0;
  const auto start = Clock::now();
  do {
    // what every call sees begins behind what the one before it saw, so that it finds nothing in the machine's caches
    workload.with_layer(next_layer_, [&](const auto& layer) {
      const Rotated source(layer, (next_tile_ - unseen % tiles + tiles) % tiles, c.tokens);
      workload.attend_over(source, c.new_tokens(), options, threads);
    });
    next_tile_ += seen;
    if (next_tile_ >= tiles) {
      next_tile_ -= tiles;
      next_layer_ = (next_layer_ + 1) % workload.num_layers();
    }
    ++calls;
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  } while (seconds < options_.min_time);
  return {seconds / static_cast<double>(calls), mean(before, probe(c))};
}

std::vector<Result> Runner::run(const Curves& curves, Storage storage) {
  curves_ = curves;
  const Index tile_bytes = headwise::tile_bytes(storage, curves.heads.head_dim(), curves.heads.value_dim());
  const auto bytes_of_cache = [&] { return cache_tokens() / kTileTokens * curves.heads.num_kv_heads() * tile_bytes; };
  while (bytes_of_cache() > options_.memory_bytes) {
    Index& longest = curves_.decode && (!curves_.prefill || curves_.kv_lengths().back() >= curves_.prompts().back())
                         ? curves_.max_kv
                         : curves_.max_prompt;
    headwise::require(longest > 1, "memory (", options_.memory_bytes, " bytes) must hold a tile of every KV head");
    std::fprintf(stderr,
                 "%s: %lld tokens are left out: the cache takes %lld MiB, more than the %lld allowed (--memory)\n",
                 std::string(name_of(storage)).c_str(), static_cast<long long>(longest),
                 static_cast<long long>(bytes_of_cache() >> 20), static_cast<long long>(options_.memory_bytes >> 20));
    longest /= 2;
  }
  const std::vector<Case> cases = cases_of(storage);
  if (cases.empty()) return {};
  const Index tokens = cache_tokens(), bytes = bytes_of_cache();
  const Index layers =
      std::clamp<Index>(headwise::ceil_div(options_.cold_bytes, bytes), 1, options_.memory_bytes / bytes);
  std::fprintf(stderr, "%s: filling caches of %lld MiB\n", std::string(name_of(storage)).c_str(),
               static_cast<long long>((layers * bytes) >> 20));
  const headwise::Heads<>& heads = curves_.heads;
  const compare::Model shape{"", "", heads.num_heads(), heads.head_dim(), heads.num_kv_heads(), {heads.num_kv_heads()}};
  compare::Workload workload(shape, heads.num_kv_heads(), storage, tokens, layers,
                             curves_.prefill ? curves_.prompts().back() : 1);
  next_tile_ = next_layer_ = 0;

  std::fprintf(stderr, "  counting tiles and verifying outputs\n");
  std::vector<Result> results;
  for (const Case& c : cases) {
    // the tiles do not depend on the threads
    const auto known = std::ranges::find_if(results, [&](const Result& r) {
      return r.timed.phase == c.phase && r.timed.tokens == c.tokens && r.timed.window == c.window;
    });
    Result result{c, {}, {}, layers * bytes, {}};
    if (known != results.end()) {
      result.tiles = known->tiles;
      result.check = known->check;
    } else {
      count_and_verify(workload, result);
    }
    results.push_back(std::move(result));
  }
  std::erase_if(results, [](const Result& r) { return !r.check.passed(); });

  for (int round = 0; round < options_.repetitions; ++round) {
    std::fprintf(stderr, "  timing, round %d of %d\n", round + 1, options_.repetitions);
    for (Result& result : results)
      if (round < rounds_of(result.timed.phase, options_)) result.samples.push_back(time(workload, result.timed));
  }
  return results;
}

}  // namespace scaling
