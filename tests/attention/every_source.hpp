// SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "tests/attention/inputs.hpp"

namespace headwise::testing {

/// Calls f(source, name) with the keys and values of one sequence in every kind of cache and storage type, and in the
/// caller's memory. `latent` too: in a cache whose values are in its keys, where their numbers are those.
template <class F>
void with_every_source(const Inputs& in, F f, bool latent = false) {
  const Index kv_heads = in.heads.num_kv_heads(), dim = in.heads.head_dim(), value_dim = in.heads.value_dim(),
              tokens = in.key_tokens;
  const View<const float> k(in.k.data(), tokens, kv_heads, dim), v(in.v.data(), tokens, kv_heads, value_dim);
  constexpr Storage kStored[] = {Storage::f32,  Storage::f16,  Storage::bf16, Storage::e4m3,
                                 Storage::e5m2, Storage::int8, Storage::int4};
  for (const Storage storage : kStored) {
    const LayerShape shape{.num_kv_heads = kv_heads, .head_dim = dim, .value_dim = value_dim, .values_in_keys = latent};
    KvCache<> cache(std::span(&shape, 1), tokens, {.key_storage = storage});
    PagedCache<> pages(std::span(&shape, 1), ceil_div(tokens, kTileTokens),
                       {.page_tokens = kTileTokens, .key_storage = storage});
    const std::vector<SequenceId> ids{pages.create()};
    if (latent) {
      cache.append(k);
      pages.append(0, ids[0], k);
    } else {
      cache.append(k, v);
      pages.append(0, ids[0], k, v);
    }
    const std::string of = std::string(" of ") + std::string(headwise::name_of(storage));
    f(cache.layer(), (latent ? "latent cache" : "cache") + of);
    f(pages.layer(0, ids), (latent ? "latent pages" : "pages") + of);
  }
  if (latent) return;
  f(KvRows(k, v), std::string("rows"));
  const auto whole = std::vector<std::int32_t>{0};
  const std::vector<Index> lengths{tokens};
  f(KvBlocks(k, v, BlockTable(whole.data(), 1, 1), lengths), std::string("blocks"));
}

}  // namespace headwise::testing
