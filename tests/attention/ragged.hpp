// SPDX-License-Identifier: MIT
#pragma once

#include "tests/attention/run.hpp"

// Sequences with any numbers of queries and keys in one call, and each of them alone.

namespace headwise::testing {

struct RaggedSequence {
  Index queries, keys;
};

/// Queries of all sequences packed one behind another, beside keys and values of as many tokens for each, of which a
/// sequence uses the first `keys`.
struct RaggedBatch {
  std::vector<RaggedSequence> sequences;
  std::vector<Index> offsets{0}, key_lengths;
  Inputs queries, keys;

  RaggedBatch(const Heads<>& heads, std::vector<RaggedSequence> all, unsigned seed = 1)
      : sequences(std::move(all)),
        queries(heads, 1, count(), 0, seed, {.coarse = false}),
        keys(heads, std::ssize(sequences), 0, most_keys(), seed + 1, {.coarse = false}) {
    for (const auto& [q, k] : sequences) {
      offsets.push_back(offsets.back() + q);
      key_lengths.push_back(k);
    }
  }

  /// The options of a call over all sequences. Refer to this.
  Options over_all(Options options) const {
    options.query_offsets = offsets;
    options.key_lengths = key_lengths;
    return options;
  }

  /// Queries of sequence b, and its keys and values.
  Inputs alone(Index b) const {
    const auto [q, k] = sequences[static_cast<std::size_t>(b)];
    Inputs one(queries.heads, 1, q, k);
    const auto copy = [](const std::vector<float>& from, Index first, std::vector<float>& to) {
      std::copy_n(from.begin() + first, to.size(), to.begin());
    };
    const Index kv_heads = queries.heads.num_kv_heads(), first = b * keys.key_tokens * kv_heads;
    copy(queries.q, offsets[static_cast<std::size_t>(b)] * queries.heads.num_heads() * queries.heads.head_dim(), one.q);
    copy(keys.k, first * queries.heads.head_dim(), one.k);
    copy(keys.v, first * queries.heads.value_dim(), one.v);
    return one;
  }

  /// The results of the sequences one by one, one behind another.
  Results one_by_one(const Route& route, const Options& options) const {
    Results all;
    for (Index b = 0; b < std::ssize(sequences); ++b) {
      const Results one = run(alone(b), route, options);
      all.output.insert(all.output.end(), one.output.begin(), one.output.end());
      all.lse.insert(all.lse.end(), one.lse.begin(), one.lse.end());
    }
    return all;
  }

 private:
  Index count() const {
    Index total = 0;
    for (const auto& sequence : sequences) total += sequence.queries;
    return total;
  }
  Index most_keys() const {
    Index most = 0;
    for (const auto& sequence : sequences) most = std::max(most, sequence.keys);
    return most;
  }
};

}  // namespace headwise::testing
