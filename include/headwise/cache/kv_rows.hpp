// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>

#include "headwise/core/error.hpp"
#include "headwise/core/view.hpp"

namespace headwise {

namespace detail {

/// Keys and values of different head counts pair up where one count divides the other.
inline void check_head_counts(Index keys, Index values) {
  const Index more = std::max(keys, values), fewer = std::min(keys, values);
  require(fewer == more || (fewer > 0 && more % fewer == 0), "heads (", values,
          ") of the values must be those of the keys (", keys, "), a multiple or a divisor of them");
}

}  // namespace detail

/// Keys and values in the caller's own memory, [sequence][token][head][dim] each, any strides: a source of K/V beside the
/// library's caches. Nothing is copied or kept; attention packs a tile at a time as it reads.
/// K and V may differ in dim, in storage type and in heads. Of Hk key heads and Hv value heads, one count a multiple of the
/// other, G = max(Hk, Hv) is num_kv_heads: KV head g is key head g·Hk/G and value head g·Hv/G.
class KvRows {
 public:
  /// Throws std::invalid_argument when sequences or tokens of the two differ, and on heads that do not pair up.
  template <class K, class V>
  KvRows(View<K> keys, View<V> values) : keys_(View<const K>(keys).array()), values_(View<const V>(values).array()) {
    require(values.sequences() == keys.sequences(), "sequences (", values.sequences(),
            ") of the values must equal those of the keys (", keys.sequences(), ")");
    require(values.tokens() == keys.tokens(), "tokens (", values.tokens(),
            ") of the values must equal those of the keys (", keys.tokens(), ")");
    detail::check_head_counts(keys.heads(), values.heads());
  }

  const ConstArray& keys() const { return keys_; }
  const ConstArray& values() const { return values_; }

 private:
  ConstArray keys_, values_;
};

}  // namespace headwise
