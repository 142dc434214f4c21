// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "command_line.hpp"
#include "headwise/regroup/search/activations.hpp"
#include "headwise/regroup/partition.hpp"

namespace regroup_tool {

using headwise::regroup::AttentionWeights;
using headwise::regroup::Partition;

/// How the KV heads of each layer are to be divided, and what that costs by the method's own measure.
struct Grouping {
  Partition partition;
  double error;
};

/// The activations of calibration text, asked for only by the methods that need them: [layer].
using Calibrate = std::function<std::vector<headwise::regroup::ActivationStatistics>()>;

/// The groups of every layer, as the command line wants them. QCQA's front over layers is also written and printed if that
/// was asked for. Throws std::invalid_argument where that cannot be, naming the layer.
std::vector<Grouping> choose_groups(const CommandLine& line, std::span<const AttentionWeights> layers,
                                    const Calibrate& calibrate);

}  // namespace regroup_tool
