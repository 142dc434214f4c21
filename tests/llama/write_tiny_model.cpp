// SPDX-License-Identifier: MIT
// write_tiny_model WHOLE CUT: writes a tiny model to WHOLE, and all but its last byte to CUT.
#include <fstream>
#include <iostream>

#include "tests/llama/tiny_model.hpp"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: write_tiny_model WHOLE CUT\n";
    return 2;
  }
  const auto bytes = llama_test::TinyModel().write().bytes();
  const auto write = [&](const char* path, std::size_t count) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(count));
    return static_cast<bool>(file.flush());
  };
  return write(argv[1], bytes.size()) && write(argv[2], bytes.size() - 1) ? 0 : 1;
}
