// SPDX-License-Identifier: MIT
#pragma once

#include <map>
#include <string>

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

}  // namespace llama
