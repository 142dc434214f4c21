// SPDX-License-Identifier: MIT
#pragma once

#include <ostream>

#include "experiments.hpp"

namespace quality {

/// Measures what is said to hold on a real model without training, tells every figure, and returns whether it holds:
///   - one layer to one KV head: the median loss grows from mean over first to random, and random is worst in every layer;
///   - repeating KV heads and shuffling them changes nothing, pooling over the groups found by activations neither, and
///     pooling over neighbours of the shuffled heads breaks the model;
///   - the eight layers with the lowest weight-sharing error cost far less to convert than the eight with the highest.
/// `done` is called after each measurement.
bool check_evidence(Evaluator& evaluator, const ExperimentOptions& options, std::ostream& out,
                    const std::function<void(const Measured&)>& done = {});

}  // namespace quality
