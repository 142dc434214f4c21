// SPDX-License-Identifier: MIT
#pragma once

#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "headwise/core/error.hpp"
#include "headwise/nn/ragged_batch.hpp"

// What a module asks of the cache it is given. Each throws std::invalid_argument that names what does not fit.

namespace headwise::nn::detail {

template <class Cache>
void check_shape(const Cache& cache, Index layer, const LayerShape& want) {
  const LayerShape have = cache.layer_shape(layer);
  const bool fits = have.num_kv_heads == want.num_kv_heads && have.head_dim == want.head_dim &&
                    have.value_dim == want.value_dim;  // a ring or not
  require(fits, "layer ", layer, " of the cache (num_kv_heads ", have.num_kv_heads, ", head_dim ", have.head_dim,
          ", value_dim ", have.value_dim, ") must have num_kv_heads ", want.num_kv_heads, ", head_dim ", want.head_dim,
          ", value_dim ", want.value_dim);
}
template <class Cache>
void check_has_own(bool borrows_kv, const Cache& cache, Index layer) {
  const Index source = cache.sharing().source(layer);
  require(borrows_kv || source == layer, "borrows_kv (false) must be true for layer ", layer,
          " of the cache, which reads the keys and values of layer ", source);
}

/// The layer has the module's shape, and the rows of x or memory are equally many for each sequence.
inline void check_cache(const char* name, Index rows, const KvCache<>& cache, Index layer, const LayerShape& want) {
  check_shape(cache, layer, want);
  require(rows % cache.num_sequences() == 0, name, " (", rows, " rows) must hold equally many tokens for each of the ",
          cache.num_sequences(), " sequences of the cache");
}

/// A module that makes keys and values has a layer of its own; one that borrows them comes after their producer, which
/// has appended as many tokens of each sequence as x has.
inline void check_role(bool borrows_kv, Index tokens, const KvCache<>& cache, Index layer) {
  check_has_own(borrows_kv, cache, layer);
  const Index source = cache.sharing().source(layer);
  for (Index b = 0; borrows_kv && b < cache.num_sequences(); ++b)
    require(cache.num_tokens(layer, b) >= tokens, "layer ", source, " of the cache (", cache.num_tokens(layer, b),
            " tokens in sequence ", b, ") must hold at least the ", tokens, " tokens of x, since layer ", layer,
            " borrows its keys and values: run its producer first");
}

/// The same of a ragged batch over a paged cache.
inline void check_batch(Index rows, const AnyPagedCache& cache, const RaggedBatch& batch, Index layer,
                        const LayerShape& want) {
  check_shape(cache, layer, want);
  require(rows == batch.num_tokens(), "x (", rows, " rows) must hold the ", batch.num_tokens(), " tokens of the batch");
}
inline void check_role(bool borrows_kv, const AnyPagedCache& cache, const RaggedBatch& batch, Index layer) {
  check_has_own(borrows_kv, cache, layer);
  for (Index b = 0; b < batch.num_sequences(); ++b) {
    const Index tokens = cache.num_tokens(layer, batch.sequence(b));  // throws on a sequence that is none
    require(!borrows_kv || tokens >= batch.num_tokens(b), "layer ", cache.sharing().source(layer), " of the cache (",
            tokens, " tokens in sequence ", batch.sequence(b).number(), ") must hold at least the ",
            batch.num_tokens(b), " tokens of x, since layer ", layer,
            " borrows its keys and values: run its producer first");
  }
}

}  // namespace headwise::nn::detail
