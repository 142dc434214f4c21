// SPDX-License-Identifier: MIT
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "compare/figures.hpp"
#include "headwise/core/index.hpp"

namespace caches {

using headwise::Index;

/// One way to do something, timed in turns with the others of its group.
struct Timed {
  std::string name;
  std::function<void()> run;
  Index units = 1;         ///< of what a run does, as the group counts
  Index bytes = 0;         ///< of K and V that a run reads; 0: not told
  double error = 0;        ///< of its output against the definition, relative, worst row
  double error_limit = 0;  ///< what it may be
  std::vector<double> seconds{};

  bool verified() const { return error <= error_limit; }  // false for NaN
  double median() const { return compare::median(seconds); }
};

/// Ways to be compared: the first is the base.
struct Group {
  std::string name, unit;
  std::vector<Timed> ways;

  /// Every way once and then `rounds` times, in turns.
  void measure(int rounds) {
    for (Timed& way : ways) way.run();
    for (int round = 0; round < rounds; ++round)
      for (Timed& way : ways) {
        const auto from = std::chrono::steady_clock::now();
        way.run();
        way.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count());
      }
  }
  /// How many times as fast as the base a way is: the median over the rounds of the ratio within a round.
  double speed_up(const Timed& way) const {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < way.seconds.size(); ++i)
      ratios.push_back(ways.front().seconds[i] / static_cast<double>(ways.front().units) / way.seconds[i] *
                       static_cast<double>(way.units));
    return compare::median(std::move(ratios));
  }
};

}  // namespace caches
