// SPDX-License-Identifier: MIT
#pragma once

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

}  // namespace llama_test
