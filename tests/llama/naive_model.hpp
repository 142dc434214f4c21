// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "tests/llama/tiny_model.hpp"

namespace llama_test {

using Row = std::vector<double>;

/// The model by its definition, in double, one token and one head at a time: logits after the last of `tokens`.
class NaiveModel {
 public:
  explicit NaiveModel(const TinyModel& model) : model_(model) {}

  Row logits(const std::vector<std::int32_t>& tokens) const {
    std::vector<Row> x;
    for (const std::int32_t token : tokens)
      x.push_back(row("token_embd.weight", static_cast<std::size_t>(token), model_.hidden));
    std::vector<KeysAndValues> made(model_.layers);
    for (std::uint32_t i = 0; i < model_.layers; ++i) {
      const std::string prefix = "blk." + std::to_string(i) + ".";
      attention(x, i, prefix, made);
      for (Row& token : x) feed_forward(token, prefix);
    }
    return times(model_.tied ? "token_embd" : "output", norm(x.back(), "output_norm.weight"));
  }

 private:
  struct KeysAndValues {
    std::vector<Row> keys, values;  // [token]
  };

  Row row(const std::string& name, std::size_t index, std::size_t length) const {
    const auto& values = model_.weights.at(name);
    return {values.begin() + static_cast<std::ptrdiff_t>(index * length),
            values.begin() + static_cast<std::ptrdiff_t>((index + 1) * length)};
  }
  Row times(const std::string& name, const Row& x) const {
    const auto& weight = model_.weights.at(name + ".weight");
    const auto bias = model_.weights.find(name + ".bias");
    Row y(weight.size() / x.size());
    for (std::size_t o = 0; o < y.size(); ++o) {
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += weight[o * x.size() + i] * x[i];
      if (bias != model_.weights.end()) y[o] += bias->second[o];
    }
    return y;
  }
  Row norm(const Row& x, const std::string& name) const {
    double squares = 0;
    for (const double value : x) squares += value * value;
    Row y = x;
    for (std::size_t i = 0; i < x.size(); ++i)
      y[i] *= model_.weights.at(name)[i] / std::sqrt(squares / static_cast<double>(x.size()) + model_.epsilon);
    return y;
  }
  void rotate(Row& heads, std::size_t position) const {
    for (std::size_t head = 0; head < heads.size(); head += model_.head_dim)
      for (std::size_t i = 0; i < model_.rotary_dim; i += 2) {
        const double angle =
            static_cast<double>(position) * std::pow(model_.base, -static_cast<double>(i) / model_.rotary_dim);
        const double a = heads[head + i], b = heads[head + i + 1];
        heads[head + i] = a * std::cos(angle) - b * std::sin(angle);
        heads[head + i + 1] = a * std::sin(angle) + b * std::cos(angle);
      }
  }
  void attention(std::vector<Row>& x, std::uint32_t layer, const std::string& prefix,
                 std::vector<KeysAndValues>& made) const {
    const std::uint32_t source = model_.kv_source_of(layer);
    auto& [keys, values] = made[source];
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Row input = norm(x[t], prefix + "attn_norm.weight");
      Row query = times(prefix + "attn_q", input);
      rotate(query, t);
      if (source == layer) {
        keys.push_back(times(prefix + "attn_k", input));
        rotate(keys.back(), t);
        values.push_back(times(prefix + "attn_v", input));
      }
      Row attended(query.size());
      for (std::size_t h = 0; h < model_.heads; ++h) {
        const std::size_t q = h * model_.head_dim, kv = model_.kv_head_of(layer, h) * model_.head_dim;
        Row weight(t + 1);
        double sum = 0;
        for (std::size_t s = 0; s <= t; ++s) {
          double score = 0;
          for (std::size_t d = 0; d < model_.head_dim; ++d) score += query[q + d] * keys[s][kv + d];
          sum += weight[s] = std::exp(score / std::sqrt(static_cast<double>(model_.head_dim)));
        }
        for (std::size_t s = 0; s <= t; ++s)
          for (std::size_t d = 0; d < model_.head_dim; ++d) attended[q + d] += weight[s] / sum * values[s][kv + d];
      }
      const Row output = times(prefix + "attn_output", attended);
      for (std::size_t i = 0; i < output.size(); ++i) x[t][i] += output[i];
    }
  }
  void feed_forward(Row& x, const std::string& prefix) const {
    const Row input = norm(x, prefix + "ffn_norm.weight");
    Row gate = times(prefix + "ffn_gate", input);
    const Row up = times(prefix + "ffn_up", input);
    for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
    const Row down = times(prefix + "ffn_down", gate);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += down[i];
  }

  const TinyModel& model_;
};

}  // namespace llama_test
