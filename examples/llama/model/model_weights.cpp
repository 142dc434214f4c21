// SPDX-License-Identifier: MIT
#include "llama/model/model_weights.hpp"

#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#include "headwise/regroup/module.hpp"
#include "llama/file/dequantize.hpp"

namespace llama {

namespace {

/// Takes tensors out of a file, and knows in the end which were left.
class TensorReader {
 public:
  TensorReader(const Gguf& file, ExecutorRef executor) : file_(file), executor_(executor) {}

  /// [outputs][inputs]
  Matrix matrix(const std::string& name, Index outputs, Index inputs) {
    const Tensor& tensor = take(name, {inputs, outputs, 1, 1});
    Matrix result(outputs, inputs);
    executor_.parallel_for(outputs, [&](Index row) {
      const std::byte* from = tensor.data.data() + row * tensor.row_bytes();
      dequantize(*tensor.format, from, inputs, result.data() + row * inputs);
    });
    return result;
  }

  Vector vector(const std::string& name, Index length) {
    const Tensor& tensor = take(name, {length, 1, 1, 1});
    Vector result(length);
    dequantize(*tensor.format, tensor.data.data(), length, result.data());
    return result;
  }

  /// "<name>.weight" with "<name>.bias" if the file has one.
  Linear linear(const std::string& name, Index outputs, Index inputs) {
    return {matrix(name + ".weight", outputs, inputs),
            has(name + ".bias") ? vector(name + ".bias", outputs) : Vector()};
  }

  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }

  /// A tensor that nobody asked for means that the model is not what it was taken for.
  void check_all_taken() const {
    for (const Tensor& tensor : file_.tensors())
      if (!taken_.contains(tensor.name))
        file_.fail("tensor " + in_quotes(tensor.name) + " is none that a plain Llama model has");
  }

 private:
  const Tensor& take(const std::string& name, const std::array<Index, 4>& sizes) {
    const auto text = [](const std::array<Index, 4>& s) {
      std::string out = std::to_string(s[0]);
      for (std::size_t i = 1; i < 4; ++i) out += " x " + std::to_string(s[i]);
      return out;
    };
    const Tensor& tensor = file_.tensor(name);
    if (tensor.sizes != sizes)
      file_.fail("tensor " + in_quotes(name) + " (" + text(tensor.sizes) + ") must be " + text(sizes) +
                 " by the model's settings");
    taken_.insert(tensor.name);
    return tensor;
  }

  const Gguf& file_;
  ExecutorRef executor_;
  std::set<std::string_view> taken_;
};

headwise::regroup::AttentionWeights take_attention(TensorReader& tensors, const ModelShape& shape, Index layer) {
  const std::string prefix = "blk." + std::to_string(layer) + ".attn_";
  const std::string kv_prefix = "blk." + std::to_string(shape.sharing.source(layer)) + ".attn_";
  const Index hidden = shape.hidden_size, heads = shape.num_heads;
  const KvHeads& kv_heads = shape.kv_heads_of(layer);
  const auto bias = [&](const std::string& name, Index length) {
    return tensors.has(name + ".bias") ? tensors.vector(name + ".bias", length) : Vector();
  };
  return {.num_heads = heads,
          .num_kv_heads = kv_heads.count,
          .head_dim = shape.head_dim,
          .value_dim = shape.value_dim,
          .query = tensors.matrix(prefix + "q.weight", heads * shape.head_dim, hidden),
          .key = tensors.matrix(kv_prefix + "k.weight", kv_heads.count * shape.head_dim, hidden),
          .value = tensors.matrix(kv_prefix + "v.weight", kv_heads.count * shape.value_dim, hidden),
          .output = tensors.matrix(prefix + "output.weight", hidden, heads * shape.value_dim),
          .query_bias = bias(prefix + "q", heads * shape.head_dim),
          .key_bias = bias(kv_prefix + "k", kv_heads.count * shape.head_dim),
          .value_bias = bias(kv_prefix + "v", kv_heads.count * shape.value_dim),
          .output_bias = bias(prefix + "output", hidden),
          .head_map = kv_heads.map};
}

ModelLayer take_layer(TensorReader& tensors, const ModelShape& shape, Index layer) {
  const std::string prefix = "blk." + std::to_string(layer) + ".";
  return {.attention_norm = tensors.vector(prefix + "attn_norm.weight", shape.hidden_size),
          .attention = make_attention(shape, take_attention(tensors, shape, layer), !shape.sharing.is_producer(layer)),
          .feed_forward_norm = tensors.vector(prefix + "ffn_norm.weight", shape.hidden_size),
          .gate = tensors.linear(prefix + "ffn_gate", shape.feed_forward_size, shape.hidden_size),
          .up = tensors.linear(prefix + "ffn_up", shape.feed_forward_size, shape.hidden_size),
          .down = tensors.linear(prefix + "ffn_down", shape.hidden_size, shape.feed_forward_size)};
}

}  // namespace

headwise::regroup::AttentionWeights read_attention(const Gguf& file, const ModelShape& shape, Index layer,
                                                   ExecutorRef executor) {
  TensorReader tensors(file, executor);
  return take_attention(tensors, shape, layer);
}

headwise::nn::MultiHeadAttention make_attention(const ModelShape& shape,
                                                const headwise::regroup::AttentionWeights& weights, bool borrows_kv) {
  headwise::nn::MultiHeadAttentionOptions options;
  options.rope = shape.rope;
  options.borrows_kv = borrows_kv;
  return headwise::regroup::to_module(weights, options);
}

ModelWeights::ModelWeights(const Gguf& file, const ModelShape& shape, ExecutorRef executor) {
  TensorReader tensors(file, executor);
  const Index vocabulary = file.tensor("token_embd.weight").sizes[1];
  embedding = tensors.matrix("token_embd.weight", vocabulary, shape.hidden_size);
  for (Index i = 0; i < shape.num_layers; ++i) {
    try {
      layers.push_back(take_layer(tensors, shape, i));
    } catch (const std::invalid_argument& error) {  // weights that are not finite
      file.fail("layer " + std::to_string(i) + ": " + error.what());
    }
  }
  output_norm = tensors.vector("output_norm.weight", shape.hidden_size);
  output = tensors.has("output.weight") ? tensors.linear("output", vocabulary, shape.hidden_size)
                                        : Linear::view(embedding.data(), vocabulary, shape.hidden_size);
  tensors.check_all_taken();
}

}  // namespace llama
