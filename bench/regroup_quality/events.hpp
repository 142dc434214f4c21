// SPDX-License-Identifier: MIT
#pragma once

#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

namespace quality {

/// What the program tells those who run it: JSON lines on stdout (quality/stream.py has the contract).
class Events {
 public:
  void start(nlohmann::json settings, int steps) {
    settings["steps"] = steps;
    print("start", std::move(settings));
  }
  void result(nlohmann::json fields) { print("result", std::move(fields)); }
  void done() { print("done", nlohmann::json::object()); }

 private:
  void print(const char* event, nlohmann::json fields) {
    fields["event"] = event;
    std::cout << fields.dump() << std::endl;  // a line at a time, for a progress bar
  }
};

}  // namespace quality
