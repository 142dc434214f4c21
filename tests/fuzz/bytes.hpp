// SPDX-License-Identifier: MIT
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <span>
#include <string>

#include "headwise/core/index.hpp"

// What the fuzz targets share: an input as numbers, and how a fault is told.

namespace headwise::fuzz {

/// The fault that a target was made to find: ends the program, which libFuzzer reports with the input.
[[noreturn]] inline void fault(const std::string& what) {
  std::fprintf(stderr, "fault: %s\n", what.c_str());
  std::abort();
}
inline void expect(bool condition, const char* what) {
  if (!condition) fault(what);
}

/// The bytes of an input, first to last; zeros behind them. The same on every compiler, so that inputs can be kept.
class Bytes {
 public:
  explicit Bytes(std::span<const std::uint8_t> bytes) : bytes_(bytes) {}

  bool empty() const { return bytes_.empty(); }
  std::span<const std::uint8_t> rest() const { return bytes_; }

  std::uint8_t byte() {
    if (bytes_.empty()) return 0;
    const std::uint8_t first = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return first;
  }
  Index word() {
    const Index low = byte();
    return low + 256 * byte();
  }
  std::uint32_t bits() { return static_cast<std::uint32_t>(word()) | static_cast<std::uint32_t>(word()) << 16; }
  bool flag() { return byte() % 2 == 1; }
  /// least … most, at most 65536 numbers.
  Index between(Index least, Index most) {
    const Index count = most - least + 1;
    return least + (count <= 256 ? byte() : word()) % count;
  }
  /// Any float: infinities and NaN as well.
  float any_float() { return std::bit_cast<float>(bits()); }
  /// A float of moderate size, −32 … 32.
  float number() { return static_cast<float>(word() - 32768) / 1024.0f; }
  /// Most often least … most, else a number that has been a fault somewhere: around limits, 0 and powers of two.
  Index wild(Index least, Index most) {
    constexpr Index kMax = std::numeric_limits<Index>::max(), kMin = std::numeric_limits<Index>::min();
    constexpr Index kNumbers[] = {-1,
                                  kMin,
                                  kMax,
                                  kMin + 1,
                                  kMax - 1,
                                  0,
                                  1,
                                  63,
                                  64,
                                  65,
                                  1023,
                                  1024,
                                  Index{1} << 31,
                                  Index{1} << 32,
                                  -(Index{1} << 32),
                                  Index{1} << 61,
                                  Index{1} << 62,
                                  -64};
    const std::uint8_t choice = byte();
    if (choice < 192) return between(least, most);
    return kNumbers[choice % std::size(kNumbers)];
  }

 private:
  std::span<const std::uint8_t> bytes_;
};

}  // namespace headwise::fuzz
