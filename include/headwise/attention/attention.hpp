// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <concepts>
#include <utility>

#include "headwise/attention/attend.hpp"
#include "headwise/attention/check.hpp"
#include "headwise/attention/packed_rows.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/parallel/serial.hpp"

namespace headwise {

/// Attention of one layer shape, as a function object:
///   output = softmax(scale·q·kᵀ, masked)·v,  query head i reading KV head head_map().kv_head_of(i).
/// One call serves prefill, appending any number of new tokens after cached ones, decode and cross-attention, for MHA,
/// GQA and MQA alike; see Options for scores, masks and positions. Holds no state between calls: calls from several
/// threads are safe as long as none changes what another reads or writes.
template <class HeadsType = Heads<>>
class Attention {
 public:
  /// Heads known at compile time, consecutive query heads sharing a KV head.
  Attention()
    requires HeadsType::is_static
      : map_(HeadMap::contiguous(heads_.num_heads(), heads_.num_kv_heads())) {
    static_assert(!HeadsType::needs_map,
                  "num_heads must be a multiple of num_kv_heads; pass a HeadMap for unequal groups");
  }

  /// Consecutive query heads share a KV head: num_heads must be a multiple of num_kv_heads.
  explicit Attention(HeadsType heads)
      : heads_(heads), map_(HeadMap::contiguous(heads.num_heads(), heads.num_kv_heads())) {}

  /// Any grouping; the map's counts must be those of `heads`.
  Attention(HeadsType heads, HeadMap map) : heads_(heads), map_(std::move(map)) {
    require(map_.num_heads() == heads_.num_heads(), "num_heads of the head map (", map_.num_heads(),
            ") must equal num_heads (", heads_.num_heads(), ")");
    require(map_.num_kv_heads() == heads_.num_kv_heads(), "num_kv_heads of the head map (", map_.num_kv_heads(),
            ") must equal num_kv_heads (", heads_.num_kv_heads(), ")");
  }

  const HeadsType& heads() const { return heads_; }
  const HeadMap& head_map() const { return map_; }

  /// queries  [sequence][token][head][head_dim] of f32, f16 or bf16; ragged (Options::query_offsets): one sequence
  /// keys     a KvCache of one layer, cache.layer(i), KvRows over the caller's memory, or any TileSource
  /// outputs  a view [sequence][token][head][value_dim] of f32, f16 or bf16, or {view, lse view}; must not overlap inputs
  /// Throws std::invalid_argument, before reading or writing anything, when shapes, options or lengths do not fit.
  template <class Q, class Source, class E = const Serial&>
    requires Executor<std::remove_reference_t<E>>
  void operator()(View<Q> queries, const Source& keys, const Outputs& outputs, const Options& options = {},
                  E&& executor = kSerial) const {
    if constexpr (requires { keys.layer(Index{0}); }) {
      require(keys.num_layers() == 1, "keys (a cache of ", keys.num_layers(),
              " layers) must be one layer; pass cache.layer(i)");
      run(View<const Q>(queries).array(), detail::source_ref(keys.layer(0)), outputs, options, ExecutorRef(executor));
    } else {
      run(View<const Q>(queries).array(), detail::source_ref(keys), outputs, options, ExecutorRef(executor));
    }
  }

 private:
  static constexpr Serial kSerial{};

  void run(const ConstArray& queries, const detail::SourceRef& source, const Outputs& outputs, const Options& options,
           const ExecutorRef& executor) const {
    const float scale = options.scale.value_or(1.0f / std::sqrt(static_cast<float>(heads_.head_dim())));
    const detail::HeadGroups groups(options.head_map ? *options.head_map : map_, options.group_boundaries);
    const detail::Problem call{queries, outputs, source, groups, &options, scale};
    detail::check(call, Heads<>(heads_));
    detail::attend(call, executor);
  }

  HeadsType heads_;
  HeadMap map_;
};

/// Multi-head attention: each of H query heads has its own K and V.
template <Index H, Index D, Index DV = D>
using Mha = Attention<Heads<H, H, D, DV>>;
/// Grouped-query attention: H query heads share KV heads of K and V.
template <Index H, Index KV, Index D, Index DV = D>
using Gqa = Attention<Heads<H, KV, D, DV>>;
/// Multi-query attention: all H query heads share one K and V.
template <Index H, Index D, Index DV = D>
using Mqa = Attention<Heads<H, 1, D, DV>>;

}  // namespace headwise
