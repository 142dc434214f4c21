// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "headwise/core/index.hpp"

// Cases of attention and what others say comes out, as case_file.py writes them.

namespace headwise::conformance {

/// An array of a case: elements of `type` (f16, bf16, f32, f64, i32, i64, bool), packed, last axis fastest.
struct Tensor {
  std::string type;
  std::vector<Index> shape;
  std::vector<char> bytes;

  Index rank() const { return static_cast<Index>(shape.size()); }
  Index size(Index axis) const { return shape.at(static_cast<std::size_t>(axis)); }
  Index count() const;
  /// Element i of all, as a number.
  double operator[](Index i) const;
};

struct Case {
  std::string name;
  std::map<std::string, double> attributes;
  std::map<std::string, Tensor> tensors;

  /// The tensor, or null where the case has none of that name.
  const Tensor* find(const std::string& tensor) const;
  /// The tensor; throws std::out_of_range where there is none.
  const Tensor& at(const std::string& tensor) const { return tensors.at(tensor); }
  double attribute(const std::string& key, double otherwise) const;
  bool has(const std::string& key) const { return attributes.contains(key); }
};

/// A file of cases: read through once for where they are, and each when it is asked for.
class CaseFile {
 public:
  /// A file that is not there is a file without cases. Throws std::runtime_error where it is no file of cases or not whole.
  explicit CaseFile(const std::string& path);

  const std::string& path() const { return path_; }
  bool exists() const { return exists_; }
  /// Cases that the writer says it wrote.
  Index promised() const { return promised_; }
  /// Those that were found.
  const std::vector<std::string>& names() const { return names_; }
  Case read(Index i) const;
  /// Why there is no file, in the writer's words; empty where it left none.
  std::string reason() const;

 private:
  std::string path_;
  bool exists_ = false;
  Index promised_ = 0;
  std::vector<std::string> names_;
  std::vector<std::streamoff> offsets_;
};

}  // namespace headwise::conformance
