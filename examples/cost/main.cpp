// SPDX-License-Identifier: MIT
// What attention costs before anything is built: a model beside its siblings with more and fewer KV heads.
//
//   cost --model Llama-3-8B --context 8192 --memory 24
//   cost --hidden 2048 --heads 32 --kv-heads 32,8,1 --layers 24 --dtype int8
//
// Counts are exact; times are the least that the machine's limits allow (--bandwidth, --flops), not measurements.
#include <cstdio>
#include <exception>
#include <iostream>

#include "command_line.hpp"
#include "table.hpp"

int main(int argc, char** argv) {
  try {
    int exit_code = 0;
    const auto line = example::read_command_line(argc, argv, exit_code);
    if (!line) return exit_code;
    switch (line->task) {
      case example::Task::print_model:
        example::print_model(std::cout, *line);
        break;
      case example::Task::list_models:
        example::print_list(std::cout);
        break;
      case example::Task::print_shazeer:
        example::print_shazeer(std::cout);
        break;
    }
    if (std::cout.flush()) return 0;
    std::fprintf(stderr, "cost: stdout cannot be written\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cost: %s\n", error.what());
  }
  return 1;
}
