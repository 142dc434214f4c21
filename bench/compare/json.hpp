// SPDX-License-Identifier: MIT
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "headwise/kernel/dispatch.hpp"
#include "machine.hpp"
#include "sample.hpp"

namespace compare {

inline nlohmann::json json_of(const std::vector<Sample>& samples) {
  nlohmann::json all = nlohmann::json::array();
  for (const Sample& sample : samples)
    all.push_back({{"seconds", sample.seconds},
                   {"read_bytes_per_s", sample.limits.read_bandwidth},
                   {"peak_flop_per_s", sample.limits.peak_flops}});
  return all;
}

/// What a run of `threads` threads is told to have run on.
inline nlohmann::json json_of(const Machine& machine, Index threads) {
  return {{"cpu", machine.cpu},
          {"isa", name_of(headwise::current_isa())},
          {"threads", threads},
          {"last_level_cache_bytes", machine.last_level_cache}};
}

/// Throws std::runtime_error where the file cannot be written.
inline void write_file(const std::string& path, const nlohmann::json& document) {
  std::ofstream file(path);
  file << document.dump(1) << "\n";
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

}  // namespace compare
