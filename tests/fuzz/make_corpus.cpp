// SPDX-License-Identifier: MIT
// make_corpus FOLDER: writes FOLDER/attention/*, FOLDER/restore/* and FOLDER/gguf/*, inputs from which fuzzing begins. They
// are the same on every run.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>

#include "llama/file/gguf_parser.hpp"
#include "llama/file/gguf_writer.hpp"
#include "tests/fuzz/attention/options.hpp"
#include "tests/fuzz/restore/caches.hpp"
#include "tests/fuzz/restore/file.hpp"

namespace {

using namespace headwise;
using namespace headwise::fuzz;

void write(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  if (!file.flush()) std::fprintf(stderr, "%s cannot be written\n", path.c_str());
}

/// Positions are of RoPE, which is the option before them.
bool needs_option_before(int option) { return option == 34 || option == 37; }

/// Calls of any kind: bytes of shape and data, then a few options. First of any options, then of each one and some others.
void write_attention(const std::filesystem::path& folder) {
  constexpr int kInputs = 48, kShapeBytes = 23, kOptionBytes = 8;
  std::mt19937 random(1);
  const auto byte = [&](unsigned below) { return static_cast<char>(random() % below); };
  const auto shape = [&] {
    std::string input;
    for (int i = 0; i < kShapeBytes; ++i) input += byte(256);
    return input;
  };
  const auto any_option = [&] {
    std::string option{byte(kNumOptions)};
    for (unsigned i = random() % kOptionBytes; i > 0; --i) option += byte(256);
    return option;
  };
  for (int number = 0; number < kInputs; ++number) {
    std::string input = shape();
    for (int options = number % 7; options > 0; --options) input += any_option();
    write(folder / ("call" + std::to_string(number)), input);
  }
  for (int option = 0; option < kNumOptions; ++option) {
    std::string input = shape();
    input[11] = static_cast<char>(2 + 3 * (random() % 80));  // three sequences, whose shape takes all of these bytes
    if (needs_option_before(option)) {
      input[1] = 0;                                                        // a cache
      input[9] = 15;                                                       // of 16 dimensions
      input += std::string{static_cast<char>(option - 1), 0, 0, 0, 0, 0};  // a plain Rope
    }
    input += static_cast<char>(option);
    for (int i = 0; i < 2 * kOptionBytes; ++i) input += byte(200);  // seldom what is impossible
    for (int options = option % 4; options > 0; --options) input += any_option();
    write(folder / ("option" + std::to_string(option)), input);
  }
}

/// For each kind of cache, a file that fits it: its header and a few bytes of its tiles, which reading makes whole.
void write_restore(const std::filesystem::path& folder) {
  constexpr int kAll = kHeaderSum | kTileBytes | kTiles | kTileSum;
  constexpr std::size_t kKeptTileBytes = 8;
  for (int number = 0; number < kCaches; ++number)
    with_cache(cache_kind(number), [&](auto cache, const auto& ids) {
      append_tokens(cache, ids[0], 70, 1.0f);
      std::ostringstream stream;
      save(cache, ids[0], stream);
      const std::size_t header = 40 + 56 * cache.sharing().producers().size() + 8;
      std::string input{static_cast<char>(number), static_cast<char>(kAll | (number % 2) << 4)};
      input += stream.str().substr(0, header + kKeptTileBytes);
      write(folder / ("kind" + std::to_string(number)), input);
    });
}

/// A model of one layer with a handful of tokens, which may say that it has more. `type` is that of its matrices.
std::string model(const std::string& architecture, llama::TensorType type, bool more, std::uint32_t layers = 1) {
  constexpr Index kHidden = 4, kHeads = 2, kHeadDim = 2, kWide = 4;
  const std::vector<std::string> tokens{"<|end|>", "t", "h", "e", "\xc4\xa0", "i", "n", "th"};
  llama::GgufWriter file(8);
  const auto key = [&](const char* name) { return architecture + "." + name; };
  file.set("general.architecture", std::string_view(architecture));
  file.set("general.alignment", std::uint32_t{8});
  file.set(key("block_count"), layers);
  file.set(key("context_length"), std::uint32_t{16});
  file.set(key("embedding_length"), std::uint32_t{kHidden});
  file.set(key("feed_forward_length"), std::uint32_t{kWide});
  file.set(key("attention.head_count"), std::uint32_t{kHeads});
  file.set(key("attention.layer_norm_rms_epsilon"), 1e-5f);
  if (more) {
    file.set(key("attention.head_count_kv"), std::span<const std::int32_t>(std::vector<std::int32_t>{1}));
    file.set(key("attention.key_length"), std::uint32_t{kHeadDim});
    file.set(key("rope.freq_base"), 100.0f);
    file.set(key("rope.scaling.type"), "linear");
    file.set(key("rope.scaling.factor"), 2.0f);
    if (architecture == "headwise") {
      file.set(key("attention.head_map"), std::span<const std::int32_t>(std::vector<std::int32_t>{0, 0}));
      file.set(key("attention.kv_source"), std::span<const std::int32_t>(std::vector<std::int32_t>{0}));
    }
  }
  file.set("tokenizer.ggml.model", "gpt2");
  file.set("tokenizer.ggml.pre", "smollm");
  file.set("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  file.set("tokenizer.ggml.token_type",
           std::span<const std::int32_t>(std::vector<std::int32_t>{3, 1, 1, 1, 1, 1, 1, 1}));
  file.set("tokenizer.ggml.merges", std::span<const std::string>(std::vector<std::string>{"t h"}));
  file.set("tokenizer.ggml.eos_token_id", std::uint32_t{0});

  std::vector<float> numbers(64);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i * 5 % 9) / 8 - 0.5f;
  const Index kv_rows = (more ? 1 : kHeads) * kHeadDim;
  const auto matrix = [&](const std::string& name, Index columns, Index rows) {
    file.add_matrix(name, numbers.data(), rows, columns, type);
  };
  matrix("token_embd.weight", kHidden, std::ssize(tokens));
  for (const char* name : {"attn_norm", "ffn_norm"})
    file.add_vector(std::string("blk.0.") + name + ".weight", numbers.data(), kHidden);
  matrix("blk.0.attn_q.weight", kHidden, kHeads * kHeadDim);
  matrix("blk.0.attn_k.weight", kHidden, kv_rows);
  matrix("blk.0.attn_v.weight", kHidden, kv_rows);
  matrix("blk.0.attn_output.weight", kHeads * kHeadDim, kHidden);
  matrix("blk.0.ffn_gate.weight", kHidden, kWide);
  matrix("blk.0.ffn_up.weight", kHidden, kWide);
  matrix("blk.0.ffn_down.weight", kWide, kHidden);
  file.add_vector("output_norm.weight", numbers.data(), kHidden);
  const std::vector<std::byte> bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// No model, but every type of value and of tensor.
std::string every_type() {
  llama::GgufWriter file;
  for (std::uint32_t type = 0; type <= 12; ++type) {
    std::vector<std::byte> value(type == 9 ? 15 : type == 8 ? 9 : 8, std::byte{0});
    if (type == 9) value[4] = std::byte{3};  // an array of 3 numbers of a byte each
    if (type == 8) value[0] = std::byte{1};
    if (type < 8 || type > 9) value.resize(llama::gguf_type::size_of(type));
    file.set("key" + std::to_string(type), llama::GgufEntry{"", type, value});
  }
  const std::vector<std::byte> zeros(256);
  for (const llama::BlockFormat& format : llama::kBlockFormats)
    file.add({format.name,
              &format,
              {format.elements, 1, 1, 1},
              std::span(zeros).first(static_cast<std::size_t>(format.bytes))});
  const std::vector<std::byte> bytes = file.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: make_corpus FOLDER\n");
    return 1;
  }
  const std::filesystem::path folder = arguments[1];
  write_attention(folder / "attention");
  write_restore(folder / "restore");
  write(folder / "gguf/llama", model("llama", llama::TensorType::f32, false));
  write(folder / "gguf/deci", model("deci", llama::TensorType::f16, true));
  write(folder / "gguf/headwise", model("headwise", llama::TensorType::bf16, true));
  write(folder / "gguf/more_layers_than_tensors", model("llama", llama::TensorType::f32, false, 1u << 20));
  write(folder / "gguf/every_type", every_type());
}
