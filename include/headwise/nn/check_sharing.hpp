// SPDX-License-Identifier: MIT
#pragma once

#include <span>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/nn/multi_head_attention.hpp"

namespace headwise::nn {

namespace detail {

/// The keys that a borrower reads were turned by its producer's RoPE, so its queries must be too.
inline void check_same_rope(Index layer, const RopeOptions* have, Index source, const RopeOptions* want) {
  const auto is_set = [](const RopeOptions* rope) { return rope ? "set" : "unset"; };
  const auto check = [&](bool same, const auto&... which) {
    require(same, "layers[", layer, "].rope", which..., " of layers[", source, "], whose keys it reads");
  };
  check((have == nullptr) == (want == nullptr), " (", is_set(have), ") must be ", is_set(want), " as that");
  if (!have) return;
  const auto style = [](const RopeOptions* rope) {
    return rope->style == RopeStyle::interleaved ? "interleaved" : "half_split";
  };
  check(have->style == want->style, ".style (", style(have), ") must be ", style(want), " as that");
  check(have->base == want->base, ".base (", have->base, ") must be ", want->base, " as that");
  check(have->rotary_dim == want->rotary_dim, ".rotary_dim (", have->rotary_dim, ") must be ", want->rotary_dim,
        " as that");
  check(have->scaling == want->scaling, ".scaling (another) must be that");
  check(*have == *want, " (of another rotary_begin or sections) must be that");
}

}  // namespace detail

/// Checks the layers of a model against a sharing, once, before it runs: a borrower has borrows_kv, a producer has not;
/// and a borrower's num_kv_heads, head_dim, value_dim and rope are those of its source. Throws std::invalid_argument
/// that names the first layer that does not fit.
inline void check_sharing(std::span<const MultiHeadAttention* const> layers, const KvSharing& sharing) {
  require(sharing.num_layers() == std::ssize(layers), "sharing (", sharing.num_layers(),
          " layers) must be of the model's layers (", layers.size(), ")");
  for (Index l = 0; l < sharing.num_layers(); ++l) {
    const Index source = sharing.source(l);
    const MultiHeadAttention* const have = layers[static_cast<std::size_t>(l)];
    require(have != nullptr, "layers[", l, "] (null) must be a MultiHeadAttention");
    if (source == l) {
      require(!have->borrows_kv(), "layers[", l, "].borrows_kv (true) must be false: it is its own source");
      continue;
    }
    require(have->borrows_kv(), "layers[", l,
            "].borrows_kv (false) must be true: it reads the keys and values of layers[", source, "]");
    const MultiHeadAttention& want = *layers[static_cast<std::size_t>(source)];
    const auto check = [&](const char* name, Index mine, Index theirs) {
      require(mine == theirs, "layers[", l, "].", name, " (", mine, ") must be the ", theirs, " of layers[", source,
              "], whose keys and values it reads");
    };
    check("num_kv_heads", have->heads().num_kv_heads(), want.heads().num_kv_heads());
    check("head_dim", have->heads().head_dim(), want.heads().head_dim());
    check("value_dim", have->heads().value_dim(), want.heads().value_dim());
    const auto rope_of = [](const MultiHeadAttention& m) { return m.options().rope ? &*m.options().rope : nullptr; };
    detail::check_same_rope(l, rope_of(*have), source, rope_of(want));
  }
}
/// The same of modules that lie side by side.
inline void check_sharing(std::span<const MultiHeadAttention> layers, const KvSharing& sharing) {
  std::vector<const MultiHeadAttention*> pointers;
  pointers.reserve(layers.size());
  for (const MultiHeadAttention& layer : layers) pointers.push_back(&layer);
  check_sharing(std::span<const MultiHeadAttention* const>(pointers), sharing);
}

}  // namespace headwise::nn
