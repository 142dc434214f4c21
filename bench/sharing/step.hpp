// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "compare/models.hpp"
#include "compare/workload.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/parallel/executor.hpp"

namespace sharing {

using headwise::Index;

/// What one decode step of all layers takes.
struct Times {
  double append = 0, attend = 0;  // seconds
  double step() const { return append + attend; }
};

/// The attention layers of a model whose caches hold `tokens` tokens, and their next decode step, as often as wanted.
class Step {
 public:
  virtual ~Step() = default;
  /// Appends one token to every producer, attends in every layer, and forgets the token again.
  virtual Times run(headwise::ExecutorRef executor) = 0;
  /// Compares what the last layer gives with the definition.
  virtual compare::Check check(headwise::ExecutorRef executor) = 0;
  virtual Index cache_bytes() const = 0;
  virtual Index bytes_written() const = 0;  ///< by a step
  virtual Index bytes_read() const = 0;     ///< by a step: a shared layer is read by each that shares it
};

template <class T>
class StepOf final : public Step {
 public:
  /// `model` holds the numbers: at least tokens + 1 tokens of one layer.
  StepOf(compare::Workload& model, const headwise::KvSharing& layers, Index tokens)
      : model_(model), cache_(empty(model, layers, tokens + 1)), tokens_(tokens) {
    const Index dim = shape().head_dim, heads = shape().num_kv_heads;
    std::vector<float> keys(static_cast<std::size_t>((tokens + 1) * heads * dim)), values(keys.size());
    model.with_layer(0, [&](const auto& source) {
      using namespace headwise;
      for (Index t = 0; t <= tokens; ++t)
        for (Index g = 0; g < heads; ++g) {
          const TilePointers tile = source.tile(0, g, t / kTileTokens);
          for (Index d = 0; d < dim; ++d) {
            const auto at = static_cast<std::size_t>((t * heads + g) * dim + d);
            keys[at] = load_element(tile.keys, storage_of<T>, key_index(storage_of<T>, dim, t % kTileTokens, d));
            values[at] = load_element(tile.values, storage_of<T>, value_index(storage_of<T>, dim, t % kTileTokens, d));
          }
        }
    });
    const auto rows = [&](const std::vector<float>& all, Index first, Index count) {
      return headwise::View<const float>(all.data() + first * heads * dim, count, heads, dim);
    };
    for (const Index l : layers.producers()) cache_.append(l, rows(keys, 0, tokens), rows(values, 0, tokens));
    last_key_.assign(keys.end() - heads * dim, keys.end());
    last_value_.assign(values.end() - heads * dim, values.end());
  }

  Times run(headwise::ExecutorRef executor) override {
    const headwise::View<const float> key(last_key_.data(), 1, shape().num_kv_heads, shape().head_dim),
        value(last_value_.data(), 1, shape().num_kv_heads, shape().head_dim);
    Times times;
    auto from = std::chrono::steady_clock::now();
    const auto lap = [&](double& total) {
      const auto now = std::chrono::steady_clock::now();
      total += std::chrono::duration<double>(now - from).count();
      from = now;
    };
    for (Index l = 0; l < cache_.num_layers(); ++l) {
      if (cache_.sharing().is_producer(l)) cache_.append(l, key, value);
      lap(times.append);
      model_.attend_over(cache_.layer(l), 1, {}, executor);
      lap(times.attend);
    }
    cache_.truncate(tokens_);
    return times;
  }
  compare::Check check(headwise::ExecutorRef executor) override {
    model_.clear_output();
    run(executor);
    return model_.check_output(1, tokens_ + 1, tokens_ + 1);
  }

  Index cache_bytes() const override { return cache_.bytes(); }
  Index bytes_written() const override { return cache_.bytes_per_token(); }
  Index bytes_read() const override {
    Index bytes = 0;
    for (Index l = 0; l < cache_.num_layers(); ++l) {
      const headwise::LayerShape s = cache_.layer_shape(l);
      bytes += (tokens_ + 1) * s.num_kv_heads * (s.head_dim + s.value_dim) * headwise::size_of(headwise::storage_of<T>);
    }
    return bytes;
  }

 private:
  static headwise::KvCache<T> empty(const compare::Workload& model, const headwise::KvSharing& layers,
                                    Index max_tokens) {
    headwise::LayerShape shape{};
    model.with_layer(0, [&](const auto& source) {
      const headwise::TileFormat format = source.format();
      shape = {format.num_kv_heads, format.head_dim, format.value_dim};
    });
    const std::vector<headwise::LayerShape> shapes(static_cast<std::size_t>(layers.num_layers()), shape);
    return headwise::KvCache<T>(shapes, layers, max_tokens);
  }
  headwise::LayerShape shape() const { return cache_.layer_shape(0); }

  compare::Workload& model_;
  headwise::KvCache<T> cache_;
  Index tokens_;
  std::vector<float> last_key_, last_value_;
};

}  // namespace sharing
