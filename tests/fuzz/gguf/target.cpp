// SPDX-License-Identifier: MIT
// Any bytes as a GGUF file: a model that runs and a tokenizer that makes tokens, or an error that names the file and what
// is wrong with it.
#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string_view>

#include "headwise/parallel/serial.hpp"
#include "llama/file/gguf.hpp"
#include "llama/file/gguf_writer.hpp"
#include "llama/model/model.hpp"
#include "llama/text/tokenizer.hpp"
#include "tests/fuzz/bytes.hpp"

namespace {

using headwise::Index;
using headwise::fuzz::expect;

constexpr std::string_view kName = "input";

template <class F>
void allow_refusal(F f) {
  try {
    f();
  } catch (const llama::GgufError& error) {
    expect(std::string_view(error.what()).starts_with("input: "), "an error that does not name the file");
  }
}

/// All that can be asked of a file.
void ask(const llama::Gguf& file) {
  for (const llama::GgufEntry& entry : file.entries()) {
    expect(file.has(entry.key), "a key that is not there");
    allow_refusal([&] { static_cast<void>(file.integer(entry.key)); });
    allow_refusal([&] { static_cast<void>(file.number(entry.key)); });
    allow_refusal([&] { static_cast<void>(file.boolean(entry.key)); });
    allow_refusal([&] { static_cast<void>(file.text(entry.key)); });
    allow_refusal([&] { static_cast<void>(file.texts(entry.key)); });
    allow_refusal([&] { static_cast<void>(file.integers(entry.key)); });
  }
}

/// A copy of the file has the same keys and tensors.
void copy(const llama::Gguf& file) {
  llama::GgufWriter writer(file.alignment());
  for (const llama::GgufEntry& entry : file.entries()) writer.set(entry.key, entry);
  for (const llama::Tensor& tensor : file.tensors()) writer.add(tensor);
  const std::vector<std::byte> bytes = writer.bytes();
  const llama::Gguf again(bytes, "copy");
  const auto same = [](std::span<const std::byte> a, std::span<const std::byte> b) { return std::ranges::equal(a, b); };
  expect(again.entries().size() == file.entries().size() && again.tensors().size() == file.tensors().size(),
         "a copy has other keys or tensors");
  for (std::size_t i = 0; i < file.entries().size(); ++i) {
    const llama::GgufEntry &a = file.entries()[i], &b = again.entries()[i];
    expect(a.key == b.key && a.type == b.type && same(a.value, b.value), "a copy has another value");
  }
  for (std::size_t i = 0; i < file.tensors().size(); ++i) {
    const llama::Tensor &a = file.tensors()[i], &b = again.tensors()[i];
    expect(a.name == b.name && a.format == b.format && a.sizes == b.sizes && same(a.data, b.data),
           "a copy has another tensor");
  }
}

void tokenize(const llama::Gguf& file) {
  const llama::Tokenizer tokenizer(file);
  for (const std::string_view text : {"the in 12", "\xff\x80 \xe2\x82", "<|end|>\n"}) {
    const auto encoded = tokenizer.encode(text, true);
    for (const llama::TokenId id : encoded.ids) {
      expect(id >= 0 && id < tokenizer.vocabulary_size(), "a token that is not in the vocabulary");
      static_cast<void>(tokenizer.bytes(id));
    }
  }
}

void run(const llama::Gguf& file) {
  const headwise::Serial serial;
  const llama::Model model(file, llama::ModelShape(file), serial);
  const auto vocabulary = static_cast<llama::TokenId>(model.vocabulary_size());
  const std::vector<llama::TokenId> tokens{0, static_cast<llama::TokenId>(vocabulary - 1), vocabulary / 2};
  auto cache = model.make_cache<float>(4);
  llama::Model::Scratch scratch;
  const auto logits = model.logits(model.read(tokens, cache, scratch, serial), serial);
  expect(logits.size() == vocabulary, "not one logit for each token");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  allow_refusal([&] {
    const llama::Gguf file(std::as_bytes(std::span(data, size)), std::string(kName));
    ask(file);
    copy(file);
    allow_refusal([&] { tokenize(file); });
    run(file);
  });
  return 0;
}
