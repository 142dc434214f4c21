// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "headwise/score/options.hpp"
#include "tests/fuzz/attention/functions.hpp"

// Masks that lie in memory, for the library, and the same key by key, for the definition.

namespace headwise::fuzz {

/// What the elements of a mask are stored as.
enum class MaskType : std::uint8_t { boolean, byte, f32, f16, bf16, bits };
inline constexpr int kMaskTypes = 6;

/// A Mask in memory that ends with its last element. Whatever is no element hides, or is NaN.
class MaskMemory {
 public:
  struct Shape {
    std::array<Index, 4> sizes;  // sequences, heads, queries, keys
    std::array<int, 4> order;    // of these in memory, the first the slowest; of bits, keys are the fastest
    std::array<bool, 4> backwards;
    Index padding;  // elements between rows
  };

  MaskMemory(MaskType type, const Shape& shape) : type_(type), shape_(shape) {
    std::array<Index, 4> sizes = shape.sizes;
    if (type == MaskType::bits) sizes[3] = ceil_div(sizes[3], kTileTokens);
    Index step = 1, first = 0, last = 0;
    for (int i = 3; i >= 0; --i) {
      const auto at = static_cast<std::size_t>(shape.order[static_cast<std::size_t>(i)]);
      strides_[at] = shape.backwards[at] && !(type == MaskType::bits && at == 3) ? -step : step;
      const Index reach = strides_[at] * (sizes[at] - 1);
      (reach < 0 ? first : last) += reach;
      step = step * sizes[at] + (i == 3 ? shape.padding : 0);
    }
    first_ = -first;
    bytes_ = static_cast<std::size_t>((last - first + 1) * element_bytes()) + shift();
    memory_ = std::make_unique_for_overwrite<unsigned char[]>(bytes_);
    std::memset(memory_.get(), type == MaskType::boolean ? 0 : 0xff, bytes_);
    numbers_.assign(static_cast<std::size_t>(shape.sizes[0] * shape.sizes[1] * shape.sizes[2] * shape.sizes[3]), 0.0f);
  }

  bool additive() const { return type_ == MaskType::f32 || type_ == MaskType::f16 || type_ == MaskType::bf16; }
  const std::array<Index, 4>& sizes() const { return shape_.sizes; }

  /// Stores an element, of a boolean mask whether the number is not −∞.
  void set(Index b, Index h, Index i, Index t, float number) {
    const bool seen = number != -std::numeric_limits<float>::infinity();
    const Index row = first_ + b * strides_[0] + h * strides_[1] + i * strides_[2];
    unsigned char* const memory = memory_.get() + shift();
    float& kept = numbers_[index(b, h, i, t)];
    kept = seen ? 0.0f : -std::numeric_limits<float>::infinity();
    if (type_ == MaskType::bits) {
      unsigned char& byte = memory[8 * row + t / 8];
      byte = static_cast<unsigned char>(seen ? byte | 1u << t % 8 : byte & ~(1u << t % 8));
    } else if (!additive()) {
      memory[row + t * strides_[3]] = static_cast<unsigned char>(!seen                        ? 0
                                                                 : type_ == MaskType::boolean ? 1
                                                                                              : 1 + t % 255);
    } else {
      store_element(memory, storage(), row + t * strides_[3], number);
      kept = load_element(memory, storage(), row + t * strides_[3]);
    }
  }
  /// What the definition adds to a score.
  float get(Index b, Index h, Index i, Index t) const {
    const auto in = [&](std::size_t at, Index x) { return shape_.sizes[at] == 1 ? 0 : x; };
    return numbers_[index(in(0, b), in(1, h), in(2, i), in(3, t))];
  }

  Mask mask() const {
    const auto& [sequences, heads, queries, keys] = shape_.sizes;
    MaskStrides strides{strides_[0], strides_[1], strides_[2], strides_[3]};
    Index* const steps[] = {&strides.sequence, &strides.head, &strides.query, &strides.key};
    for (std::size_t i = 0; i < 4; ++i)
      if (shape_.sizes[i] == 1) *steps[i] = Index{1} << 62;  // not looked at
    const unsigned char* const data = memory_.get() + shift() + first_ * element_bytes();
    const auto of = [&]<class T>() {
      return Mask(reinterpret_cast<const T*>(data), sequences, heads, queries, keys, strides);
    };
    switch (type_) {
      case MaskType::boolean:
        return of.template operator()<bool>();
      case MaskType::byte:
        return of.template operator()<std::uint8_t>();
      case MaskType::f32:
        return of.template operator()<float>();
      case MaskType::f16:
        return of.template operator()<f16>();
      case MaskType::bf16:
        return of.template operator()<bf16>();
      case MaskType::bits:
        break;
    }
    return Mask::of_bits(reinterpret_cast<const std::uint64_t*>(data), sequences, heads, queries, keys, strides);
  }

 private:
  Storage storage() const {
    return type_ == MaskType::f32 ? Storage::f32 : type_ == MaskType::f16 ? Storage::f16 : Storage::bf16;
  }
  Index element_bytes() const { return type_ == MaskType::bits ? 8 : additive() ? size_of(storage()) : 1; }
  /// Numbers begin at an odd address.
  std::size_t shift() const { return 1; }
  std::size_t index(Index b, Index h, Index i, Index t) const {
    const auto& [sequences, heads, queries, keys] = shape_.sizes;
    return static_cast<std::size_t>(((b * heads + h) * queries + i) * keys + t);
  }

  MaskType type_;
  Shape shape_;
  std::array<Index, 4> strides_{};
  Index first_ = 0;
  std::size_t bytes_ = 0;
  std::unique_ptr<unsigned char[]> memory_;
  std::vector<float> numbers_;
};

/// A TreeMask of any bits, or of the ancestors in a draft tree.
struct TreeMemory {
  Index rows = 0, words_per_row = 1;
  std::vector<std::uint64_t> words;
  std::vector<Index> parents, offsets;  // of draft trees
  std::optional<DraftTree> tree;

  TreeMask mask() const { return tree ? tree->mask() : TreeMask(words.data(), rows, words_per_row); }
  /// Whether the node with this row sees a node of its own tree.
  bool sees(Index row, Index tree_begin, Index node) const {
    if (!tree) return words[static_cast<std::size_t>(row * words_per_row + node / 64)] >> (node % 64) & 1;
    for (Index i = row - tree_begin; i >= 0; i = parents[static_cast<std::size_t>(tree_begin + i)])
      if (i == node) return true;
    return false;
  }
};

}  // namespace headwise::fuzz
