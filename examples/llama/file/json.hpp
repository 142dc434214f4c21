// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "headwise/core/index.hpp"

namespace llama {

using headwise::Index;
using Json = nlohmann::json;

/// What is wrong with a .safetensors or JSON file of a model: "<file>: <what> (<value>) <what was expected>".
struct ModelFileError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The value that `bytes` write. Throws ModelFileError, with `file` in the message, if they are no JSON, if an object has
/// a key twice, or if arrays and objects lie in each other more than 64 deep.
Json parse_json(std::span<const std::byte> bytes, const std::string& file);

/// The same of a file. Throws std::runtime_error if it cannot be read.
Json read_json(const std::string& path);

/// An object of a model's JSON file. A key whose value is null counts as absent, as it does for those who write these
/// files. Every function throws ModelFileError, which names the file, the key and its value.
/// Refers to the value it was made from.
class JsonObject {
 public:
  /// `place` says where in the file the object is ("tensor 'a'"); it is empty for the whole file.
  JsonObject(const Json& value, std::string file, std::string place = "");

  bool has(std::string_view key) const;
  const Json& value(std::string_view key) const;
  Index integer(std::string_view key, Index least, Index most) const;
  /// A number above 0 that a float can hold.
  double positive(std::string_view key) const;
  /// `otherwise` where the key is absent.
  bool boolean(std::string_view key, bool otherwise) const;
  const std::string& text(std::string_view key) const;
  const Json& array(std::string_view key) const;
  JsonObject object(std::string_view key) const;
  const Json& json() const { return *value_; }
  const std::string& file() const { return file_; }

  /// "<file>: <key> of <place> (<value>) <problem>".
  [[noreturn]] void fail(std::string_view key, const std::string& problem) const;
  /// "<file>: <text>".
  [[noreturn]] void fail(const std::string& text) const;

 private:
  std::string file_, place_;
  const Json* value_;
};

}  // namespace llama
