// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <span>
#include <vector>

#include "caches/timing.hpp"
#include "headwise/attention/attention.hpp"
#include "headwise/reference.hpp"

namespace caches {

using headwise::ExecutorRef;
using headwise::View;

/// Random K and V of a block of tokens that is repeated over a cache, and queries: what all caches of a shape are given.
class Numbers {
 public:
  static constexpr Index kBlock = 512;

  Numbers(Index heads, Index kv_heads, Index dim, Index queries) : heads_{heads, kv_heads, dim} {
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    const auto fill = [&](std::vector<float>& x, Index count) {
      x.resize(static_cast<std::size_t>(count));
      for (float& value : x) value = normal(generator);
    };
    fill(keys_, kBlock * kv_heads * dim);
    fill(values_, kBlock * kv_heads * dim);
    fill(queries_, queries * heads * dim);
    output_.resize(queries_.size());
  }

  const headwise::Heads<>& heads() const { return heads_; }
  /// The shapes of so many equal layers.
  std::vector<headwise::LayerShape> shapes(Index layers) const {
    return {static_cast<std::size_t>(layers), headwise::LayerShape{heads_.num_kv_heads(), heads_.head_dim()}};
  }
  /// The tokens [first, first + count), which must lie in one block.
  View<const float> keys(Index first, Index count) const { return rows(keys_, first, count); }
  View<const float> values(Index first, Index count) const { return rows(values_, first, count); }
  /// Calls append(k, v) with tokens [0, count), piece by piece.
  template <class Append>
  void for_each_piece(Index count, Append append) const {
    for (Index done = 0; done < count;) {
      const Index piece = std::min(kBlock - done % kBlock, count - done);
      append(keys(done, piece), values(done, piece));
      done += piece;
    }
  }

  /// One query token for each of the source's sequences.
  template <class Source>
  void decode(const Source& source, const headwise::Options& options, ExecutorRef executor) {
    const Index b = source.num_sequences();
    attention_(View<const float>(queries_.data(), b, 1, heads_.num_heads(), heads_.head_dim()), source,
               View<float>(output_.data(), b, 1, heads_.num_heads(), heads_.head_dim()), options, executor);
  }

  /// Root mean square error of `sequence`'s output over that of the definition, over the first `tokens` of the cache,
  /// whose stored numbers read(token, kv_head, key, value) gives; the worst head's.
  template <class Read>
  double error_of(Index sequence, Index tokens, Read read) const {
    const auto [H, G, D] = std::tuple(heads_.num_heads(), heads_.num_kv_heads(), heads_.head_dim());
    std::vector<double> k, v;
    std::vector<float> key(static_cast<std::size_t>(D)), value(key.size());
    for (Index t = 0; t < tokens; ++t)
      for (Index g = 0; g < G; ++g) {
        read(t, g, std::span<float>(key), std::span<float>(value));
        k.insert(k.end(), key.begin(), key.end());
        v.insert(v.end(), value.begin(), value.end());
      }
    const float* const q = queries_.data() + sequence * H * D;
    const auto expected = headwise::reference::attend({1, tokens, H, G, D, D}, std::vector<double>(q, q + H * D), k, v);
    double worst = 0;
    for (Index h = 0; h < H; ++h) {
      double error = 0, magnitude = 0;
      for (Index d = 0; d < D; ++d) {
        const double want = expected.output[static_cast<std::size_t>(h * D + d)];
        const double got = output_[static_cast<std::size_t>((sequence * H + h) * D + d)];
        error += (got - want) * (got - want);
        magnitude += want * want;
      }
      worst = std::max(worst, std::sqrt(error / magnitude));
    }
    return worst;
  }

 private:
  View<const float> rows(const std::vector<float>& all, Index first, Index count) const {
    const Index token = heads_.num_kv_heads() * heads_.head_dim();
    return {all.data() + first % kBlock * token, count, heads_.num_kv_heads(), heads_.head_dim()};
  }

  headwise::Heads<> heads_;
  headwise::Attention<headwise::Heads<>> attention_{heads_};
  std::vector<float> keys_, values_, queries_, output_;
};

}  // namespace caches
