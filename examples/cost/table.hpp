// SPDX-License-Identifier: MIT
#pragma once

#include <ostream>

#include "command_line.hpp"

namespace example {

/// One row for the model and for each sibling: MHA first, the fewest KV heads last.
void print_model(std::ostream& out, const CommandLine& line);

/// Every published model with its heads, parameters and bytes per token.
void print_list(std::ostream& out);

/// Shazeer's memory per multiply-add, exact and as published, and the rows of his table of equal parameters.
void print_shazeer(std::ostream& out);

}  // namespace example
