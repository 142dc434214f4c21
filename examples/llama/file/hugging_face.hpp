// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "llama/file/gguf_writer.hpp"
#include "llama/file/json.hpp"
#include "llama/file/mapped_file.hpp"

namespace llama {

/// A model of Hugging Face's form as a GGUF file, ready to be written, with what that refers to.
struct HuggingFaceModel {
  std::vector<std::unique_ptr<MappedFile>> files;  // the .safetensors files
  std::vector<std::vector<std::byte>> reordered;   // query and key weights
  GgufWriter gguf;
};

/// Reads a folder that holds a LlamaForCausalLM model: config.json, model.safetensors (or its parts, with
/// model.safetensors.index.json), tokenizer.json and, where they are there, tokenizer_config.json,
/// generation_config.json and chat_template.jinja. Keys and tensors are those that llama.cpp's converter gives the
/// architecture "llama": matrices as they are stored, vectors as f32, and within each head the rows of the query and key
/// weights from the order of Hugging Face's rotary embedding (which pairs dimensions i and i + dim/2) in that of
/// llama.cpp's (2i and 2i + 1).
/// Throws ModelFileError if a file is wrong or asks for what is not done here (another architecture or pre-tokenizer, a
/// scaled rotary embedding other than linear, sliding windows, quantized weights): never a silently wrong model. Throws
/// std::runtime_error if a file cannot be read.
HuggingFaceModel read_hugging_face(const std::string& folder);

}  // namespace llama
