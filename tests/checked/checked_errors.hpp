// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

#include "headwise/headwise.hpp"

static_assert(headwise::kChecked);

namespace headwise::testing {

/// f() throws std::out_of_range, a message of the library that has each part: the index by its name, its value, the bound.
template <class F>
void expect_index_error(F&& f, std::initializer_list<std::string_view> parts) {
  std::string message;
  try {
    f();
    ADD_FAILURE() << "expected std::out_of_range, nothing was thrown";
    return;
  } catch (const std::out_of_range& error) {
    message = error.what();
  } catch (const std::exception& error) {
    ADD_FAILURE() << "expected std::out_of_range, not: " << error.what();
    return;
  }
  EXPECT_EQ(message.rfind("headwise: ", 0), 0u) << message;
  for (const std::string_view part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << "\"" << message << "\" should have \"" << part << "\"";
}

}  // namespace headwise::testing
