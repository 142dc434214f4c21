// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "headwise/reference.hpp"
#include "headwise/score/options.hpp"

namespace scores {

using headwise::Index;
using headwise::Options;
using headwise::reference::Parameters;

/// One thing to ask of a call beyond plain causal attention, and what it means.
struct Variant {
  std::string name;
  std::function<void(Options&)> ask = [](Options&) {};
  std::function<void(Parameters&)> define = [](Parameters&) {};  // the same, for the definition
  double decode_limit = 0, prefill_limit = 0;  // most per cent that it may take longer than its base; 0: none is set
  std::string base = "causal";                 // the variant that it is compared with
  Index keys = 0;                              // of so many of the keys only; 0: all
};

/// Those that are measured, for so many query heads; the bases stand before what is compared with them. They refer to what
/// they need for as long as the program runs.
std::vector<Variant> score_variants(Index num_heads);
/// For decoding a long text.
std::vector<Variant> window_variants();

}  // namespace scores
