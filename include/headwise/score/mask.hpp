// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// Element strides of a mask: element (b, h, i, t) lies at b·sequence + h·head + i·query + t·key from the pointer. Any
/// sign, 0 to repeat. Of packed bits in words, `key` unused.
struct MaskStrides {
  Index sequence = 0;
  Index head = 0;
  Index query = 0;
  Index key = 1;
};

/// What the elements of a mask are.
enum class MaskKind : std::uint8_t {
  bytes,     ///< bool or a byte: not 0 where the query sees the key
  bits,      ///< the same in words of 64 bits, least significant first: key t is bit t mod 64 of word t / 64
  additive,  ///< a number that is added to the score, in natural units; −inf hides
};

/// What a boolean or additive mask may point to.
template <class T>
concept MaskElement = std::same_as<T, bool> || std::same_as<T, std::uint8_t> || ElementType<T>;

/// A mask for every query and key, in the caller's memory: [sequence][head][query token][key], each size either that of
/// the call or 1, which serves all. Query tokens are counted within their sequence, in ragged batches too (as many as the
/// longest sequence has); keys are absolute positions (at least as many as the longest sequence has). Owns nothing.
///
/// It narrows what the other options let a query see: Options::causal is on unless it is turned off. A key with −inf is as
/// if it were not there: not even a NaN in it is seen. Finite values, as low as the type has them, are numbers: a row of
/// nothing but those has weights. Beyond ±2^126 they keep their order and nothing more.
class Mask {
 public:
  /// Any strides. Throws std::invalid_argument on a size below 1, on a null pointer and on sizes whose offsets do not fit
  /// in 64 bits.
  template <MaskElement T>
  Mask(const T* data, Index sequences, Index heads, Index queries, Index keys, MaskStrides strides)
      : Mask(data, kind_for<T>(), storage_for<T>(), static_cast<Index>(sizeof(T)), sequences, heads, queries, keys,
             strides) {}
  /// Packed [sequence][head][query][key].
  template <MaskElement T>
  Mask(const T* data, Index sequences, Index heads, Index queries, Index keys)
      : Mask(data, sequences, heads, queries, keys, packed(heads, queries, keys)) {}
  /// Packed [head][query][key], for all sequences.
  template <MaskElement T>
  Mask(const T* data, Index heads, Index queries, Index keys) : Mask(data, 1, heads, queries, keys) {}
  /// Packed [query][key], for all sequences and heads.
  template <MaskElement T>
  Mask(const T* data, Index queries, Index keys) : Mask(data, 1, 1, queries, keys) {}

  /// Packed bits: rows of ceil(keys / 64) words, or any strides.
  static Mask of_bits(const std::uint64_t* words, Index sequences, Index heads, Index queries, Index keys,
                      MaskStrides strides) {
    return Mask(words, MaskKind::bits, Storage::f32, 8, sequences, heads, queries, keys, strides);
  }
  static Mask of_bits(const std::uint64_t* words, Index sequences, Index heads, Index queries, Index keys) {
    return of_bits(words, sequences, heads, queries, keys, packed(heads, queries, ceil_div(keys, kTileTokens)));
  }
  static Mask of_bits(const std::uint64_t* words, Index heads, Index queries, Index keys) {
    return of_bits(words, 1, heads, queries, keys);
  }
  static Mask of_bits(const std::uint64_t* words, Index queries, Index keys) {
    return of_bits(words, 1, 1, queries, keys);
  }

  MaskKind kind() const { return kind_; }
  /// Of the numbers of an additive mask.
  Storage storage() const { return storage_; }
  Index sequences() const { return sequences_; }
  Index heads() const { return heads_; }
  Index queries() const { return queries_; }
  Index keys() const { return keys_; }
  /// Elements from one key to the next; 0 where one serves all.
  Index key_stride() const { return strides_.key; }

  /// In checked mode: that keys [first, first + count) of a row are there.
  void check_keys(Index first, Index count) const {
    if (keys_ > 1) detail::check_range(first, count, keys_, "keys of the mask");
  }
  /// Where the elements of a row begin.
  const char* row(Index sequence, Index head, Index query) const {
    const auto check = [](Index i, Index size, const char* name) {  // a size of 1 serves all
      detail::checked_index(size == 1 ? 0 : i, size, name);
    };
    check(sequence, sequences_, "sequence of the mask");
    check(head, heads_, "head of the mask");
    check(query, queries_, "query of the mask");
    return data_ + (sequence * strides_.sequence + head * strides_.head + query * strides_.query) * element_bytes_;
  }

 private:
  Mask(const void* data, MaskKind kind, Storage storage, Index element_bytes, Index sequences, Index heads,
       Index queries, Index keys, MaskStrides strides)
      : data_(static_cast<const char*>(data)),
        element_bytes_(element_bytes),
        sequences_(sequences),
        heads_(heads),
        queries_(queries),
        keys_(keys),
        strides_(strides),
        kind_(kind),
        storage_(storage) {
    require(sequences >= 1, "sequences (", sequences, ") of a mask must be at least 1");
    require(heads >= 1, "heads (", heads, ") of a mask must be at least 1");
    require(queries >= 1, "queries (", queries, ") of a mask must be at least 1");
    require(keys >= 1, "keys (", keys, ") of a mask must be at least 1");
    require(data != nullptr, "data (null) of a mask must point to its elements");
    const bool bits = kind == MaskKind::bits;
    const Index sizes[] = {sequences, heads, queries, bits ? ceil_div(keys, kTileTokens) : keys};
    Index* const steps[] = {&strides_.sequence, &strides_.head, &strides_.query, &strides_.key};
    if (bits) strides_.key = keys > 1;
    bool fits = true;
    for (int i = 0; i < 4; ++i) {
      if (sizes[i] == 1 && !(bits && i == 3)) *steps[i] = 0;  // a size of 1 serves all
      const Index step = *steps[i], most = kMostElements / sizes[i];
      fits &= step <= most && step >= -most;
    }
    require(fits, "mask of [", sequences, "][", heads, "][", queries, "][", keys, "] with strides (", strides.sequence,
            ", ", strides.head, ", ", strides.query, ", ", strides.key, ") must span less than 2^57 elements");
  }

  template <class T>
  static constexpr MaskKind kind_for() {
    return ElementType<T> ? MaskKind::additive : MaskKind::bytes;
  }
  template <class T>
  static constexpr Storage storage_for() {
    if constexpr (ElementType<T>)
      return storage_of<T>;
    else
      return Storage::f32;
  }

  static MaskStrides packed(Index heads, Index queries, Index row) {
    // wrapping products: absurd sizes are refused by the constructor that checks them
    const auto product = [](Index a, Index b) {
      return static_cast<Index>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
    };
    return {product(product(heads, queries), row), product(queries, row), row, 1};
  }

  static constexpr Index kMostElements = Index{1} << 57;

  const char* data_;
  Index element_bytes_, sequences_, heads_, queries_, keys_;
  MaskStrides strides_;
  MaskKind kind_;
  Storage storage_;
};

}  // namespace headwise
