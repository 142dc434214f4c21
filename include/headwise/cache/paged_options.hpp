// SPDX-License-Identifier: MIT
#pragma once

#include <optional>
#include <vector>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

namespace headwise {

struct PagedOptions {
  /// Tokens of a page, for all layers; a multiple of 64.
  Index page_tokens = 64;
  /// Most sequences that there can be at a time.
  Index max_sequences = 256;
  /// How a PagedCache<> stores numbers: required of keys; values as keys where unset. Of other caches the type says it.
  std::optional<Storage> key_storage = {}, value_storage = {};
  /// Whether keys are rotated before they are stored, and queries when they are read (KeyTransform::hadamard).
  bool hadamard_keys = false;
  /// Factors of the channels of keys (KeyTransform::channel_scales), copied: [layer][num_kv_heads · head_dim]. Empty, of all
  /// layers or of one: none. Layers that borrow have none.
  std::vector<std::vector<float>> key_channel_scales = {};
};

/// What a PagedCache does with its pages at a moment.
struct PageCounts {
  Index total = 0;
  Index free = 0;
  Index used = 0;    ///< held by sequences
  Index shared = 0;  ///< of these, held by more than one
  Index cached = 0;  ///< held by the prefix cache alone, and given up where pages are wanted
  Index peak = 0;    ///< the most that were used at a time
  friend bool operator==(const PageCounts&, const PageCounts&) = default;
};

}  // namespace headwise
