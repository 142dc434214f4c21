// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "headwise/parallel/serial.hpp"
#include "llama/model/model.hpp"
#include "tests/llama/tiny_model.hpp"

namespace llama_test {

/// A tiny model, written and read.
struct Loaded {
  explicit Loaded(TinyModel& tiny)
      : bytes(tiny.write().bytes()), file(bytes, "m"), model(file, llama::ModelShape(file), executor) {}
  headwise::Serial executor;
  std::vector<std::byte> bytes;
  llama::Gguf file;
  llama::Model model;
};

inline std::vector<llama::TokenId> some_tokens(std::size_t count, std::size_t first = 5) {
  std::vector<llama::TokenId> tokens;
  for (std::size_t i = 0; i < count; ++i) tokens.push_back(static_cast<llama::TokenId>((i * 37 + first) % 260));
  return tokens;
}

/// Logits after `tokens`, read `chunk` at a time.
template <class T = float, class E = headwise::Serial>
llama::Vector read_in_chunks(const llama::Model& model, const std::vector<llama::TokenId>& tokens, std::size_t chunk,
                             E&& executor = headwise::Serial{}) {
  auto cache = model.make_cache<T>(std::ssize(tokens));
  llama::Model::Scratch scratch;
  llama::Vector hidden;
  for (std::size_t at = 0; at < tokens.size(); at += chunk)
    hidden = model.read(std::span(tokens).subspan(at, std::min(chunk, tokens.size() - at)), cache, scratch, executor);
  return model.logits(hidden, executor);
}

}  // namespace llama_test
