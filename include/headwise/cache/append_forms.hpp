// SPDX-License-Identifier: MIT
#pragma once

#include <optional>

#include "headwise/cache/append_options.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/view.hpp"
#include "headwise/position/rope.hpp"

namespace headwise::detail {

/// The forms that an append takes, of a cache and a place in it (a layer, one of its sequences, …): of k and v or, where
/// values are in the keys, of k alone; then AppendOptions, a Rope alone, or nothing. Each becomes
/// cache.append_in(place…, k, v, options).
template <class Cache, class... Place>
class AppendForms {
 public:
  template <ElementType A, ElementType B>
  void append(Place... place, View<A> k, View<B> v, const AppendOptions& options = {}) {
    cache().append_in(place..., View<const A>(k).array(), View<const B>(v).array(), options);
  }
  template <ElementType A, ElementType B>
  void append(Place... place, View<A> k, View<B> v, const Rope& rope) {
    append(place..., k, v, AppendOptions{.rope = &rope});
  }
  template <ElementType A>
  void append(Place... place, View<A> k, const AppendOptions& options = {}) {
    cache().append_in(place..., View<const A>(k).array(), std::nullopt, options);
  }
  template <ElementType A>
  void append(Place... place, View<A> k, const Rope& rope) {
    append(place..., k, AppendOptions{.rope = &rope});
  }

 private:
  Cache& cache() { return static_cast<Cache&>(*this); }
};

/// The same under the name append_ragged, of tokens of several sequences one behind another.
template <class Cache, class... Place>
class RaggedAppendForms {
 public:
  template <ElementType A, ElementType B>
  void append_ragged(Place... place, View<A> k, View<B> v, const AppendOptions& options = {}) {
    cache().append_in(place..., View<const A>(k).array(), View<const B>(v).array(), options);
  }
  template <ElementType A, ElementType B>
  void append_ragged(Place... place, View<A> k, View<B> v, const Rope& rope) {
    append_ragged(place..., k, v, AppendOptions{.rope = &rope});
  }
  template <ElementType A>
  void append_ragged(Place... place, View<A> k, const AppendOptions& options = {}) {
    cache().append_in(place..., View<const A>(k).array(), std::nullopt, options);
  }
  template <ElementType A>
  void append_ragged(Place... place, View<A> k, const Rope& rope) {
    append_ragged(place..., k, AppendOptions{.rope = &rope});
  }

 private:
  Cache& cache() { return static_cast<Cache&>(*this); }
};

}  // namespace headwise::detail
