// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "headwise/attention/outputs.hpp"
#include "headwise/cache/cache_layer.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/reference.hpp"
#include "headwise/score/options.hpp"

namespace scores {

using headwise::ExecutorRef;
using headwise::Index;
using headwise::Options;
using headwise::Outputs;
using headwise::View;
using headwise::reference::Parameters;

/// A call of attention: `queries` tokens at the end of `keys`.
struct Shape {
  Index num_heads, num_kv_heads, head_dim, queries, keys;
};

/// A call that is made many times: what is asked of it, and the memory that this refers to.
struct Call {
  Shape shape;
  View<const float> queries;  // [query][head][head_dim]
  headwise::CacheLayer keys;  // holds shape.keys, and perhaps more behind them
  Outputs outputs;
  Options options{};
  std::function<void(ExecutorRef)> before{};  // done before each call, and timed with it
  /// How far what it gives beside its output is from the definition (difference_of); empty: it gives nothing else.
  std::function<double(const headwise::reference::Result&)> error_beside{};
  std::vector<std::shared_ptr<void>> memory{};

  /// Moves a value to where it lives as long as the call.
  template <class T>
  T& keep(T value) {
    auto owned = std::make_shared<T>(std::move(value));
    memory.push_back(owned);
    return *owned;
  }
};

/// What the definition is told of a call; its queries may be changed.
struct Definition {
  const Call& call;
  Parameters parameters{};
  std::vector<double> queries{};  // [query][head][head_dim]
  std::vector<double> sinks{};    // that parameters.sink_logits refers to
};

/// |x − expected| / |expected|, in the Euclidean norm; NaN where either is NaN. Infinities must be the same.
inline double difference_of(std::span<const float> x, std::span<const double> expected) {
  double error = 0, total = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (static_cast<double>(x[i]) == expected[i] && std::isinf(x[i])) continue;
    const double difference = static_cast<double>(x[i]) - expected[i];
    error += difference * difference;
    total += expected[i] * expected[i];
  }
  return std::sqrt(total > 0 ? error / total : error);
}

}  // namespace scores
