// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/paged_model.hpp"

namespace headwise::testing {

/// A PagedCache and vectors of rows that are to hold the same.
class PagedTwins {
 public:
  PagedTwins(AnyPagedCache& cache, unsigned seed) : cache_(cache), random_(seed) {
    for (Index l = 0; l < cache.num_layers(); ++l)
      if (cache.sharing().is_producer(l)) {
        producers_.push_back(l);
        ropes_.emplace_back(cache.layer_shape(l).head_dim);
      }
  }

  /// Compares everything.
  void check() {
    ASSERT_EQ(cache_.num_sequences(), std::ssize(live_));
    for (const Live& sequence : live_) expect_sequence(cache_, sequence.id, sequence.tokens);
    expect_counts(cache_);
  }
  std::map<std::string, Index> done;  // operations by name

 protected:
  struct Live {
    SequenceId id;
    ModelSequence tokens;
    std::vector<std::int32_t> text;  // of the tokens; as long as the longest layer has ever been told
    Index intact = 0;                // tokens that follow from the text alone
  };

  /// What must not have changed if the next call fails.
  void remember() {
    before_ = cache_.pages();
    lengths_before_ = all_lengths();
  }
  Index below(Index n) { return static_cast<Index>(random_() % static_cast<std::uint64_t>(n)); }
  bool one_in(Index n) { return below(n) == 0; }
  std::size_t any() { return static_cast<std::size_t>(below(std::ssize(live_))); }
  static std::size_t index(Index i) { return static_cast<std::size_t>(i); }
  std::vector<Index> all_lengths() const {
    std::vector<Index> result;
    for (const Live& s : live_)
      for (const Index l : producers_) result.push_back(cache_.num_tokens(l, s.id));
    return result;
  }
  static Index least(const Live& s) {
    Index result = std::ssize(s.tokens[0]);
    for (const auto& tokens : s.tokens) result = std::min(result, std::ssize(tokens));
    return result;
  }
  static Index most(const Live& s) {
    Index result = 0;
    for (const auto& tokens : s.tokens) result = std::max(result, std::ssize(tokens));
    return result;
  }

  /// A token is a function of storage, position and text; some are NaN or infinite.
  ModelToken token_of(std::size_t storage, Index position, std::int32_t text) const {
    const LayerShape shape = cache_.layer_shape(producers_[storage]);
    ModelToken token;
    auto state = static_cast<std::uint32_t>(position * 7919 + text * 104729 + static_cast<Index>(storage) * 31 + 1);
    const auto next = [&] {
      state = state * 1664525u + 1013904223u;
      return static_cast<float>(static_cast<int>(state >> 24) - 128) / 16;  // exact in every 16-bit type
    };
    for (Index i = 0; i < shape.num_kv_heads * shape.head_dim; ++i) token.key.push_back(next());
    for (Index i = 0; i < shape.num_kv_heads * shape.value_dim; ++i) token.value.push_back(next());
    if (text == 7) token.key.back() = token.value.back() = std::numeric_limits<float>::quiet_NaN();
    return token;
  }
  /// Pages of text repeat, so that prefixes do.
  std::int32_t text_at(Index position) {
    if (one_in(40)) return 7;
    return static_cast<std::int32_t>(position / 64 * 3 + (one_in(150) ? below(5) : 1));
  }

  PackedTokens add_text(Live& s, std::size_t storage, Index count, std::vector<ModelToken>& tokens) {
    PackedTokens packed;
    for (Index i = 0; i < count; ++i) {
      const Index position = std::ssize(s.tokens[storage]) + i;
      while (std::ssize(s.text) <= position) s.text.push_back(text_at(std::ssize(s.text)));
      tokens.push_back(token_of(storage, position, s.text[index(position)]));
      packed.add(tokens.back());
    }
    return packed;
  }
  void append_to(std::size_t which, std::size_t storage, Index count) {
    Live& s = live_[which];
    std::vector<ModelToken> tokens;
    const PackedTokens packed = add_text(s, storage, count, tokens);
    const LayerShape shape = cache_.layer_shape(producers_[storage]);
    remember();
    cache_.append(producers_[storage], s.id, keys_of(packed, shape), values_of(packed, shape));
    s.tokens[storage].insert(s.tokens[storage].end(), tokens.begin(), tokens.end());
  }

  Index some_tokens() { return one_in(3) ? 1 : one_in(4) ? below(150) : below(20); }

  void add(SequenceId id, const Live& like) {
    live_.push_back(like);
    live_.back().id = id;
    touched_.push_back(live_.size() - 1);
  }
  Live empty() const { return {SequenceId(), ModelSequence(producers_.size()), {}, kWhole}; }

  void cut(Live& s, std::size_t storage, Index tokens) {
    if (std::ssize(s.tokens[storage]) > tokens) s.tokens[storage].resize(index(tokens));
  }
  /// What is behind the tokens of the longest layer has no text any more.
  void forget_text(Live& s) {
    s.text.resize(std::min(s.text.size(), index(most(s))));
    if (most(s) <= s.intact) s.intact = kWhole;
  }
  void turn(std::size_t storage, ModelToken& token, Index distance) const {
    const LayerShape shape = cache_.layer_shape(producers_[storage]);
    const RopeTurn turn = ropes_[storage].turn_between(distance);
    for (Index g = 0; g < shape.num_kv_heads; ++g) ropes_[storage].apply(turn, token.key.data() + g * shape.head_dim);
  }
  /// The ropes of all layers: [layer].
  std::vector<const Rope*> layer_ropes() const {
    std::vector<const Rope*> result(index(cache_.num_layers()));
    for (std::size_t s = 0; s < producers_.size(); ++s) result[index(producers_[s])] = &ropes_[s];
    return result;
  }
  /// Some tokens of a sequence, those at its end among them.
  void look_at(const Live& s) {
    for (std::size_t storage = 0; storage < producers_.size(); ++storage) {
      const auto& tokens = s.tokens[storage];
      const Index layer = producers_[storage], count = std::ssize(tokens);
      ASSERT_EQ(cache_.num_tokens(layer, s.id), count);
      const Index from = count == 0 ? 0 : below(count);
      for (Index t = from; t < std::min(count, from + 4); ++t) expect_token(cache_, layer, s.id, t, tokens[index(t)]);
      for (Index t = std::max(Index{0}, count - 2); t < count; ++t)
        expect_token(cache_, layer, s.id, t, tokens[index(t)]);
    }
  }

  static constexpr Index kWhole = std::numeric_limits<Index>::max();
  AnyPagedCache& cache_;
  std::mt19937_64 random_;
  std::vector<Index> producers_;
  std::vector<Rope> ropes_;  // [producer]
  std::vector<Live> live_;
  std::vector<std::size_t> touched_;
  PageCounts before_;
  std::vector<Index> lengths_before_;  // [sequence][producer]
};

}  // namespace headwise::testing
