// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/cache/paged_twins.hpp"

namespace headwise::testing {

/// The operations that are done on both.
class PagedOperations : public PagedTwins {
 public:
  using PagedTwins::PagedTwins;

  /// One operation of `kind`, after which what it touched is looked at. Counts in `done` how it went.
  void step() {
    struct Kind {
      const char* name;
      int weight;
      void (PagedOperations::*run)();
    };
    static constexpr Kind kKinds[] = {
        {"create", 6, &PagedOperations::create},
        {"fork", 8, &PagedOperations::fork},
        {"release", 14, &PagedOperations::release},
        {"append", 24, &PagedOperations::append},
        {"append to one layer", 6, &PagedOperations::append_to_layer},
        {"append_ragged", 10, &PagedOperations::append_ragged},
        {"reserve", 4, &PagedOperations::reserve},
        {"truncate", 10, &PagedOperations::truncate},
        {"truncate one layer", 3, &PagedOperations::truncate_layer},
        {"clear", 1, &PagedOperations::clear},
        {"evict", 5, &PagedOperations::evict},
        {"copy_range", 4, &PagedOperations::copy_range},
        {"reorder", 4, &PagedOperations::reorder},
        {"register_prefix", 8, &PagedOperations::register_prefix},
        {"match_prefix", 8, &PagedOperations::match_prefix},
        {"restore", 3, &PagedOperations::restore},
        {"defragment", 1, &PagedOperations::defragment},
    };
    int total = 0;
    for (const Kind& kind : kKinds) total += kind.weight;
    int choice = static_cast<int>(below(total));
    const Kind* kind = kKinds;
    while (choice >= kind->weight) choice -= (kind++)->weight;
    remember();
    touched_.clear();
    try {
      (this->*kind->run)();
      ++done[kind->name];
    } catch (const OutOfPages& error) {
      ++done[std::string(kind->name) + ": out of pages"];
      EXPECT_GT(error.wanted(), error.available());
      EXPECT_EQ(error.available(), before_.free + before_.cached);
      EXPECT_EQ(cache_.pages(), before_);
      EXPECT_EQ(all_lengths(), lengths_before_);
      for (std::size_t i = 0; i < live_.size(); ++i) touched_.push_back(i);
    } catch (const OutOfSequences&) {
      ++done[std::string(kind->name) + ": out of sequences"];
      EXPECT_EQ(std::ssize(live_), cache_.max_sequences());
      EXPECT_EQ(cache_.pages(), before_);
    }
    for (const std::size_t i : touched_) look_at(live_[i]);
  }

  void release_all() {
    while (!live_.empty()) release();
  }

