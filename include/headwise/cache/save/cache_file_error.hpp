// SPDX-License-Identifier: MIT
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "headwise/core/index.hpp"

namespace headwise {

/// A saved cache that is damaged, or cannot be written or read. The text names the file, what is wrong and where.
class CacheFileError : public std::runtime_error {
 public:
  CacheFileError(const std::string& text, Index offset, std::error_code code = {})
      : std::runtime_error(text), offset_(offset), code_(code) {}

  /// Byte of the file, counted from 0, at which the fault shows.
  Index offset() const noexcept { return offset_; }
  /// The system's reason, such as std::errc::no_space_on_device; none where the bytes themselves are at fault.
  const std::error_code& code() const noexcept { return code_; }

 private:
  Index offset_;
  std::error_code code_;
};

namespace detail {

/// Throws CacheFileError "headwise: <name>: <parts...> (at byte <offset>)".
template <class... Parts>
[[noreturn]] void fail_file(std::string_view name, Index offset, const Parts&... parts) {
  std::ostringstream text;
  text << "headwise: " << name << ": ";
  (text << ... << parts);
  text << " (at byte " << offset << ")";
  throw CacheFileError(text.str(), offset);
}

/// The same for what the system refuses: "headwise: <name>: <what>: <reason> (at byte <offset>)".
[[noreturn]] inline void fail_system(std::string_view name, Index offset, std::string_view what, int error) {
  const std::error_code code(error, std::generic_category());
  std::ostringstream text;
  text << "headwise: " << name << ": " << what << ": " << code.message() << " (at byte " << offset << ")";
  throw CacheFileError(text.str(), offset, code);
}

}  // namespace detail

}  // namespace headwise
