// SPDX-License-Identifier: MIT
#include "llama/file/gguf.hpp"

#include "llama/file/gguf_parser.hpp"

namespace llama {

Gguf::Gguf(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  GgufParser(bytes, *this).parse();
}

const Gguf::Value& Gguf::value(std::string_view key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) fail("key " + in_quotes(key) + " is missing");
  return found->second;
}

template <class T>
const T& Gguf::value_as(std::string_view key, const char* expected) const {
  const Value& held = value(key);
  if (const T* wanted = std::get_if<T>(&held)) return *wanted;
  constexpr const char* kinds[] = {"an integer", "an integer above 2^63", "a float", "a boolean", "a string",
                                   "an array"};
  fail("key " + in_quotes(key) + " holds " + kinds[held.index()] + " and must hold " + expected);
}

std::int64_t Gguf::integer(std::string_view key) const { return value_as<std::int64_t>(key, "an integer"); }

double Gguf::number(std::string_view key) const {
  if (const auto* whole = std::get_if<std::int64_t>(&value(key))) return static_cast<double>(*whole);
  return value_as<double>(key, "a number");
}

bool Gguf::boolean(std::string_view key) const { return value_as<bool>(key, "a boolean"); }

std::string_view Gguf::text(std::string_view key) const { return value_as<std::string_view>(key, "a string"); }

const std::vector<std::string_view>& Gguf::texts(std::string_view key) const {
  const Array& array = value_as<Array>(key, "an array of strings");
  if (array.element_type != gguf_type::kString && array.count > 0)
    fail("key " + in_quotes(key) + " must hold an array of strings");
  return array.texts;
}

std::vector<std::int64_t> Gguf::integers(std::string_view key) const {
  const Array& array = value_as<Array>(key, "an array of integers");
  if (!gguf_type::is_integer(array.element_type)) fail("key " + in_quotes(key) + " must hold an array of integers");
  const std::size_t size = gguf_type::size_of(array.element_type);
  std::vector<std::int64_t> values;
  values.reserve(array.count);
  for (std::size_t i = 0; i < array.count; ++i) {
    const std::uint64_t bits = gguf_type::load(array.bytes.subspan(i * size, size), array.element_type);
    if (array.element_type == gguf_type::kU64 && bits >> 63)
      fail("key " + in_quotes(key) + " holds an integer above 2^63 at " + std::to_string(i));
    values.push_back(static_cast<std::int64_t>(bits));
  }
  return values;
}

const Tensor* Gguf::find_tensor(std::string_view name) const {
  const auto found = tensor_of_name_.find(name);
  return found == tensor_of_name_.end() ? nullptr : &tensors_[found->second];
}

const Tensor& Gguf::tensor(std::string_view name) const {
  const Tensor* found = find_tensor(name);
  if (!found) fail("tensor " + in_quotes(name) + " is missing");
  return *found;
}

std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 80;
  constexpr const char* digits = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f)
      out += c;
    else
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
  }
  return out + (text.size() > longest ? "…'" : "'");
}

}  // namespace llama
