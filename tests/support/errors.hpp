// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

namespace headwise::testing {

/// The message of the std::invalid_argument that f() throws; a failure when it throws nothing.
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  ADD_FAILURE() << "expected std::invalid_argument, nothing was thrown";
  return {};
}

/// f() throws std::invalid_argument, a message of the library that has each part: the argument with its value, and what
/// was expected.
template <class F>
void expect_error(F&& f, std::initializer_list<std::string_view> parts) {
  const std::string message = error_of(f);
  EXPECT_EQ(message.rfind("headwise: ", 0), 0u) << message;
  for (const std::string_view part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << message << "\" should have \"" << part << "\"";
}

}  // namespace headwise::testing
