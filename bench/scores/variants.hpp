// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "scores/call.hpp"

namespace scores {

/// Most per cent that something may take longer than its base; unset: no limit.
struct Limits {
  std::optional<double> decode{}, prefill{};
};
inline constexpr Limits kNoLimit{}, kBuiltIn{2, 5}, kOwnFunction{{}, 15}, kMass{10, 10}, kNoMore{0, 0};

/// One thing to ask of a call beyond plain causal attention, and what it means.
struct Variant {
  std::string name;
  std::function<void(Call&)> ask = [](Call&) {};
  std::function<void(Definition&)> define = [](Definition&) {};  // the same, for the definition
  Limits limits{};
  std::string base = "causal";  // the variant that it is compared with
  Index keys = 0;               // of so many of the keys only; 0: all
};

/// The masks of a call that are no intervals, element by element.
void define_masks(Definition& definition);

// What is measured, a file for each; bases stand before what is compared with them.
std::vector<Variant> mask_variants(const Shape& shape);      // what hides keys
std::vector<Variant> score_variants(const Shape& shape);     // what changes scores
std::vector<Variant> output_variants(const Shape& shape);    // what is given beside the output
std::vector<Variant> position_variants(const Shape& shape);  // norm and RoPE of queries
std::vector<Variant> window_variants(const Shape& shape);    // decoding of a long text by its last tokens
std::vector<Variant> draft_variants(const Shape& shape);     // verifying a tree of draft tokens

}  // namespace scores
