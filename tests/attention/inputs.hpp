// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "headwise/headwise.hpp"

// What the attention tests feed in: numbers as packed floats, and memory that holds them as any storage type in any
// layout, with NaN in everything that is not an element.

namespace headwise::testing {

/// Calls f.template operator()<T>() with the type of a storage.
template <class F>
decltype(auto) with_type(Storage storage, F&& f) {
  if (storage == Storage::f32) return f.template operator()<float>();
  if (storage == Storage::f16) return f.template operator()<f16>();
  return f.template operator()<bf16>();
}

inline constexpr Storage kAllStorages[] = {Storage::f32, Storage::f16, Storage::bf16};

/// Normal numbers. `coarse` ones are multiples of 1/32 below 4, which every storage type holds exactly: one set of
/// expected results then serves all of them. Others are rounded to `storage` first.
struct Precision {
  bool coarse = true;
  Storage storage = Storage::f32;
};

inline std::vector<float> random_numbers(Index count, std::mt19937& generator, Precision precision = {}) {
  std::normal_distribution<float> normal;
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& x : result) {
    x = normal(generator);
    if (precision.coarse) {
      x = std::clamp(std::round(x * 32), -127.0f, 127.0f) / 32;
    } else {
      float stored = 0;
      store_element(&stored, precision.storage, 0, x);
      x = load_element(&stored, precision.storage, 0);
    }
  }
  return result;
}

/// Queries, keys and values of one call as packed floats, and the shape they have.
struct Inputs {
  Heads<> heads;
  Index sequences, query_tokens, key_tokens;
  std::vector<float> q;  // [sequence][query token][head][head_dim]
  std::vector<float> k;  // [sequence][key token][kv_head][head_dim]
  std::vector<float> v;  // [sequence][key token][kv_head][value_dim]

  Inputs(const Heads<>& shape, Index sequence_count, Index queries, Index keys, unsigned seed = 1,
         Precision precision = {})
      : heads(shape), sequences(sequence_count), query_tokens(queries), key_tokens(keys) {
    std::mt19937 generator(seed);
    q = random_numbers(sequences * queries * shape.num_heads() * shape.head_dim(), generator, precision);
    k = random_numbers(sequences * keys * shape.num_kv_heads() * shape.head_dim(), generator, precision);
    v = random_numbers(sequences * keys * shape.num_kv_heads() * shape.value_dim(), generator, precision);
  }

  float* key(Index sequence, Index token, Index kv_head) {
    return k.data() + ((sequence * key_tokens + token) * heads.num_kv_heads() + kv_head) * heads.head_dim();
  }
  float* value(Index sequence, Index token, Index kv_head) {
    return v.data() + ((sequence * key_tokens + token) * heads.num_kv_heads() + kv_head) * heads.value_dim();
  }
  float* query(Index sequence, Index token, Index head) {
    return q.data() + ((sequence * query_tokens + token) * heads.num_heads() + head) * heads.head_dim();
  }
};

/// How an array lies in memory.
enum class Layout {
  packed,      // [sequence][token][head][dim], aligned
  head_major,  // [sequence][head][token][dim + 3], one element off alignment
  odd_byte,    // packed, at an odd address
  scattered,   // tokens backwards, every second element
};
inline constexpr Layout kAllLayouts[] = {Layout::packed, Layout::head_major, Layout::odd_byte, Layout::scattered};

/// Numbers in memory as `storage` in a layout. All other bytes are 0xff, which is NaN in every storage type.
class Memory {
 public:
  Memory(const std::vector<float>& packed, Storage storage, Index sequences, Index tokens, Index heads, Index dim,
         Layout layout = Layout::packed)
      : storage_(storage), sequences_(sequences), tokens_(tokens), heads_(heads), dim_(dim) {
    Index first = 0, odd_bytes = 0, elements = 0;
    switch (layout) {
      case Layout::odd_byte:
        odd_bytes = 1;
        [[fallthrough]];
      case Layout::packed:
        strides_ = {tokens * heads * dim, heads * dim, dim, 1};
        elements = sequences * tokens * heads * dim;
        break;
      case Layout::head_major:
        first = 1;
        strides_ = {heads * tokens * (dim + 3), dim + 3, tokens * (dim + 3), 1};
        elements = sequences * heads * tokens * (dim + 3) + 1;
        break;
      case Layout::scattered:
        strides_ = {2 * tokens * heads * dim, -2 * heads * dim, 2 * dim, 2};
        first = tokens > 0 ? 2 * (tokens - 1) * heads * dim : 0;
        elements = 2 * sequences * tokens * heads * dim;
        break;
    }
    // the vector's memory is aligned to 16: 64 and a rest make every layout the same on each run
    bytes_.assign(static_cast<std::size_t>(elements * size_of(storage) + odd_bytes + 64), '\xff');
    data_ = bytes_.data() + (64 - reinterpret_cast<std::uintptr_t>(bytes_.data()) % 64) % 64 + odd_bytes +
            first * size_of(storage);
    const float* x = packed.data();
    for (Index b = 0; b < sequences; ++b)
      for (Index t = 0; t < tokens; ++t)
        for (Index h = 0; h < heads; ++h)
          for (Index d = 0; d < dim; ++d) store_element(data_, storage_, offset(b, t, h, d), *x++);
  }

  Memory(Memory&&) = default;

  template <class T>
  View<T> view() {
    return {reinterpret_cast<T*>(data_), sequences_, tokens_, heads_, dim_, strides_};
  }

  /// The elements as packed floats.
  std::vector<float> packed() const {
    std::vector<float> result;
    result.reserve(static_cast<std::size_t>(sequences_ * tokens_ * heads_ * dim_));
    for (Index b = 0; b < sequences_; ++b)
      for (Index t = 0; t < tokens_; ++t)
        for (Index h = 0; h < heads_; ++h)
          for (Index d = 0; d < dim_; ++d) result.push_back(load_element(data_, storage_, offset(b, t, h, d)));
    return result;
  }

  /// Whether every byte that is not an element is as it was made.
  bool gaps_untouched() const {
    std::vector<char> rest = bytes_;
    char* data = rest.data() + (data_ - bytes_.data());
    for (Index b = 0; b < sequences_; ++b)
      for (Index t = 0; t < tokens_; ++t)
        for (Index h = 0; h < heads_; ++h)
          for (Index d = 0; d < dim_; ++d)
            std::memset(data + offset(b, t, h, d) * size_of(storage_), '\xff',
                        static_cast<std::size_t>(size_of(storage_)));
    return std::all_of(rest.begin(), rest.end(), [](char x) { return x == '\xff'; });
  }

  const std::vector<char>& bytes() const { return bytes_; }

 private:
  Index offset(Index b, Index t, Index h, Index d) const {
    return b * strides_.sequence + t * strides_.token + h * strides_.head + d * strides_.dim;
  }

  Storage storage_;
  Index sequences_, tokens_, heads_, dim_;
  Strides strides_;
  std::vector<char> bytes_;
  char* data_;
};

/// Query tokens first … first + count − 1 of a single sequence.
inline Inputs some_queries(const Inputs& in, Index first, Index count) {
  Inputs part(in.heads, 1, count, 0);
  std::copy_n(in.q.begin() + first * in.heads.num_heads() * in.heads.head_dim(), part.q.size(), part.q.begin());
  return part;
}

}  // namespace headwise::testing
