// SPDX-License-Identifier: MIT
#pragma once

#include "tests/attention/inputs.hpp"
#include "tests/conformance/call.hpp"

namespace headwise::conformance {

/// Gives the options a mask of rank 1 to 4, boolean or of numbers, right-aligned to [sequence][head][query][key] as NumPy
/// broadcasts. Refers to the tensor.
inline void set_mask(Options& options, const Tensor& mask) {
  const auto size = [&](Index axis) {
    const Index own = axis - (4 - mask.rank());
    return own < 0 ? Index{1} : mask.size(own);
  };
  const auto set = [&]<class T>() {
    options.mask = Mask(reinterpret_cast<const T*>(mask.bytes.data()), size(0), size(1), size(2), size(3));
  };
  if (mask.type == "bool") return set.template operator()<bool>();
  headwise::testing::with_type(storage_of(mask), set);
}

}  // namespace headwise::conformance
