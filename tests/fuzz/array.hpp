// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "headwise/core/view.hpp"

namespace headwise::fuzz {

/// How an array lies in memory.
enum class Layout : std::uint8_t {
  packed,      // [sequence][token][head][dim]
  head_major,  // [sequence][head][token][dim + 3]
  backwards,   // tokens in reverse order
  every_other  // every second element
};
inline constexpr int kLayouts = 4;

/// Calls f.template operator()<T>() with the type of a caller's storage.
template <class F>
decltype(auto) with_type(Storage storage, F&& f) {
  if (storage == Storage::f32) return f.template operator()<float>();
  if (storage == Storage::f16) return f.template operator()<f16>();
  return f.template operator()<bf16>();
}

/// Numbers in memory of their own that ends with the last of them, so that a sanitizer sees whoever reads on. It begins
/// at an odd address; whatever is no element is 0xff, which is NaN in every type.
class Array {
 public:
  /// Of nothing.
  Array() = default;
  Array(Storage storage, Index sequences, Index tokens, Index heads, Index dim, Layout layout)
      : storage_(storage), sequences_(sequences), tokens_(tokens), heads_(heads), dim_(dim) {
    switch (layout) {
      case Layout::packed:
        strides_ = {tokens * heads * dim, heads * dim, dim, 1};
        break;
      case Layout::head_major:
        strides_ = {heads * tokens * (dim + 3), dim + 3, tokens * (dim + 3), 1};
        break;
      case Layout::backwards:
        strides_ = {tokens * heads * dim, -heads * dim, dim, 1};
        break;
      case Layout::every_other:
        strides_ = {2 * tokens * heads * dim, 2 * heads * dim, 2 * dim, 2};
        break;
    }
    if (sequences * tokens * heads * dim == 0) return;
    const Index first = layout == Layout::backwards ? (tokens - 1) * heads * dim : 0;
    const Index last = std::max(first, first + offset(sequences - 1, tokens - 1, heads - 1, dim - 1));
    const Index end = layout == Layout::backwards ? sequences * tokens * heads * dim : last + 1;
    size_ = static_cast<std::size_t>(end * size_of(storage)) + 1;
    bytes_ = std::make_unique_for_overwrite<unsigned char[]>(size_);
    std::memset(bytes_.get(), 0xff, size_);
    data_ = bytes_.get() + 1 + first * size_of(storage);
  }

  void set(Index b, Index t, Index h, Index d, float x) { store_element(data_, storage_, offset(b, t, h, d), x); }
  float get(Index b, Index t, Index h, Index d) const { return load_element(data_, storage_, offset(b, t, h, d)); }

  template <class T>
  View<T> view() {
    return {reinterpret_cast<T*>(data_), claimed(0, sequences_), claimed(1, tokens_),
            claimed(2, heads_),          claimed(3, dim_),       strides_};
  }
  /// Lets views say that there is so much more of a size (of the sequences, tokens, heads or the dim).
  void claim(int size, Index more) {
    claimed_size_ = size;
    claimed_more_ = more;
  }

  bool untouched() const {
    return std::all_of(bytes_.get(), bytes_.get() + size_, [](unsigned char x) { return x == 0xff; });
  }
  /// Whether every byte that is not of an element is as it was made.
  bool gaps_untouched() const {
    const auto width = static_cast<std::size_t>(size_of(storage_));
    std::vector<unsigned char> rest(bytes_.get(), bytes_.get() + size_);
    for (Index b = 0; b < sequences_; ++b)
      for (Index t = 0; t < tokens_; ++t)
        for (Index h = 0; h < heads_; ++h)
          for (Index d = 0; d < dim_; ++d)
            std::memset(rest.data() + (data_ - bytes_.get()) + offset(b, t, h, d) * size_of(storage_), 0xff, width);
    return std::all_of(rest.begin(), rest.end(), [](unsigned char x) { return x == 0xff; });
  }
  friend bool operator==(const Array& a, const Array& b) {
    return a.size_ == b.size_ && (a.size_ == 0 || std::memcmp(a.bytes_.get(), b.bytes_.get(), a.size_) == 0);
  }

 private:
  Index claimed(int size, Index has) const {
    Index sum = 0;
    if (size != claimed_size_) return has;
    return __builtin_add_overflow(has, claimed_more_, &sum) ? std::numeric_limits<Index>::min() : sum;
  }
  Index offset(Index b, Index t, Index h, Index d) const {
    return b * strides_.sequence + t * strides_.token + h * strides_.head + d * strides_.dim;
  }

  Storage storage_ = Storage::f32;
  Index sequences_ = 0, tokens_ = 0, heads_ = 0, dim_ = 0;
  Strides strides_;
  std::size_t size_ = 0;
  std::unique_ptr<unsigned char[]> bytes_;
  unsigned char* data_ = nullptr;
  int claimed_size_ = -1;
  Index claimed_more_ = 0;
};

}  // namespace headwise::fuzz
