// SPDX-License-Identifier: MIT
#pragma once

// The modules of models on top of the kernels; needs Eigen 3.4 (core only). In reading order.
#include "headwise/headwise.hpp"
#include "headwise/nn/check_sharing.hpp"
#include "headwise/nn/linear.hpp"
#include "headwise/nn/multi_head_attention.hpp"
#include "headwise/nn/multi_head_attention_options.hpp"
