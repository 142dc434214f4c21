// SPDX-License-Identifier: MIT
#if !defined(HEADWISE_CHECKED)
#define HEADWISE_CHECKED
#endif
#include "headwise/core/view.hpp"

float last_of(headwise::View<const float> view);
float last_of(headwise::View<const float> view) { return view(0, 0, 0, view.dim() - 1); }
