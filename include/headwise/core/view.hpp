// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"

namespace headwise {

/// Element strides of a [sequence][token][head][dim] array: element (b, t, h, d) lies at
/// b·sequence + t·token + h·head + d·dim from the pointer. Strides may be negative, or 0 to repeat.
struct Strides {
  Index sequence = 0;
  Index token = 0;
  Index head = 0;
  Index dim = 1;
};

/// A caller's array without its element type: what the library works on below the typed surface. Element pointers may
/// be misaligned. T is const void for inputs and void for outputs.
template <class T>
struct BasicArray {
  T* data = nullptr;
  Storage storage = Storage::f32;
  Index sequences = 0, tokens = 0, heads = 0, dim = 0;
  Strides strides;

  /// Pointer to element 0 of row (sequence b, token t, head h).
  T* row(Index b, Index t, Index h) const {
    detail::checked_index(b, sequences, "sequence of a view");
    detail::checked_index(t, tokens, "token of a view");
    detail::checked_index(h, heads, "head of a view");
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return static_cast<Byte*>(data) + (b * strides.sequence + t * strides.token + h * strides.head) * size_of(storage);
  }
};
using ConstArray = BasicArray<const void>;
using Array = BasicArray<void>;

/// A view of the caller's memory as [sequence][token][head][dim]: pointer, sizes and element strides. Owns nothing.
/// T is float, f16, bf16, Eigen::half or Eigen::bfloat16, const for inputs.
template <class T>
  requires ElementType<T>
class View {
 public:
  View() = default;

  /// Packed [token][head][dim] of one sequence.
  View(T* data, Index tokens, Index heads, Index dim) : View(data, 1, tokens, heads, dim) {}

  /// Packed [sequence][token][head][dim].
  View(T* data, Index sequences, Index tokens, Index heads, Index dim)
      : View(data, sequences, tokens, heads, dim, packed(tokens, heads, dim)) {}

  /// Any strides, in elements. Throws std::invalid_argument on a negative size, on a null pointer to a non-empty array
  /// and on sizes whose product or offsets do not fit in 64 bits.
  View(T* data, Index sequences, Index tokens, Index heads, Index dim, Strides strides)
      : data_(data), sequences_(sequences), tokens_(tokens), heads_(heads), dim_(dim), strides_(strides) {
    require(sequences >= 0, "sequences (", sequences, ") of a view must be at least 0");
    require(tokens >= 0, "tokens (", tokens, ") of a view must be at least 0");
    require(heads >= 0, "heads (", heads, ") of a view must be at least 0");
    require(dim >= 0, "dim (", dim, ") of a view must be at least 0");
    const Index sizes[4] = {sequences, tokens, heads, dim};
    const Index steps[4] = {strides.sequence, strides.token, strides.head, strides.dim};
    Index elements = 1, reach = 0;
    bool fits = true;
    for (int i = 0; i < 4; ++i) {
      Index span = 0;
      fits &= !__builtin_mul_overflow(elements, sizes[i], &elements);
      if (sizes[i] > 1) {
        fits &= steps[i] != std::numeric_limits<Index>::min() &&
                !__builtin_mul_overflow(steps[i] < 0 ? -steps[i] : steps[i], sizes[i] - 1, &span);
        fits &= !__builtin_add_overflow(reach, span, &reach);
      }
    }
    fits &= elements <= kMaxElements && reach <= kMaxElements;
    require(fits, "view of [", sequences, "][", tokens, "][", heads, "][", dim, "] with strides (", strides.sequence,
            ", ", strides.token, ", ", strides.head, ", ", strides.dim, ") must span less than 2^61 elements");
    require(data != nullptr || elements == 0, "data (null) of a view of [", sequences, "][", tokens, "][", heads, "][",
            dim, "] must point to ", elements, " elements");
  }

  /// A view of mutable memory reads as one of constant memory.
  operator View<const T>() const
    requires(!std::is_const_v<T>)
  {
    return View<const T>(data_, sequences_, tokens_, heads_, dim_, strides_);
  }

  T* data() const { return data_; }
  Index sequences() const { return sequences_; }
  Index tokens() const { return tokens_; }
  Index heads() const { return heads_; }
  Index dim() const { return dim_; }
  const Strides& strides() const { return strides_; }

  /// Element (sequence b, token t, head h, dimension d).
  T& operator()(Index b, Index t, Index h, Index d) const {
    detail::checked_index(b, sequences_, "sequence of a view");
    detail::checked_index(t, tokens_, "token of a view");
    detail::checked_index(h, heads_, "head of a view");
    detail::checked_index(d, dim_, "dimension of a view");
    return data_[b * strides_.sequence + t * strides_.token + h * strides_.head + d * strides_.dim];
  }

  /// The same memory without its element type.
  auto array() const {
    using Pointee = std::conditional_t<std::is_const_v<T>, const void, void>;
    return BasicArray<Pointee>{data_, storage_of<T>, sequences_, tokens_, heads_, dim_, strides_};
  }

 private:
  static constexpr Index kMaxElements = Index{1} << 61;

  static Strides packed(Index tokens, Index heads, Index dim) {
    // wrapping products: absurd sizes are refused by the constructor that checks them
    const auto product = [](Index a, Index b) {
      return static_cast<Index>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
    };
    return {product(product(tokens, heads), dim), product(heads, dim), dim, 1};
  }

  T* data_ = nullptr;
  Index sequences_ = 0, tokens_ = 0, heads_ = 0, dim_ = 0;
  Strides strides_;
};

}  // namespace headwise
