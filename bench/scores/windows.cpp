// SPDX-License-Identifier: MIT
#include "scores/variants.hpp"

namespace scores {

std::vector<Variant> window_variants(const Shape& shape) {
  const Index chunk = 1024, in_chunk = (shape.keys - 1) % chunk + 1;
  const std::string last = std::to_string(in_chunk) + " keys";
  return {
      {"causal"},
      {.name = "1152 keys", .keys = 1152},
      {.name = last, .keys = in_chunk},
      {"window 1024", [](Call& c) { c.options.window = 1024; }, [](Definition& d) { d.parameters.window = 1024; },
       kNoMore, "1152 keys"},
      {"window 1024, 4 sink tokens",
       [](Call& c) {
         c.options.window = 1024;
         c.options.num_sink_tokens = 4;
       },
       [](Definition& d) {
         d.parameters.window = 1024;
         d.parameters.num_sink_tokens = 4;
       },
       kNoMore, "1152 keys"},
      {"chunks of 1024", [=](Call& c) { c.options.chunk_size = chunk; },
       [=](Definition& d) { d.parameters.chunk_size = chunk; }, kBuiltIn, last},
  };
}

}  // namespace scores
