// SPDX-License-Identifier: MIT
#pragma once

// Methods that make and choose head groups. Needs Eigen, as nn.hpp does.
#include "headwise/nn.hpp"
#include "headwise/regroup/key_driven.hpp"
#include "headwise/regroup/key_driven_allocation.hpp"
#include "headwise/regroup/partition.hpp"
