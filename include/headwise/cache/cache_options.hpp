// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <optional>
#include <vector>

#include "headwise/core/heads.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/quantize.hpp"

namespace headwise {

/// Heads and dimensions of K and V of one layer, and how much of a sequence it keeps.
struct LayerShape {
  Index num_kv_heads;
  Index head_dim;
  Index value_dim = 0;  ///< 0: head_dim
  /// 0: every token is kept. Otherwise the layer is a ring: it keeps at least the last `window` tokens, and the first
  /// num_sink_tokens, in memory that does not grow. A query at position p whose window is that of the layer sees tokens
  /// p − window + 1 … p.
  Index window = 0;
  Index num_sink_tokens = 0;
  /// Whether a token's value is the first value_dim dimensions of its key, and stored as these alone: multi-head latent
  /// attention in its absorbed form, whose key is a latent and a rotated part (DeepSeek-V2, 2024, arXiv 2405.04434, §2.1;
  /// there 512 + 64, one KV head). Values have the storage type of keys; tokens are appended without v; a Rope must leave the
  /// value's dimensions as they are (RopeOptions::rotary_begin), and keys are stored without a KeyTransform.
  bool values_in_keys = false;
  friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

struct CacheOptions {
  Index num_sequences = 1;
  /// Whether an append past max_tokens makes room (at least doubling it) instead of being an error.
  bool growing = false;
  /// Whether every append adds |k|² of the keys, as they are read back, to a sum per layer, sequence and KV head: what
  /// key-driven grouping (Khan et al. 2024, arXiv 2408.08454) asks for. Not with rings, which forget keys.
  bool key_norms = false;
  /// Most tokens that one call appends to a sequence of a ring, which has room for them beside its window.
  Index max_append = 512;
  /// How a KvCache<> stores numbers: required of keys; values as keys where unset. Of other caches the type says it.
  std::optional<Storage> key_storage = {}, value_storage = {};
  /// Whether keys are rotated before they are stored, and queries when they are read (KeyTransform::hadamard).
  bool hadamard_keys = false;
  /// Factors of the channels of keys (KeyTransform::channel_scales), copied: [layer][num_kv_heads · head_dim], made for
  /// example by key_channel_scales(). Empty, of all layers or of one: none. Layers that borrow have none.
  std::vector<std::vector<float>> key_channel_scales = {};
};

/// Storage that is known at run time only: KvCache<> takes it from CacheOptions.
struct AnyStorage {};

/// What KvCache may be told to store.
template <class T>
concept CacheStorage = Storable<T> || std::same_as<T, AnyStorage>;

}  // namespace headwise
