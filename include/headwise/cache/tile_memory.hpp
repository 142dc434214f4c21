// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#include "headwise/core/index.hpp"

namespace headwise {

/// Owns uninitialised memory on a page boundary. Pages that are never written cost no physical memory, so a large
/// max_tokens is cheap until it is used. Throws std::bad_alloc.
class TileMemory {
 public:
  TileMemory() = default;
  explicit TileMemory(Index bytes)
      : data_(static_cast<std::byte*>(::operator new(static_cast<std::size_t>(bytes), kAlignment))), bytes_(bytes) {}
  ~TileMemory() { ::operator delete(data_, kAlignment); }

  TileMemory(TileMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  TileMemory& operator=(TileMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  Index bytes() const { return bytes_; }

 private:
  static constexpr std::align_val_t kAlignment{4096};

  std::byte* data_ = nullptr;
  Index bytes_ = 0;
};

}  // namespace headwise