 private:
  void create() { add(cache_.create(), empty()); }
  void fork() {
    if (live_.empty()) return;
    const std::size_t parent = any();
    const SequenceId id = cache_.fork(live_[parent].id);
    touched_.push_back(parent);
    add(id, Live(live_[parent]));
  }
  void release() {
    if (live_.empty()) return;
    const std::size_t i = any();
    cache_.release(live_[i].id);
    EXPECT_FALSE(cache_.contains(live_[i].id));
    std::swap(live_[i], live_.back());
    live_.pop_back();
  }
  void append() {
    if (live_.empty()) return;
    const std::size_t i = any();
    const Index count = some_tokens();
    touched_.push_back(i);
    for (std::size_t s = 0; s < producers_.size(); ++s) append_to(i, s, count);
  }
  void append_to_layer() {
    if (live_.empty()) return;
    const std::size_t i = any();
    touched_.push_back(i);
    append_to(i, static_cast<std::size_t>(below(std::ssize(producers_))), below(30));
  }
  void append_ragged() {
    if (live_.empty()) return;
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < live_.size(); ++i)
      if (one_in(2)) chosen.push_back(i);
    std::vector<SequenceId> ids;
    std::vector<Index> counts;
    for (const std::size_t i : chosen) {
      ids.push_back(live_[i].id);
      counts.push_back(one_in(4) ? 0 : some_tokens());
      touched_.push_back(i);
    }
    for (std::size_t s = 0; s < producers_.size(); ++s) {
      std::vector<Index> offsets{0};
      PackedTokens all;
      std::vector<std::vector<ModelToken>> tokens(chosen.size());
      for (std::size_t b = 0; b < chosen.size(); ++b) {
        offsets.push_back(offsets.back() + counts[b]);
        const PackedTokens packed = add_text(live_[chosen[b]], s, counts[b], tokens[b]);
        all.keys.insert(all.keys.end(), packed.keys.begin(), packed.keys.end());
        all.values.insert(all.values.end(), packed.values.begin(), packed.values.end());
      }
      const LayerShape shape = cache_.layer_shape(producers_[s]);
      remember();
      cache_.append_ragged(producers_[s], ids, offsets, keys_of(all, shape), values_of(all, shape));
      for (std::size_t b = 0; b < chosen.size(); ++b) {
        auto& stored = live_[chosen[b]].tokens[s];
        stored.insert(stored.end(), tokens[b].begin(), tokens[b].end());
      }
    }
  }
  /// After a reservation no append can want pages.
  void reserve() {
    if (live_.empty()) return;
    const std::size_t i = any();
    const Index count = below(100);
    touched_.push_back(i);
    cache_.reserve(live_[i].id, count);
    const PageCounts before = cache_.pages();
    if (one_in(2))
      for (std::size_t s = 0; s < producers_.size(); ++s) append_to(i, s, count);
    EXPECT_EQ(cache_.pages(), before);
  }
  void truncate() {
    if (live_.empty()) return;
    const std::size_t i = any();
    const Index length = most(live_[i]), tokens = one_in(2) ? length - std::min(length, below(5)) : below(length + 1);
    touched_.push_back(i);
    cache_.truncate(live_[i].id, tokens);
    for (std::size_t s = 0; s < producers_.size(); ++s) cut(live_[i], s, tokens);
    forget_text(live_[i]);
  }
  void truncate_layer() {
    if (live_.empty()) return;
    const std::size_t i = any(), s = static_cast<std::size_t>(below(std::ssize(producers_)));
    const Index tokens = below(std::ssize(live_[i].tokens[s]) + 1);
    touched_.push_back(i);
    cache_.truncate(producers_[s], live_[i].id, tokens);
    cut(live_[i], s, tokens);
    forget_text(live_[i]);
  }
  void clear() {
    if (live_.empty()) return;
    const std::size_t i = any();
    cache_.clear(live_[i].id);
    EXPECT_EQ(cache_.num_pages(live_[i].id), 0);
    live_[i].tokens = ModelSequence(producers_.size());
    forget_text(live_[i]);
  }
  void evict() {
    if (live_.empty()) return;
    const std::size_t i = any();
    Live& s = live_[i];
    Index first = below(least(s) + 1), last = first + below(least(s) - first + 1);
    if (one_in(3)) {
      first = first / cache_.page_tokens() * cache_.page_tokens();
      last = last / cache_.page_tokens() * cache_.page_tokens();
      last = std::max(first, last);
    }
    const bool turns = one_in(2);
    touched_.push_back(i);
    const auto ropes = layer_ropes();
    cache_.evict(s.id, first, last, turns ? LayerRopes(ropes) : LayerRopes());
    if (first == last) return;
    for (std::size_t storage = 0; storage < producers_.size(); ++storage) {
      auto& tokens = s.tokens[storage];
      tokens.erase(tokens.begin() + first, tokens.begin() + last);
      for (auto token = tokens.begin() + first; turns && token != tokens.end(); ++token)
        turn(storage, *token, first - last);
    }
    s.text.erase(s.text.begin() + first, s.text.begin() + last);
    s.intact = std::min(s.intact, first);
    forget_text(s);
  }
  void copy_range() {
    if (live_.empty()) return;
    const std::size_t from = any(), to = any();
    const Index first = below(least(live_[from]) + 1), last = first + below(least(live_[from]) - first + 1);
    const bool turns = one_in(2);
    touched_ = {from, to};
    const auto ropes = layer_ropes();
    cache_.copy_range(live_[from].id, first, last, live_[to].id, turns ? LayerRopes(ropes) : LayerRopes());
    if (first == last) return;
    Live& s = live_[to];
    s.intact = std::min(s.intact, least(s));
    for (std::size_t storage = 0; storage < producers_.size(); ++storage) {
      const std::vector<ModelToken> source(live_[from].tokens[storage].begin() + first,
                                           live_[from].tokens[storage].begin() + last);
      const Index distance = std::ssize(s.tokens[storage]) - first;
      for (ModelToken token : source) {
        if (turns) turn(storage, token, distance);
        s.tokens[storage].push_back(std::move(token));
      }
    }
    s.text.resize(index(most(s)), -1);
  }
  void reorder() {
    std::vector<SequenceId> ids;
    std::vector<std::size_t> chosen;
    for (std::size_t i = 0; i < live_.size(); ++i)
      if (one_in(2)) {
        chosen.push_back(i);
        ids.push_back(live_[i].id);
      }
    std::vector<Index> parents;
    for (std::size_t b = 0; b < chosen.size(); ++b) parents.push_back(below(std::ssize(chosen)));
    cache_.reorder(ids, parents);
    const std::vector<Live> before = live_;
    for (std::size_t b = 0; b < chosen.size(); ++b) {
      live_[chosen[b]] = before[chosen[index(parents[b])]];
      live_[chosen[b]].id = ids[b];
      touched_.push_back(chosen[b]);
    }
  }
  void register_prefix() {
    if (live_.empty()) return;
    const std::size_t i = any();
    Live& s = live_[i];
    const Index tokens = std::min(least(s), s.intact);
    const Index entered = cache_.register_prefix(s.id, std::span(s.text).first(index(tokens)));
    EXPECT_LE(entered, tokens);
    EXPECT_EQ(entered % cache_.page_tokens(), 0);
    EXPECT_EQ(entered, tokens / cache_.page_tokens() * cache_.page_tokens());
    touched_.push_back(i);
  }
  void match_prefix() {
    Live fresh = empty();
    const Index length = below(260);
    if (!live_.empty() && one_in(2)) fresh.text = live_[any()].text;
    std::replace(fresh.text.begin(), fresh.text.end(), -1, 1);
    while (std::ssize(fresh.text) < length) fresh.text.push_back(text_at(std::ssize(fresh.text)));
    const SequenceId id = cache_.match_prefix(fresh.text);
    const Index found = cache_.num_tokens(0, id);
    EXPECT_LE(found, std::max(Index{0}, std::ssize(fresh.text) - 1));
    if (found > 0) ++done["match_prefix: found"];
    for (std::size_t s = 0; s < producers_.size(); ++s)
      for (Index t = 0; t < found; ++t) fresh.tokens[s].push_back(token_of(s, t, fresh.text[index(t)]));
    fresh.text.resize(index(found));
    add(id, fresh);
  }
  /// One sequence becomes another, through its tiles.
  void restore() {
    if (live_.size() < 2) return;
    const std::size_t from = any(), to = any();
    if (from == to) return;
    const SequenceId ids[] = {live_[from].id, live_[to].id};
    auto store = cache_.store(ids);
    std::vector<TokenRange> ranges;
    std::map<std::array<Index, 3>, std::vector<std::byte>> tiles;
    for (Index s = 0; s < store.num_storages(); ++s) {
      ranges.push_back(store.kept(s, 0));
      const Index bytes = store.storage_format(s).bytes();
      for (Index g = 0; g < store.storage_format(s).num_kv_heads; ++g)
        for_each_tile(ranges.back(), [&](Index i) {
          const std::byte* const tile = store.stored_tile(s, 0, g, i);
          tiles[{s, g, i}].assign(tile, tile + bytes);
        });
    }
    touched_ = {from, to};
    store.restore_sequence(1, ranges, [&](Index s, Index g, Index i, std::byte* tile) {
      const auto& bytes = tiles.at({s, g, i});
      std::copy(bytes.begin(), bytes.end(), tile);
    });
    const SequenceId id = live_[to].id;
    live_[to] = live_[from];
    live_[to].id = id;
  }
  void defragment() {
    cache_.defragment();
    for (std::size_t i = 0; i < live_.size(); ++i) touched_.push_back(i);
    EXPECT_EQ(cache_.defragment(), 0);
  }
};

}  // namespace headwise::testing
