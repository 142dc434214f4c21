// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/core/error.hpp"
#include "headwise/core/view.hpp"

namespace headwise {

/// Keys and values in the caller's own memory, [sequence][token][kv_head][dim] each, any strides: a source of K/V beside
/// the library's caches. Nothing is copied or kept; attention packs a tile at a time as it reads.
/// K and V may differ in dim and in storage type.
class KvRows {
 public:
  /// Throws std::invalid_argument when sequences, tokens or heads of the two differ.
  template <class K, class V>
  KvRows(View<K> keys, View<V> values)
      : keys_(View<const K>(keys).array()), values_(View<const V>(values).array()) {
    require(values.sequences() == keys.sequences(), "sequences (", values.sequences(),
            ") of the values must equal those of the keys (", keys.sequences(), ")");
    require(values.tokens() == keys.tokens(), "tokens (", values.tokens(), ") of the values must equal those of the keys (",
            keys.tokens(), ")");
    require(values.heads() == keys.heads(), "heads (", values.heads(), ") of the values must equal those of the keys (",
            keys.heads(), ")");
  }

  const ConstArray& keys() const { return keys_; }
  const ConstArray& values() const { return values_; }

 private:
  ConstArray keys_, values_;
};

}  // namespace headwise
