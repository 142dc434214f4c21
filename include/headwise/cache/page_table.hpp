// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "headwise/cache/page_pool.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// Names a sequence of a PagedCache until it is released; its number is used again then, but not the name.
class SequenceId {
 public:
  /// No sequence.
  SequenceId() = default;
  /// 0 … max_sequences − 1: for tables of the caller's own.
  Index number() const { return number_; }
  friend bool operator==(const SequenceId&, const SequenceId&) = default;

 private:
  friend struct SequenceIdAccess;
  const void* cache_ = nullptr;
  std::uint32_t generation_ = 0;
  std::int32_t number_ = 0;
};

namespace detail {

/// Which pages hold the tokens of a sequence: token t lies in pages[t / page_tokens]. There may be pages behind the tokens,
/// of other layers or reserved. One page serves all layers, which are appended to one after another.
struct PageTable {
  std::vector<PageId> pages;
  std::vector<Index> tokens;  // [producer]
  Index spares = 0;           // pages at the end that are none of the sequence's yet: for copies
  /// Tokens from here on are not what follows from the tokens before: some were evicted.
  Index intact = std::numeric_limits<Index>::max();

  Index most_tokens() const { return *std::max_element(tokens.begin(), tokens.end()); }
  Index least_tokens() const { return *std::min_element(tokens.begin(), tokens.end()); }
  Index num_pages() const { return std::ssize(pages); }
  PageId page(Index i) const { return checked_at(pages, i, "page of a sequence"); }
  PageId& page(Index i) { return checked_at(pages, i, "page of a sequence"); }
};

}  // namespace detail

}  // namespace headwise
