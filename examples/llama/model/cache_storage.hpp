// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>
#include <type_traits>

#include "headwise/core/quantize.hpp"
#include "headwise/core/storage.hpp"

namespace llama {

/// How a cache may store keys and values, by the names of the command lines.
inline std::map<std::string, headwise::Storage> cache_storages() {
  std::map<std::string, headwise::Storage> storages;
  for (int i = 0; i < headwise::kStorages; ++i) {
    const auto storage = static_cast<headwise::Storage>(i);
    storages.emplace(headwise::name_of(storage), storage);
  }
  return storages;
}

/// Calls f(std::type_identity<T>()) with the T of which a KvCache<T> or PagedCache<T> has this storage.
template <class F>
void with_cache_type(headwise::Storage storage, F f) {
  using headwise::Storage;
  switch (storage) {
    case Storage::f32:
      return f(std::type_identity<float>());
    case Storage::f16:
      return f(std::type_identity<headwise::f16>());
    case Storage::bf16:
      return f(std::type_identity<headwise::bf16>());
    case Storage::e4m3:
      return f(std::type_identity<headwise::e4m3>());
    case Storage::e5m2:
      return f(std::type_identity<headwise::e5m2>());
    case Storage::int8:
      return f(std::type_identity<headwise::int8>());
    case Storage::int4:
      return f(std::type_identity<headwise::int4>());
  }
}

}  // namespace llama
