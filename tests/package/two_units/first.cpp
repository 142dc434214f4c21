// SPDX-License-Identifier: MIT
// Both units include everything. They link (no symbol is defined twice) and share the kernel tables and the choice of ISA.
#include <headwise/headwise.hpp>

#include <cstdio>

const void* table_of_second_unit();
headwise::Isa isa_of_second_unit();

int main() {
  for (const headwise::Isa isa : headwise::available_isas()) {
    headwise::set_isa(isa);
    if (isa_of_second_unit() != isa || table_of_second_unit() != &headwise::detail::tile_kernels()) {
      std::printf("set_isa(%s) in one translation unit is not seen in the other\n", headwise::name_of(isa).data());
      return 1;
    }
  }
}
