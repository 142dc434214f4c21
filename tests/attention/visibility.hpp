// SPDX-License-Identifier: MIT
#pragma once

#include "tests/attention/mask_oracle.hpp"
#include "tests/attention/oracle.hpp"

namespace headwise::testing {

/// Which keys each row of a call of one sequence sees, by the definition.
class Visibility {
 public:
  Visibility(const Inputs& in, const Options& options)
      : parameters_(parameters_of(options)), heads_(in.heads), queries_(in.query_tokens), keys_(in.key_tokens) {
    if (!options.key_lengths.empty()) parameters_.key_length = keys_ = options.key_lengths[0];
    if (!options.key_starts.empty()) parameters_.key_start = options.key_starts[0];
    if (!options.prefix_lengths.empty()) parameters_.prefix_length = options.prefix_lengths[0];
    if (!options.query_lengths.empty()) parameters_.query_length = queries_ = options.query_lengths[0];
    add_masks(parameters_, options, {queries_, keys_, heads_.num_heads(), heads_.num_kv_heads(), 1, 1}, 0, 0);
  }

  bool operator()(Index head, Index query, Index key) const {
    if (query >= queries_ || key >= keys_ || reference::hides(parameters_, keys_ - queries_ + query, key)) return false;
    if (parameters_.visible && !parameters_.visible(head, query, key)) return false;
    return !parameters_.added || parameters_.added(head, query, key) != -std::numeric_limits<double>::infinity();
  }
  /// Whether some row that reads this KV head sees the key.
  bool by_any(Index kv_head, Index key) const {
    const Index group = heads_.group_size();
    for (Index i = 0; i < queries_; ++i)
      for (Index h = kv_head * group; h < (kv_head + 1) * group; ++h)
        if ((*this)(h, i, key)) return true;
    return false;
  }

 private:
  reference::Parameters parameters_;
  Heads<> heads_;
  Index queries_, keys_;
};

}  // namespace headwise::testing
