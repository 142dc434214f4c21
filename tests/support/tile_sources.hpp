// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <vector>

#include "headwise/cache/kv_cache.hpp"
#include "headwise/parallel/thread_pool.hpp"

// Sources of tiles that show what attention asks of them: which tiles, and how much memory of its own it needs for how
// many.

namespace headwise::testing {

/// Another source, and how often each of its tiles was asked for. Refers to it.
template <TileSource S>
class CountingSource {
 public:
  explicit CountingSource(const S& source) : source_(source), heads_(source.format().num_kv_heads) {
    Index most = 0;
    for (Index b = 0; b < source.num_sequences(); ++b) most = std::max(most, source.num_tokens(b));
    tiles_ = ceil_div(most, kTileTokens);
    counts_ = std::vector<std::atomic<Index>>(static_cast<std::size_t>(source.num_sequences() * heads_ * tiles_));
  }

  TileFormat format() const { return source_.format(); }
  Index num_sequences() const { return source_.num_sequences(); }
  Index num_tokens(Index sequence) const { return source_.num_tokens(sequence); }
  TilePointers tile(Index sequence, Index kv_head, Index index) const {
    if (index >= 0 && index < tiles_)
      counts_[at(sequence, kv_head, index)].fetch_add(1, std::memory_order_relaxed);
    else
      beyond_.fetch_add(1, std::memory_order_relaxed);
    return source_.tile(sequence, kv_head, index);
  }

  Index shared_tokens(Index a, Index b) const
    requires requires(const S& source) { source.shared_tokens(a, b); }
  {
    return source_.shared_tokens(a, b);
  }

  /// How often this tile was asked for.
  Index calls(Index sequence, Index kv_head, Index index) const { return counts_[at(sequence, kv_head, index)]; }
  /// How often any was.
  Index calls() const {
    Index total = beyond_;
    for (const auto& count : counts_) total += count;
    return total;
  }
  /// Tiles that were asked for at least once.
  Index distinct() const {
    Index total = 0;
    for (const auto& count : counts_) total += count > 0;
    return total;
  }
  /// How often a tile that no sequence has was asked for.
  Index beyond() const { return beyond_; }

 private:
  std::size_t at(Index sequence, Index kv_head, Index index) const {
    return static_cast<std::size_t>((sequence * heads_ + kv_head) * tiles_ + index);
  }

  const S& source_;
  Index heads_, tiles_;
  mutable std::vector<std::atomic<Index>> counts_;  // [sequence][kv_head][tile]
  mutable std::atomic<Index> beyond_{0};
};

/// A thread pool of which every thread has its part in the first attention call over an EndlessTile that knows it: what
/// each thread allocates when it first works is then allocated in that call, and not whenever the system lets a thread
/// come in time for a share.
class MeetingPool {
 public:
  explicit MeetingPool(Index threads) : pool_(threads) {}

  Index concurrency() const { return pool_.concurrency(); }
  template <class F>
  void parallel_for(Index n, F&& f) {
    if (expected_ == 0) expected_ = n;
    pool_.parallel_for(n, f);
  }

  /// Returns when as many threads are here as the first parallel_for was to run on.
  void meet() {
    if (arrived_ >= expected_) return;
    ++arrived_;
    arrived_.notify_all();
    for (Index n; (n = arrived_) < expected_;) arrived_.wait(n);
  }

 private:
  ThreadPool pool_;
  std::atomic<Index> expected_{0}, arrived_{0};
};

/// A sequence of any length whose tiles are all the same one, so that its length costs no memory.
template <class T>
class EndlessTile {
 public:
  EndlessTile(const Heads<>& heads, Index tokens, MeetingPool& pool)
      : tile_(Heads<>{1, 1, heads.head_dim(), heads.value_dim()}, kTileTokens),
        kv_heads_(heads.num_kv_heads()),
        tokens_(tokens),
        pool_(pool) {
    std::vector<float> keys(static_cast<std::size_t>(kTileTokens * heads.head_dim())),
        values(static_cast<std::size_t>(kTileTokens * heads.value_dim()));
    for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<float>(i % 13) * 0.125f;
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 11) * 0.125f;
    tile_.append(View<const float>(keys.data(), kTileTokens, 1, heads.head_dim()),
                 View<const float>(values.data(), kTileTokens, 1, heads.value_dim()));
  }

  TileFormat format() const {
    TileFormat format = tile_.layer().format();
    format.num_kv_heads = kv_heads_;
    return format;
  }
  Index num_sequences() const { return 1; }
  Index num_tokens(Index) const { return tokens_; }
  TilePointers tile(Index, Index, Index) const {
    pool_.meet();
    return tile_.layer().tile(0, 0, 0);
  }

 private:
  KvCache<T> tile_;
  Index kv_heads_, tokens_;
  MeetingPool& pool_;
};

}  // namespace headwise::testing
