// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <span>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// Whole numbers of the caller's, std::int32_t or Index, read where they lie. Owns nothing.
class Integers {
 public:
  Integers() = default;
  Integers(const std::int32_t* data, Index size) : narrow_(data), size_(size) {}
  Integers(const Index* data, Index size) : wide_(data), size_(size) {}
  /// A vector, an array or a span of either.
  template <class R>
    requires std::convertible_to<const R&, std::span<const std::int32_t>>
  Integers(const R& numbers)  // NOLINT: converts on purpose
      : Integers(std::span<const std::int32_t>(numbers).data(), std::ssize(std::span<const std::int32_t>(numbers))) {}
  template <class R>
    requires std::convertible_to<const R&, std::span<const Index>>
  Integers(const R& numbers)  // NOLINT: converts on purpose
      : Integers(std::span<const Index>(numbers).data(), std::ssize(std::span<const Index>(numbers))) {}

  Index size() const { return size_; }
  const void* data() const { return narrow_ ? static_cast<const void*>(narrow_) : wide_; }
  Index operator[](Index i) const {
    detail::checked_index(i, size_, "index of the caller's numbers");
    return narrow_ ? Index{narrow_[i]} : wide_[i];
  }

 private:
  const std::int32_t* narrow_ = nullptr;
  const Index* wide_ = nullptr;
  Index size_ = 0;
};

/// The caller's [sequence][entry]: entry j of a sequence names the block that holds its tokens block_size·j …
/// block_size·j + block_size − 1. Entries are std::int32_t or Index, rows any number of entries apart. Owns nothing.
class BlockTable {
 public:
  /// Rows of max_blocks entries, one after another. Throws std::invalid_argument on a negative size, and on a null pointer
  /// to a table that has entries.
  template <class Id>
    requires std::same_as<Id, std::int32_t> || std::same_as<Id, Index>
  BlockTable(const Id* entries, Index sequences, Index max_blocks)
      : BlockTable(entries, sequences, max_blocks, max_blocks) {}
  /// Rows row_stride (at least max_blocks) entries apart.
  template <class Id>
    requires std::same_as<Id, std::int32_t> || std::same_as<Id, Index>
  BlockTable(const Id* entries, Index sequences, Index max_blocks, Index row_stride)
      : sequences_(sequences), max_blocks_(max_blocks), row_stride_(row_stride) {
    constexpr Index kMost = Index{1} << 40;
    require(sequences >= 0 && sequences <= kMost, "sequences (", sequences, ") of a block table must be 0 to ", kMost);
    require(max_blocks >= 0 && max_blocks <= kMost, "max_blocks (", max_blocks, ") of a block table must be 0 to ",
            kMost);
    Index last = 0;
    require(row_stride >= max_blocks && !__builtin_mul_overflow(row_stride, sequences, &last), "row_stride (",
            row_stride, ") of a block table must be at least max_blocks (", max_blocks, ") and fit in memory");
    require(entries != nullptr || sequences * max_blocks == 0, "entries (null) of a block table must point to ",
            sequences, " x ", max_blocks, " entries");
    entries_ = Integers(entries, last);
  }

  Index sequences() const { return sequences_; }
  Index max_blocks() const { return max_blocks_; }
  Index operator()(Index sequence, Index entry) const {
    detail::checked_index(sequence, sequences_, "sequence of a block table");
    detail::checked_index(entry, max_blocks_, "entry of a block table");
    return entries_[sequence * row_stride_ + entry];
  }

 private:
  Integers entries_;
  Index sequences_, max_blocks_, row_stride_;
};

}  // namespace headwise
