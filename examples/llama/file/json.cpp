// SPDX-License-Identifier: MIT
#include "llama/file/json.hpp"

#include <algorithm>
#include <limits>
#include <unordered_set>
#include <vector>

#include "llama/file/gguf.hpp"
#include "llama/file/mapped_file.hpp"

namespace llama {

namespace {

constexpr int kDeepest = 64;

/// A value for a message: as JSON, in ASCII, long ones cut.
std::string shown(const Json& value) {
  constexpr std::size_t longest = 80;
  const std::string text = value.dump(-1, ' ', true);
  return text.size() > longest ? text.substr(0, longest) + "…" : text;
}

}  // namespace

Json parse_json(std::span<const std::byte> bytes, const std::string& file) {
  const auto fail = [&](const std::string& text) { throw ModelFileError(file + ": " + text); };
  if (std::ranges::find(bytes, std::byte{0}) != bytes.end())  // the parser would take it for the end
    fail("is not JSON: it holds a zero byte");

  std::vector<std::unordered_set<std::string>> keys;  // of each object that is being read
  const auto check = [&](int depth, Json::parse_event_t event, const Json& value) {
    using Event = Json::parse_event_t;
    if (depth > kDeepest) fail("has arrays and objects more than " + std::to_string(kDeepest) + " deep in each other");
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get_ref<const std::string&>()).second)
      fail("has the key " + in_quotes(value.get_ref<const std::string&>()) + " twice in an object");
    return true;
  };
  const char* begin = reinterpret_cast<const char*>(bytes.data());
  try {
    return Json::parse(begin, begin + bytes.size(), check);
  } catch (const Json::parse_error& error) {
    fail("is not JSON: byte " + std::to_string(error.byte) + " of " + std::to_string(bytes.size()) + " is wrong");
  } catch (const Json::out_of_range&) {
    fail("has a number that no double can hold");
  }
  return {};
}

Json read_json(const std::string& path) {
  const MappedFile file(path);
  return parse_json(file.bytes(), path);
}

JsonObject::JsonObject(const Json& value, std::string file, std::string place)
    : file_(std::move(file)), place_(std::move(place)), value_(&value) {
  if (!value.is_object()) fail((place_.empty() ? "" : place_ + " ") + "(" + shown(value) + ") must be a JSON object");
}

bool JsonObject::has(std::string_view key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

const Json& JsonObject::value(std::string_view key) const {
  if (!has(key)) fail(std::string(key) + (place_.empty() ? "" : " of " + place_) + " is missing");
  return *value_->find(key);
}

Index JsonObject::integer(std::string_view key, Index least, Index most) const {
  const Json& held = value(key);
  // an unsigned value of more than 63 bits would come out negative
  const bool fits = held.is_number_integer() && !(held.is_number_unsigned() && held.get<std::uint64_t>() >> 63);
  if (!fits || held.get<Index>() < least || held.get<Index>() > most)
    fail(key, "must be an integer from " + std::to_string(least) + " to " + std::to_string(most));
  return held.get<Index>();
}

double JsonObject::positive(std::string_view key) const {
  const Json& held = value(key);
  using Float = std::numeric_limits<float>;
  if (!held.is_number() || !(held.get<double>() >= Float::min() && held.get<double>() <= Float::max()))
    fail(key, "must be a number above 0 that a float can hold");
  return held.get<double>();
}

bool JsonObject::boolean(std::string_view key, bool otherwise) const {
  if (!has(key)) return otherwise;
  if (!value(key).is_boolean()) fail(key, "must be true or false");
  return value(key).get<bool>();
}

const std::string& JsonObject::text(std::string_view key) const {
  if (!value(key).is_string()) fail(key, "must be a string");
  return value(key).get_ref<const std::string&>();
}

const Json& JsonObject::array(std::string_view key) const {
  if (!value(key).is_array()) fail(key, "must be an array");
  return value(key);
}

JsonObject JsonObject::object(std::string_view key) const {
  return {value(key), file_, std::string(key) + (place_.empty() ? "" : " of " + place_)};
}

void JsonObject::fail(std::string_view key, const std::string& problem) const {
  const std::string held = has(key) ? " (" + shown(value(key)) + ") " : " (absent) ";
  fail(std::string(key) + (place_.empty() ? "" : " of " + place_) + held + problem);
}

void JsonObject::fail(const std::string& text) const { throw ModelFileError(file_ + ": " + text); }

}  // namespace llama
