// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <type_traits>

namespace headwise {

namespace detail {

/// A part of a message without its type: hundreds of messages, each of other types, share the code that writes them.
struct MessagePart {
  const void* value;
  void (*write)(std::ostream&, const void* value);
};

template <class T>
void write_part(std::ostream& out, const void* value) {
  out << *static_cast<const T*>(value);
}
inline void write_text(std::ostream& out, const void* text) { out << static_cast<const char*>(text); }

template <class T>
MessagePart message_part(const T& value) {
  if constexpr (std::is_array_v<T>)
    return {value, write_text};
  else
    return {std::addressof(value), write_part<T>};
}

template <class Error>
[[noreturn, gnu::noinline, gnu::cold]] void throw_error(const MessagePart* parts, std::size_t count) {
  std::ostringstream text;
  text << "headwise: ";
  for (std::size_t i = 0; i < count; ++i) parts[i].write(text, parts[i].value);
  throw Error(text.str());
}

/// Throws an Error with the text "headwise: <parts...>".
template <class Error, class... Parts>
[[noreturn, gnu::noinline, gnu::cold]] void fail_with(const Parts&... parts) {
  const MessagePart all[] = {message_part(parts)...};
  throw_error<Error>(all, sizeof...(parts));
}

}  // namespace detail

/// Throws std::invalid_argument with the text "headwise: <parts...>". Every message of the library names the
/// argument, its value and what was expected, as in
///   headwise: num_heads (30) must be a multiple of num_kv_heads (8)
template <class... Parts>
[[noreturn, gnu::noinline, gnu::cold]] void fail(const Parts&... parts) {
  detail::fail_with<std::invalid_argument>(parts...);
}

/// fail(parts...) unless `condition` holds. The parts are turned into text only on failure.
template <class... Parts>
constexpr void require(bool condition, const Parts&... parts) {
  if (!condition) [[unlikely]]
    fail(parts...);
}

}  // namespace headwise
