// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

#include "llama/file/dequantize.hpp"
#include "llama/file/gguf.hpp"
#include "llama/file/hugging_face_config.hpp"
#include "llama/file/hugging_face_tensors.hpp"
#include "llama/file/hugging_face_tokenizer.hpp"

namespace llama {

namespace {

/// Rows of `row_bytes` bytes of heads that pair dimensions i and i + dim/2, as heads that pair 2i and 2i + 1.
std::vector<std::byte> interleaved(const std::byte* rows, Index row_bytes, Index num_heads, Index head_dim) {
  std::vector<std::byte> out(static_cast<std::size_t>(num_heads * head_dim * row_bytes));
  for (Index head = 0; head < num_heads; ++head)
    for (Index i = 0; i < head_dim; ++i) {
      const Index from = head * head_dim + i % 2 * (head_dim / 2) + i / 2, to = head * head_dim + i;
      std::memcpy(out.data() + to * row_bytes, rows + from * row_bytes, static_cast<std::size_t>(row_bytes));
    }
  return out;
}

/// Takes the weights of a folder into a GGUF file, under the names that they have there.
class WeightsConverter {
 public:
  WeightsConverter(const HuggingFaceConfig& config, HuggingFaceTensors& tensors, HuggingFaceModel& out)
      : config_(config), tensors_(tensors), out_(out) {}

  void convert() {
    const Index hidden = config_.hidden_size, vocabulary = config_.vocabulary_size;
    matrix("model.embed_tokens.weight", "token_embd.weight", vocabulary, hidden);
    for (Index i = 0; i < config_.num_layers; ++i) convert_layer(i);
    vector("model.norm.weight", "output_norm.weight", hidden);
    if (!config_.tied)
      matrix("lm_head.weight", "output.weight", vocabulary, hidden);
    else if (tensors_.has("lm_head.weight"))
      check_that_output_is_embedding();
    tensors_.check_that_all_are_taken();
  }

  /// What general.file_type says of the matrices: the type that most of their bytes have.
  std::uint32_t file_type() const {
    const auto most = std::ranges::max_element(bytes_of_type_, {}, [](const auto& entry) { return entry.second; });
    return most->first == TensorType::f32 ? 0 : most->first == TensorType::f16 ? 1 : 32;
  }

 private:
  void convert_layer(Index i) {
    const std::string from = "model.layers." + std::to_string(i) + ".", to = "blk." + std::to_string(i) + ".";
    const Index hidden = config_.hidden_size, inner = config_.feed_forward_size, dim = config_.dim();
    const Index heads = config_.num_heads, kv_heads = config_.kv_heads();
    const bool bias = config_.attention_bias, feed_forward_bias = config_.feed_forward_bias;
    vector(from + "input_layernorm.weight", to + "attn_norm.weight", hidden);
    linear(from + "self_attn.q_proj", to + "attn_q", heads * dim, hidden, bias, heads);
    linear(from + "self_attn.k_proj", to + "attn_k", kv_heads * dim, hidden, bias, kv_heads);
    linear(from + "self_attn.v_proj", to + "attn_v", kv_heads * dim, hidden, bias);
    linear(from + "self_attn.o_proj", to + "attn_output", hidden, heads * dim, bias);
    vector(from + "post_attention_layernorm.weight", to + "ffn_norm.weight", hidden);
    linear(from + "mlp.gate_proj", to + "ffn_gate", inner, hidden, feed_forward_bias);
    linear(from + "mlp.up_proj", to + "ffn_up", inner, hidden, feed_forward_bias);
    linear(from + "mlp.down_proj", to + "ffn_down", hidden, inner, feed_forward_bias);
  }

  /// rotated_heads: how many heads the outputs are that are rotated; 0 if none are.
  void linear(const std::string& from, const std::string& to, Index outputs, Index inputs, bool bias,
              Index rotated_heads = 0) {
    matrix(from + ".weight", to + ".weight", outputs, inputs, rotated_heads);
    if (bias) vector(from + ".bias", to + ".bias", outputs, rotated_heads);
  }

  void matrix(const std::string& from, const std::string& to, Index outputs, Index inputs, Index rotated_heads = 0) {
    const StoredTensor& stored = tensors_.take(from, {outputs, inputs});
    Tensor tensor{to, stored.format, {inputs, outputs, 1, 1}, stored.data};
    if (rotated_heads > 0) {
      out_.reordered.push_back(
          interleaved(stored.data.data(), tensor.row_bytes(), rotated_heads, outputs / rotated_heads));
      tensor.data = out_.reordered.back();
    }
    out_.gguf.add(tensor);
    bytes_of_type_[stored.format->type] += stored.data.size();
  }

  void vector(const std::string& from, const std::string& to, Index length, Index rotated_heads = 0) {
    const StoredTensor& stored = tensors_.take(from, {length});
    const auto reordered =
        rotated_heads > 0 ? interleaved(stored.data.data(), stored.format->bytes, rotated_heads, length / rotated_heads)
                          : std::vector(stored.data.begin(), stored.data.end());
    std::vector<float> numbers(static_cast<std::size_t>(length));
    dequantize(*stored.format, reordered.data(), length, numbers.data());
    out_.gguf.add_vector(to, numbers.data(), length);
  }

  void check_that_output_is_embedding() {
    const std::vector<Index> sizes = {config_.vocabulary_size, config_.hidden_size};
    const StoredTensor& output = tensors_.take("lm_head.weight", sizes);
    const StoredTensor& embedding = tensors_.take("model.embed_tokens.weight", sizes);
    if (output.format != embedding.format || !std::ranges::equal(output.data, embedding.data))
      tensors_.fail(
          "tensor 'lm_head.weight' must be 'model.embed_tokens.weight' again where config.json sets "
          "tie_word_embeddings");
  }

  const HuggingFaceConfig& config_;
  HuggingFaceTensors& tensors_;
  HuggingFaceModel& out_;
  std::map<TensorType, std::size_t> bytes_of_type_;
};

/// The folder's own name.
std::string name_of(const std::filesystem::path& folder) {
  const auto path = std::filesystem::weakly_canonical(folder);
  return path.has_filename() ? path.filename() : path.parent_path().filename();
}

}  // namespace

HuggingFaceModel read_hugging_face(const std::string& folder) {
  const std::filesystem::path path(folder), config_path = path / "config.json";
  const Json json = read_json(config_path);
  const JsonObject settings(json, config_path);
  const HuggingFaceConfig config(settings);

  HuggingFaceModel model;
  model.gguf.set("general.architecture", "llama");
  model.gguf.set("general.type", "model");
  model.gguf.set("general.name", name_of(path));
  config.write(model.gguf);

  HuggingFaceTensors tensors(path);
  WeightsConverter weights(config, tensors, model);
  weights.convert();
  model.gguf.set("general.file_type", weights.file_type());
  model.gguf.set("general.quantization_version", std::uint32_t{2});
  // after the weights: their sizes vouch for the number of tokens
  write_hugging_face_tokenizer(path, settings, config.vocabulary_size, model.gguf);
  model.files = std::move(tensors).release_files();
  return model;
}

}  // namespace llama
