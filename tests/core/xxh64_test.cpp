// SPDX-License-Identifier: MIT
#include "headwise/core/xxh64.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace headwise {
namespace {

constexpr std::uint64_t kSeed = 2654435761u;

/// The bytes that the published vectors are of.
std::vector<std::byte> sanity_buffer() {
  std::vector<std::byte> buffer(101);
  std::uint32_t number = 2654435761u;
  for (std::byte& byte : buffer) {
    byte = std::byte(number >> 24);
    number *= number;
  }
  return buffer;
}

TEST(Xxh64, GivesThePublishedVectors) {
  const auto buffer = sanity_buffer();
  const struct {
    std::size_t length;
    std::uint64_t plain, seeded;
  } vectors[] = {{0, 0xef46db3751d8e999u, 0xac75fda2929b17efu},  {1, 0x4fce394cc88952d8u, 0x739840cb819fa723u},
                 {4, 0x9256e58aa397aef1u, 0x09d5ffdfb928ab4bu},  {8, 0xf74cb1451b32b8cfu, 0x9c44b77fbcc302c5u},
                 {14, 0xcffa8db881bc3a3du, 0x5b9611585efcc9cbu}, {32, 0xaf5753d39159edeeu, 0xdcab9233b8ca7b0fu},
                 {101, 0x0eab543384f878adu, 0xcaa65939306f1e21u}};
  for (const auto& vector : vectors) {
    const auto bytes = std::span(buffer).first(vector.length);
    EXPECT_EQ(Xxh64::of(bytes), vector.plain) << vector.length;
    EXPECT_EQ(Xxh64::of(bytes, kSeed), vector.seeded) << vector.length;
  }
  EXPECT_EQ(Xxh64::of(std::as_bytes(std::span("abc", 3))), 0x44bc2cf5ad770999u);
}

TEST(Xxh64, DoesNotDependOnThePiecesThatBytesComeIn) {
  const auto buffer = sanity_buffer();
  for (std::size_t piece = 1; piece <= buffer.size(); ++piece) {
    Xxh64 sum(kSeed);
    sum.update({});
    for (std::size_t at = 0; at < buffer.size(); at += piece)
      sum.update(std::span(buffer).subspan(at, std::min(piece, buffer.size() - at)));
    EXPECT_EQ(sum.digest(), 0xcaa65939306f1e21u) << piece;
  }
}

}  // namespace
}  // namespace headwise
