// SPDX-License-Identifier: MIT
#pragma once

#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/attention/inputs.hpp"

// Memory of masks of every kind, broadcast and layout.

namespace headwise::testing {

/// What a mask is made of.
enum class MaskElements { boolean, bits, f32, f16, bf16 };
inline constexpr MaskElements kAllMaskElements[] = {MaskElements::boolean, MaskElements::bits, MaskElements::f32,
                                                    MaskElements::f16, MaskElements::bf16};
inline std::string name_of(MaskElements elements) {
  constexpr const char* names[] = {"boolean", "bits", "f32", "f16", "bf16"};
  return names[static_cast<int>(elements)];
}

struct MaskShape {
  Index sequences, heads, queries, keys;
};

/// A random mask: runs of visible and hidden keys, some rows that hide all, and, where numbers are added, those. Lies in
/// memory in which every other element would show.
class SomeMask {
 public:
  enum class Way { packed, backwards, every_third };

  SomeMask(MaskElements elements, const MaskShape& shape, unsigned seed, Way way = Way::packed)
      : elements_(elements), shape_(shape), way_(way) {
    std::mt19937 generator(seed);
    const Index width = row_width(), rows = shape.sequences * shape.heads * shape.queries;
    bytes_.assign(static_cast<std::size_t>(rows * width * step() * size()), '\xa5');
    for (Index row = 0; row < rows; ++row) {
      bool visible = generator() % 2 == 0;
      const bool none = shape.keys > 1 && generator() % 8 == 0;
      for (Index t = 0; t < shape.keys; ++t) {
        if (generator() % 24 == 0) visible = !visible;
        set(row, t, visible && !none, static_cast<float>(static_cast<int>(generator() % 65) - 32) / 16);
      }
    }
  }

  Mask view() const {
    const Index row = row_width() * step(), rows = shape_.sequences * shape_.heads * shape_.queries;
    MaskStrides strides{shape_.heads * shape_.queries * row, shape_.queries * row, row, step()};
    const char* first = bytes_.data();
    if (way_ == Way::backwards) {  // rows and keys
      const bool bits = elements_ == MaskElements::bits;
      first += ((rows - 1) * row + (bits ? 0 : row - 1)) * size();
      strides = {-strides.sequence, -strides.head, -strides.query, bits ? 1 : -1};
    }
    const auto [b, h, q, k] = shape_;
    const auto as = [&]<class T>(T) { return Mask(reinterpret_cast<const T*>(first), b, h, q, k, strides); };
    switch (elements_) {
      case MaskElements::boolean:
        return as(std::uint8_t{});
      case MaskElements::bits:
        return Mask::of_bits(reinterpret_cast<const std::uint64_t*>(first), b, h, q, k, strides);
      case MaskElements::f32:
        return as(float{});
      case MaskElements::f16:
        return as(f16{});
      case MaskElements::bf16:
        break;
    }
    return as(bf16{});
  }

 private:
  Index size() const {
    constexpr Index sizes[] = {1, 8, 4, 2, 2};
    return sizes[static_cast<int>(elements_)];
  }
  /// Elements of a row, and how far apart they lie.
  Index row_width() const { return elements_ == MaskElements::bits ? ceil_div(shape_.keys, 64) + 1 : shape_.keys; }
  Index step() const { return way_ == Way::every_third && elements_ != MaskElements::bits ? 3 : 1; }

  void set(Index row, Index t, bool visible, float added) {
    const Index rows = shape_.sequences * shape_.heads * shape_.queries;
    Index at = row * row_width();
    if (way_ == Way::backwards) at = (rows - 1 - row) * row_width();
    char* const first = bytes_.data() + at * step() * size();
    if (elements_ == MaskElements::bits) {
      char& byte = first[t / 8];
      byte = static_cast<char>(visible ? byte | 1 << t % 8 : byte & ~(1 << t % 8));
      return;
    }
    const Index column = way_ == Way::backwards ? row_width() - 1 - t : t * step();
    if (elements_ == MaskElements::boolean) {
      first[column] = static_cast<char>(visible ? 1 + t % 255 : 0);
      return;
    }
    constexpr Storage storages[] = {Storage::f32, Storage::f32, Storage::f32, Storage::f16, Storage::bf16};
    store_element(first, storages[static_cast<int>(elements_)], column,
                  visible ? added : -std::numeric_limits<float>::infinity());
  }

  MaskElements elements_;
  MaskShape shape_;
  Way way_;
  std::vector<char> bytes_;
};

}  // namespace headwise::testing
