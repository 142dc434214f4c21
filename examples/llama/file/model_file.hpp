// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <system_error>
#include <vector>

#include "llama/file/hugging_face.hpp"
#include "llama/file/mapped_file.hpp"

namespace llama {

/// A model as the bytes of a GGUF file: a GGUF file, mapped, or a Hugging Face folder, turned into one in memory. Throws
/// std::runtime_error that names what is wrong.
class ModelFile {
 public:
  explicit ModelFile(const std::string& path) {
    std::error_code none;
    if (std::filesystem::is_directory(path, none))
      converted_ = read_hugging_face(path).gguf.bytes();
    else
      mapped_ = std::make_unique<MappedFile>(path);
  }
  std::span<const std::byte> bytes() const {
    return mapped_ ? mapped_->bytes() : std::span<const std::byte>(converted_);
  }

 private:
  std::unique_ptr<MappedFile> mapped_;
  std::vector<std::byte> converted_;
};

}  // namespace llama
