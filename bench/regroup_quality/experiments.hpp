// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "evaluator.hpp"

namespace quality {

/// One changed model that is to be measured on every text.
struct Job {
  std::string experiment, name;
  nlohmann::json fields;  // what else is told of it
  std::function<Evaluator::Variant()> make;
};

struct ExperimentOptions {
  std::uint64_t seed = 1;
  std::vector<TokenId> calibration;  // text that chooses groups by activations, none of it measured
};

/// The names of all experiments, in the order they are run.
std::span<const std::string_view> experiment_names();

/// What an experiment measures. Throws std::invalid_argument on an unknown name.
std::vector<Job> jobs_of(std::string_view experiment, Evaluator& evaluator, const ExperimentOptions& options);

struct Measured {
  const Job* job;
  std::size_t text;
  Quality quality;
  Index kv_bytes_per_token;
};

/// Measures the jobs one after another; `done`, if set, is called after each.
std::vector<Measured> run(std::span<const Job> jobs, Evaluator& evaluator,
                          const std::function<void(const Measured&)>& done = {});

}  // namespace quality
