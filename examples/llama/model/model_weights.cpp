// SPDX-License-Identifier: MIT
#include "llama/model/model_weights.hpp"

#include <set>
#include <string>
#include <utility>

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

ModelLayer read_layer(TensorReader& tensors, const ModelShape& shape, Index i) {
  const std::string prefix = "blk." + std::to_string(i) + ".";
  const KvHeads& kv_heads = shape.kv_heads_of(i);
  headwise::nn::MultiHeadAttentionOptions options;
  options.hidden_size = shape.hidden_size;
  options.num_heads = shape.num_heads;
  options.num_kv_heads = kv_heads.count;
  options.head_map = kv_heads.map;
  options.head_dim = shape.head_dim;
  options.value_dim = shape.value_dim;
  options.rope = shape.rope;
  options.query_bias = tensors.has(prefix + "attn_q.bias");
  options.key_bias = tensors.has(prefix + "attn_k.bias");
  options.value_bias = tensors.has(prefix + "attn_v.bias");
  options.output_bias = tensors.has(prefix + "attn_output.bias");

  ModelLayer layer{.attention_norm = tensors.vector(prefix + "attn_norm.weight", shape.hidden_size),
                   .attention = headwise::nn::MultiHeadAttention(options),
                   .feed_forward_norm = tensors.vector(prefix + "ffn_norm.weight", shape.hidden_size),
                   .gate = tensors.linear(prefix + "ffn_gate", shape.feed_forward_size, shape.hidden_size),
                   .up = tensors.linear(prefix + "ffn_up", shape.feed_forward_size, shape.hidden_size),
                   .down = tensors.linear(prefix + "ffn_down", shape.hidden_size, shape.feed_forward_size)};
  layer.attention.set_weights(
      tensors.linear(prefix + "attn_q", shape.num_heads * shape.head_dim, shape.hidden_size),
      tensors.linear(prefix + "attn_k", kv_heads.count * shape.head_dim, shape.hidden_size),
      tensors.linear(prefix + "attn_v", kv_heads.count * shape.value_dim, shape.hidden_size),
      tensors.linear(prefix + "attn_output", shape.hidden_size, shape.num_heads * shape.value_dim));
  return layer;
}

}  // namespace

ModelWeights::ModelWeights(const Gguf& file, const ModelShape& shape, ExecutorRef executor) {
  TensorReader tensors(file, executor);
  const Index vocabulary = file.tensor("token_embd.weight").sizes[1];
  embedding = tensors.matrix("token_embd.weight", vocabulary, shape.hidden_size);
  for (Index i = 0; i < shape.num_layers; ++i) layers.push_back(read_layer(tensors, shape, i));
  output_norm = tensors.vector("output_norm.weight", shape.hidden_size);
  output = tensors.has("output.weight") ? tensors.linear("output", vocabulary, shape.hidden_size)
                                        : Linear::view(embedding.data(), vocabulary, shape.hidden_size);
  tensors.check_all_taken();
}

}  // namespace llama
