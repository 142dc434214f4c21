// SPDX-License-Identifier: MIT
#pragma once

// Methods that make and choose head groups. Needs Eigen, as nn.hpp does.
#include "headwise/nn.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/module.hpp"
// making groups
#include "headwise/regroup/pooling.hpp"
#include "headwise/regroup/alignment.hpp"
#include "headwise/regroup/permutation.hpp"
#include "headwise/regroup/degrouping.hpp"
// choosing them
#include "headwise/regroup/activations.hpp"
#include "headwise/regroup/pooling_error.hpp"
#include "headwise/regroup/search.hpp"
