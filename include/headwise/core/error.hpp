// SPDX-License-Identifier: MIT
#pragma once

#include <sstream>
#include <stdexcept>
#include <string_view>

namespace headwise {

/// Throws std::invalid_argument with the text "headwise: <parts...>". Every message of the library names the
/// argument, its value and what was expected, as in
///   headwise: num_heads (30) must be a multiple of num_kv_heads (8)
template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream text;
  text << "headwise: ";
  (text << ... << parts);
  throw std::invalid_argument(text.str());
}

/// fail(parts...) unless `condition` holds. The parts are turned into text only on failure.
template <class... Parts>
constexpr void require(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(parts...);
}

}  // namespace headwise
