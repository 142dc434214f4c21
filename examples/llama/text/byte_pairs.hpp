// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

namespace llama {

using TokenId = std::int32_t;

/// The merges of byte-pair encoding: which neighbours become one token, and which go first.
class BytePairs {
 public:
  /// Merges are added in order of rank, the first ranks highest; a pair that is there already keeps its rank.
  void add(TokenId left, TokenId right, TokenId merged) {
    merges_.try_emplace(key(left, right), Merge{static_cast<std::int64_t>(merges_.size()), merged});
  }

  /// Merges the tokens of one piece until no neighbours have a merge: always the pair of highest rank, of equals the
  /// leftmost. O(n log n).
  std::vector<TokenId> merge(const std::vector<TokenId>& tokens) const {
    struct Symbol {
      TokenId token;
      std::int64_t previous, next;  // -1: none
      bool alive = true;
    };
    const auto count = static_cast<std::int64_t>(tokens.size());
    std::vector<Symbol> symbols;
    symbols.reserve(tokens.size());
    for (std::int64_t i = 0; i < count; ++i)
      symbols.push_back({tokens[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
    const auto at = [&](std::int64_t i) -> Symbol& { return symbols[static_cast<std::size_t>(i)]; };

    // smallest (rank, position) first; an entry is stale once either side has changed
    using Candidate = std::pair<std::int64_t, std::int64_t>;
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
    const auto consider = [&](std::int64_t left) {
      if (left < 0 || at(left).next < 0) return;
      if (const Merge* found = find(at(left).token, at(at(left).next).token)) candidates.push({found->rank, left});
    };
    for (std::int64_t i = 0; i < count; ++i) consider(i);

    while (!candidates.empty()) {
      const auto [rank, left] = candidates.top();
      candidates.pop();
      if (!at(left).alive || at(left).next < 0) continue;
      const std::int64_t right = at(left).next;
      const Merge* found = find(at(left).token, at(right).token);
      if (!found || found->rank != rank) continue;
      at(left).token = found->merged;
      at(left).next = at(right).next;
      at(right).alive = false;
      if (at(left).next >= 0) at(at(left).next).previous = left;
      consider(at(left).previous);
      consider(left);
    }

    std::vector<TokenId> merged;
    for (std::int64_t i = count > 0 ? 0 : -1; i >= 0; i = at(i).next) merged.push_back(at(i).token);
    return merged;
  }

 private:
  struct Merge {
    std::int64_t rank;
    TokenId merged;
  };

  static std::uint64_t key(TokenId left, TokenId right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }
  const Merge* find(TokenId left, TokenId right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

  std::unordered_map<std::uint64_t, Merge> merges_;
};

}  // namespace llama
