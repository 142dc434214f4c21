// SPDX-License-Identifier: MIT
#include "machine.hpp"

#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace compare {

namespace {

// The value of the first "name : value" line of /proc/cpuinfo; not every architecture has a model name there.
std::string cpu_info(const std::string& name) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (const auto colon = line.find(": "); line.starts_with(name) && colon != std::string::npos)
      return line.substr(colon + 2);
  return {};
}

// "266240K" and the like; 0 where there is no such file.
Index read_size(const std::string& path) {
  std::ifstream file(path);
  Index size = 0;
  char unit = 0;
  if (!(file >> size)) return 0;
  file >> unit;
  return unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size;
}

Index last_level_cache() {
  Index largest = 0;
  for (int i = 0; i < 8; ++i)
    largest = std::max(largest, read_size("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/size"));
  return largest;
}

// The smaller of what the machine has and what the control group allows.
Index usable_memory() {
  Index bytes = static_cast<Index>(sysconf(_SC_PHYS_PAGES)) * static_cast<Index>(sysconf(_SC_PAGE_SIZE));
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"})
    if (const Index limit = read_size(path); limit > 0) bytes = std::min(bytes, limit);
  return bytes;
}

}  // namespace

Machine this_machine() {
  Machine machine;
  machine.cpu = cpu_info("model name");
  if (machine.cpu.empty()) machine.cpu = "CPU of unknown name";
  machine.last_level_cache = last_level_cache();
  machine.memory = usable_memory();
  return machine;
}

}  // namespace compare
