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

// choosing them by activations (AsymGQA)
#include "headwise/regroup/activations.hpp"
#include "headwise/regroup/pooling_error.hpp"
#include "headwise/regroup/search.hpp"

// choosing them by weights, error against capacity (QCQA)
#include "headwise/regroup/weight_sharing_error.hpp"
#include "headwise/regroup/pareto.hpp"
#include "headwise/regroup/nsga2.hpp"
#include "headwise/regroup/refine.hpp"
#include "headwise/regroup/qcqa.hpp"
#include "headwise/regroup/qcqa_layers.hpp"
#include "headwise/regroup/qcqa_output.hpp"

// choosing them while decoding, by the norms of the keys (KDGQA, DGQA)
#include "headwise/regroup/key_driven_allocation.hpp"
#include "headwise/regroup/key_driven.hpp"
