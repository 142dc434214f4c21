// SPDX-License-Identifier: MIT
#pragma once

// Methods that make and choose head groups. Needs Eigen, as nn.hpp does.
#include "headwise/nn.hpp"

// what is grouped
#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/module.hpp"
#include "headwise/regroup/partition.hpp"

// making groups: pooled projections, heads moved and repeated
#include "headwise/regroup/convert/alignment.hpp"
#include "headwise/regroup/convert/degrouping.hpp"
#include "headwise/regroup/convert/permutation.hpp"
#include "headwise/regroup/convert/pooling.hpp"

// choosing them by activations (AsymGQA)
#include "headwise/regroup/search/activations.hpp"
#include "headwise/regroup/search/asym_gqa.hpp"
#include "headwise/regroup/search/pooling_error.hpp"

// choosing them by weights, error against capacity (QCQA)
#include "headwise/regroup/qcqa/layer.hpp"
#include "headwise/regroup/qcqa/layers.hpp"
#include "headwise/regroup/qcqa/output.hpp"
#include "headwise/regroup/qcqa/weight_sharing_error.hpp"

// choosing them while decoding, by the norms of the keys (KDGQA, DGQA)
#include "headwise/regroup/key_driven/groups.hpp"
