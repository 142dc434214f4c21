// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>

#include "llama/file/gguf_writer.hpp"
#include "llama/file/json.hpp"

namespace llama {

/// Writes the keys "tokenizer.…" for a model folder's tokenizer, which must be a byte-level BPE whose pre-tokenizer is
/// GPT-2's, or GPT-2's after every digit was split off. `config` is config.json; the vocabulary has as many tokens as the
/// embedding, so ids that tokenizer.json leaves out become unused tokens "[PAD<id>]".
/// Throws ModelFileError if a file is wrong or asks for what is not done here, std::runtime_error if tokenizer.json
/// cannot be read.
void write_hugging_face_tokenizer(const std::filesystem::path& folder, const JsonObject& config, Index vocabulary_size,
                                  GgufWriter& gguf);

}  // namespace llama
