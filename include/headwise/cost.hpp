// SPDX-License-Identifier: MIT
#pragma once

// What attention costs in parameters, bytes and operations, before anything is built: a layer, a model, a machine's
// least time for it.
#include "headwise/cost/format.hpp"
#include "headwise/cost/step.hpp"
#include "headwise/cost/machine.hpp"
#include "headwise/cost/attention_layer.hpp"
#include "headwise/cost/model_shape.hpp"
#include "headwise/cost/model.hpp"
#include "headwise/cost/known_models.hpp"
#include "headwise/cost/shazeer.hpp"
