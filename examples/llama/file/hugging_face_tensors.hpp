// SPDX-License-Identifier: MIT
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "llama/file/mapped_file.hpp"
#include "llama/file/safetensors.hpp"

namespace llama {

/// The tensors of a model folder, of one .safetensors file or of several that an index lists. Knows which were taken.
class HuggingFaceTensors {
 public:
  /// Throws ModelFileError if a file is wrong or files and index contradict each other, std::runtime_error if one cannot
  /// be read.
  explicit HuggingFaceTensors(const std::filesystem::path& folder);

  bool has(std::string_view name) const { return tensors_.contains(name); }
  /// Throws ModelFileError if there is none of that name or it has other sizes.
  const StoredTensor& take(const std::string& name, const std::vector<Index>& sizes);
  /// A tensor that nobody asked for means that the model is not what it was taken for.
  void check_that_all_are_taken() const;

  /// Throws ModelFileError with the name of the file before the text: for those who find the contents wrong.
  [[noreturn]] void fail(const std::string& text) const { throw ModelFileError(name_ + ": " + text); }

  /// What the tensors' data lies in; they may be used as long as it lives.
  std::vector<std::unique_ptr<MappedFile>> release_files() && { return std::move(maps_); }

 private:
  void open(const std::filesystem::path& path);
  void open_parts(const std::filesystem::path& index);

  std::string name_;  // of the one file, or of the index
  std::vector<std::unique_ptr<MappedFile>> maps_;
  std::vector<std::unique_ptr<Safetensors>> files_;
  std::map<std::string_view, const StoredTensor*> tensors_;
  std::set<std::string_view> taken_;
};

}  // namespace llama
