// SPDX-License-Identifier: MIT
#include "tests/conformance/case_file.hpp"

#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "headwise/core/storage.hpp"

namespace headwise::conformance {
namespace {

Index size_of_type(const std::string& type) {
  if (type == "bool") return 1;
  if (type == "f16" || type == "bf16") return 2;
  if (type == "f32" || type == "i32") return 4;
  if (type == "f64" || type == "i64") return 8;
  throw std::runtime_error("unknown type of tensor: " + type);
}

class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(path, std::ios::binary) {}

  std::ifstream& file() { return file_; }

  template <class T>
  T number() {
    T value{};
    bytes(&value, sizeof value);
    return value;
  }
  std::string text() {
    std::string value(number<std::uint32_t>(), '\0');
    bytes(value.data(), value.size());
    return value;
  }
  void bytes(void* to, std::size_t count) {
    file_.read(static_cast<char*>(to), static_cast<std::streamsize>(count));
    if (!file_) throw std::runtime_error(path_ + " ends too early");
  }
  void expect(const char* magic) {
    char found[8];
    bytes(found, sizeof found);
    if (std::memcmp(found, magic, sizeof found) != 0) throw std::runtime_error(path_ + ": expected " + magic);
  }

  /// The next case; without the elements of its tensors where they are not wanted.
  Case next(bool with_elements) {
    Case result;
    result.name = text();
    for (auto left = number<std::uint32_t>(); left > 0; --left) {
      const std::string key = text();
      result.attributes[key] = number<double>();
    }
    for (auto left = number<std::uint32_t>(); left > 0; --left) {
      Tensor& tensor = result.tensors[text()];
      tensor.type = text();
      tensor.shape.resize(number<std::uint32_t>());
      for (Index& size : tensor.shape) size = number<std::int64_t>();
      const auto count = static_cast<std::size_t>(tensor.count() * size_of_type(tensor.type));
      if (with_elements) {
        tensor.bytes.resize(count);
        bytes(tensor.bytes.data(), count);
      } else {
        file_.seekg(static_cast<std::streamoff>(count), std::ios::cur);
      }
    }
    return result;
  }

 private:
  std::string path_;
  std::ifstream file_;
};

template <class T>
double number_at(const std::vector<char>& bytes, Index i) {
  T value;
  std::memcpy(&value, bytes.data() + i * static_cast<Index>(sizeof value), sizeof value);
  return static_cast<double>(value);
}

}  // namespace

Index Tensor::count() const {
  Index all = 1;
  for (const Index size : shape) all *= size;
  return all;
}

double Tensor::operator[](Index i) const {
  if (type == "f32") return number_at<float>(bytes, i);
  if (type == "f64") return number_at<double>(bytes, i);
  if (type == "f16") return static_cast<double>(load_element(bytes.data(), Storage::f16, i));
  if (type == "bf16") return static_cast<double>(load_element(bytes.data(), Storage::bf16, i));
  if (type == "i32") return number_at<std::int32_t>(bytes, i);
  if (type == "i64") return number_at<std::int64_t>(bytes, i);
  return bytes[static_cast<std::size_t>(i)] != 0 ? 1 : 0;
}

const Tensor* Case::find(const std::string& tensor) const {
  const auto found = tensors.find(tensor);
  return found == tensors.end() ? nullptr : &found->second;
}

double Case::attribute(const std::string& key, double otherwise) const {
  const auto found = attributes.find(key);
  return found == attributes.end() ? otherwise : found->second;
}

CaseFile::CaseFile(const std::string& path) : path_(path), exists_(std::filesystem::exists(path)) {
  if (!exists_) return;
  Reader reader(path);
  reader.expect("HWCASES1");
  promised_ = static_cast<Index>(reader.number<std::uint64_t>());
  for (Index i = 0; i < promised_; ++i) {
    offsets_.push_back(reader.file().tellg());
    names_.push_back(reader.next(false).name);
  }
  reader.expect("HWCASEND");
}

Case CaseFile::read(Index i) const {
  Reader reader(path_);
  reader.file().seekg(offsets_.at(static_cast<std::size_t>(i)));
  return reader.next(true);
}

std::string CaseFile::reason() const {
  std::ifstream file(std::filesystem::path(path_).replace_extension(".skipped"));
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace headwise::conformance
