// SPDX-License-Identifier: MIT
#include <headwise/headwise.hpp>

const void* table_of_second_unit() { return &headwise::detail::tile_kernels(); }
headwise::Isa isa_of_second_unit() { return headwise::current_isa(); }
