// SPDX-License-Identifier: MIT
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

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

}  // namespace compare
