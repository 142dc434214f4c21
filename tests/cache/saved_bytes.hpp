// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <span>
#include <sstream>
#include <string>
#include <string_view>

#include "headwise/cache/save.hpp"
#include "headwise/core/xxh64.hpp"

namespace headwise::testing {

/// What save writes to a stream.
template <class C>
std::string saved(const C& cache, Index sequence = 0) {
  std::ostringstream stream;
  save(cache, sequence, stream);
  return std::move(stream).str();
}
template <class C>
void restore_bytes(C& cache, Index sequence, const std::string& bytes) {
  std::istringstream stream(bytes);
  restore(cache, sequence, stream);
}

/// A path in the folder of temporary files, of this process and this object alone; what is there goes with it.
class TemporaryPath {
 public:
  TemporaryPath() : path_(::testing::TempDir() + "headwise_save_XXXXXX") {
    const int file = ::mkstemp(path_.data());
    if (file >= 0) ::close(file);
  }
  ~TemporaryPath() { ::unlink(path_.c_str()); }
  TemporaryPath(const TemporaryPath&) = delete;
  TemporaryPath& operator=(const TemporaryPath&) = delete;
  const std::string& string() const { return path_; }

 private:
  std::string path_;
};

template <class Number>
Number number_at(const std::string& bytes, std::size_t offset) {
  Number number;
  std::memcpy(&number, bytes.data() + offset, sizeof number);
  return number;
}
template <class Number>
void put_at(std::string& bytes, std::size_t offset, Number number) {
  std::memcpy(bytes.data() + offset, &number, sizeof number);
}
/// Gives a header that was changed its checksum, so that what is found in it are its fields.
inline void sign_header(std::string& bytes) {
  const auto end = static_cast<std::size_t>(number_at<std::int64_t>(bytes, 16)) - 8;
  put_at(bytes, end, Xxh64::of(std::as_bytes(std::span(bytes.data(), end))));
}

/// The CacheFileError that f() throws, with a text that has each part.
template <class F>
CacheFileError expect_file_error(F&& f, std::initializer_list<std::string_view> parts) {
  try {
    f();
  } catch (const CacheFileError& error) {
    const std::string_view text = error.what();
    EXPECT_EQ(text.rfind("headwise: ", 0), 0u) << text;
    for (const std::string_view part : parts)
      EXPECT_NE(text.find(part), std::string_view::npos) << "\"" << text << "\" should have \"" << part << "\"";
    return error;
  }
  ADD_FAILURE() << "expected CacheFileError, nothing was thrown";
  return CacheFileError("", -1);
}

}  // namespace headwise::testing
