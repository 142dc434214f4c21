// SPDX-License-Identifier: MIT
#pragma once

#include <span>

#include "headwise/cache/any_paged_cache.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/quantize.hpp"

namespace headwise {

/// Keys and values of many sequences in pages of one pool, keys stored as K and values as V, in the tiles that kernels read.
/// A page holds page_tokens tokens of every layer; sequences that begin alike hold the same pages, and what is written to
/// one of them never shows in another: PagedAttention, Kwon et al. 2023, arXiv 2309.06180.
///
/// Every function validates first: on std::invalid_argument, OutOfPages, OutOfSequences or std::bad_alloc nothing has
/// changed, and every sequence can still be used.
///
/// Threads: functions on different sequences may run at the same time, attention over them included; also functions on no
/// sequence or on all of them, but defragment, during which nothing else may run. A sequence is one thread's at a time;
/// const functions and fork may run at the same time on one. An append that takes no page takes no lock.
template <class K, class V = K>
class PagedCache : public AnyPagedCache {
  static_assert(Storable<K> && Storable<V>, "a PagedCache stores float, headwise::f16, bf16, e4m3, e5m2, int8 or int4");

 public:
  /// A cache of one layer with num_pages pages.
  template <Index H, Index KV, Index D, Index DV>
  PagedCache(const Heads<H, KV, D, DV>& heads, Index num_pages, const PagedOptions& options = {})
      : PagedCache(LayerShape{heads.num_kv_heads(), heads.head_dim(), heads.value_dim()}, num_pages, options) {}

  /// A cache of a whole model: one shape per layer.
  PagedCache(std::span<const LayerShape> layers, Index num_pages, const PagedOptions& options = {})
      : PagedCache(layers, sharing_of(layers), num_pages, options) {}

  /// The same where layers share keys and values, as in a KvCache.
  PagedCache(std::span<const LayerShape> layers, const KvSharing& sharing, Index num_pages,
             const PagedOptions& options = {})
      : AnyPagedCache(layers, sharing, Stored<K>::storage, Stored<V>::storage, num_pages, options) {}

 private:
  PagedCache(const LayerShape& shape, Index num_pages, const PagedOptions& options)
      : PagedCache(std::span<const LayerShape>(&shape, 1), num_pages, options) {}
};

}  // namespace headwise
