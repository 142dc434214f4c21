// SPDX-License-Identifier: MIT
#include "llama/file/dequantize.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

namespace llama {
namespace {

using headwise::from_f16_bits;
using headwise::to_f16_bits;

std::vector<float> dequantized(TensorType type, const std::vector<std::uint8_t>& bytes) {
  const BlockFormat& format = *find_block_format(static_cast<std::uint32_t>(type));
  const Index count = std::ssize(bytes) / format.bytes * format.elements;
  std::vector<float> out(static_cast<std::size_t>(count));
  dequantize(format, reinterpret_cast<const std::byte*>(bytes.data()), count, out.data());
  return out;
}

// What gguf 0.19.0 (the reference implementation in Python) makes of one block with bytes 37·i + 11 mod 256, except for
// d = 2c66 and m = b0cd (f16 bits) in the places of the format.
struct Golden {
  TensorType type;
  std::vector<std::pair<std::size_t, float>> values;  // index, value
};
const std::vector<Golden>& golden() {
  static const std::vector<Golden> all = {
      // clang-format off
    {TensorType::f32, {{0, 0x1.aa6016p+117f}}},
    {TensorType::f16, {{0, 0x1.02cp-3f}}},
    {TensorType::bf16, {{0, 0x1.16p-31f}}},
    {TensorType::q4_0, {{0, -0x1.a64p-3f}, {1, 0x1.198p-3f}, {15, -0x1.198p-1f}, {16, -0x1.a64p-3f},
      {17, -0x1.198p-4f}, {31, 0x0p+0f}}},
    {TensorType::q4_1, {{0, 0x1.c3p-1f}, {1, 0x1.ff8p-4f}, {15, 0x1.131p-1f}, {16, 0x1.dfcp-2f}, {17, 0x1.597p-1f},
      {31, 0x1.597p-1f}}},
    {TensorType::q5_0, {{0, 0x1.3cbp-1f}, {1, -0x1.198p-3f}, {15, -0x1.a64p-1f}, {16, 0x1.ecap-1f}, {17, 0x0p+0f},
      {31, 0x1.198p-4f}}},
    {TensorType::q5_1, {{0, 0x1.27ep+0f}, {1, 0x1.7fd8p+0f}, {15, 0x1.e968p+0f}, {16, 0x1.27ep+0f}, {17, 0x1.8c8p-3f},
      {31, 0x1.8c8p-3f}}},
    {TensorType::q8_0, {{0, 0x1.75dep+2f}, {1, 0x1.0c4ep+3f}, {15, -0x1.198p+3f}, {16, -0x1.9042p+2f},
      {17, -0x1.db08p+1f}, {31, -0x1.a64p+1f}}},
    {TensorType::q4_k, {{0, 0x1.f163p+4f}, {1, 0x1.e9aep+2f}, {15, 0x1.46f28p+4f}, {16, 0x1.f163p+4f},
      {17, 0x1.e9aep+2f}, {31, 0x1.46f28p+4f}, {32, 0x1.3e68p+2f}, {33, 0x1.733p+2f}, {63, 0x1.cb28p+2f},
      {64, 0x1.412c8p+5f}, {95, 0x1.a0ed8p+4f}, {100, 0x1.998ap+3f}, {127, 0x1.7acp+3f}, {128, 0x1.f4898p+4f},
      {160, 0x1.4ce68p+5f}, {200, 0x1.94e6p+3f}, {255, 0x1.392dp+3f}}},
    {TensorType::q6_k, {{0, -0x1.8962ap+6f}, {1, 0x1.d23cp+6f}, {15, -0x1.5dadp+4f}, {16, -0x1.db08p+4f},
      {17, 0x1.198p+5f}, {31, -0x1.a64p+2f}, {32, 0x1.fc05p+3f}, {33, -0x1.7178p+5f}, {63, -0x1.3ee3p+5f},
      {64, -0x1.a1dap+7f}, {95, 0x1.990ep+7f}, {100, 0x1.5aca1p+7f}, {127, 0x1.9c5a8p+6f}, {128, -0x1.81f68p+4f},
      {160, 0x1.70eb4p+5f}, {200, 0x1.2b5e6p+6f}, {255, -0x1.07e8p+2f}}},
      // clang-format on
  };
  return all;
}

std::vector<std::uint8_t> golden_block(TensorType type) {
  const BlockFormat& format = *find_block_format(static_cast<std::uint32_t>(type));
  std::vector<std::uint8_t> block(static_cast<std::size_t>(format.bytes));
  for (std::size_t i = 0; i < block.size(); ++i) block[i] = static_cast<std::uint8_t>(37 * i + 11);
  const auto set = [&](std::size_t at, std::uint16_t bits) {
    block[at] = static_cast<std::uint8_t>(bits);
    block[at + 1] = static_cast<std::uint8_t>(bits >> 8);
  };
  if (type == TensorType::q6_k) {
    set(208, 0x2c66);
  } else if (format.elements > 1) {
    set(0, 0x2c66);
    if (type == TensorType::q4_1 || type == TensorType::q5_1 || type == TensorType::q4_k) set(2, 0xb0cd);
  }
  return block;
}

class Dequantize : public testing::TestWithParam<Golden> {};

TEST_P(Dequantize, GivesWhatTheReferenceImplementationGives) {
  const auto values = dequantized(GetParam().type, golden_block(GetParam().type));
  for (const auto& [index, value] : GetParam().values) EXPECT_EQ(values.at(index), value) << "element " << index;
}

TEST_P(Dequantize, TakesBlocksOneAfterAnotherAtAnyAlignment) {
  const auto block = golden_block(GetParam().type);
  const auto one = dequantized(GetParam().type, block);
  std::vector<std::uint8_t> shifted(1);
  for (int i = 0; i < 3; ++i) shifted.insert(shifted.end(), block.begin(), block.end());
  const BlockFormat& format = *find_block_format(static_cast<std::uint32_t>(GetParam().type));
  std::vector<float> all(3 * one.size());
  dequantize(format, reinterpret_cast<const std::byte*>(shifted.data() + 1), std::ssize(all), all.data());
  for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], one[i % one.size()]) << "element " << i;
}

INSTANTIATE_TEST_SUITE_P(Types, Dequantize, testing::ValuesIn(golden()), [](const auto& test) {
  return std::string(find_block_format(static_cast<std::uint32_t>(test.param.type))->name);
});

TEST(DequantizeTest, EveryTypeHasAGoldenBlock) {
  for (const BlockFormat& format : kBlockFormats)
    EXPECT_TRUE(std::ranges::any_of(golden(), [&](const Golden& one) { return one.type == format.type; }))
        << format.name;
}

// The other way round: codes, scales and offsets are chosen, packed into a block, and must come back as
// step·code + base. Codes and packing are in exact integers; every product here is exact in float, so values are
// compared for equality.
struct Packed {
  std::vector<std::uint8_t> bytes;
  std::vector<double> expected;
};

class Packer {
 public:
  explicit Packer(unsigned seed) : random_(seed) {}
  int code(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  /// A small f16 number, appended to the bytes.
  double half(std::vector<std::uint8_t>& bytes) {
    const std::uint16_t bits = to_f16_bits(static_cast<float>(code(2001) - 1000) / 512.0f);
    bytes.push_back(static_cast<std::uint8_t>(bits));
    bytes.push_back(static_cast<std::uint8_t>(bits >> 8));
    return from_f16_bits(bits);
  }

  /// 4- and 5-bit blocks of 32, with an offset in the file or a fixed middle code.
  Packed simple(int bits, bool offset) {
    Packed out;
    const double d = half(out.bytes), m = offset ? half(out.bytes) : -d * (1 << (bits - 1));
    std::vector<int> codes(32);
    for (int& c : codes) c = code(1 << bits);
    if (bits == 5)
      for (std::size_t byte = 0; byte < 4; ++byte) {
        int high = 0;
        for (std::size_t i = 0; i < 8; ++i) high |= (codes[8 * byte + i] >> 4) << i;
        out.bytes.push_back(static_cast<std::uint8_t>(high));
      }
    for (std::size_t i = 0; i < 16; ++i)
      out.bytes.push_back(static_cast<std::uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4));
    for (const int c : codes) out.expected.push_back(d * c + m);
    return out;
  }

  Packed q4_k() {
    Packed out;
    const double d = half(out.bytes), m = half(out.bytes);
    int scale[8], offset[8], codes[8][32];
    std::uint8_t packed[12] = {};
    for (int j = 0; j < 8; ++j) {
      scale[j] = code(64), offset[j] = code(64);
      if (j < 4) {
        packed[j] |= static_cast<std::uint8_t>(scale[j]);
        packed[j + 4] |= static_cast<std::uint8_t>(offset[j]);
      } else {
        packed[j + 4] = static_cast<std::uint8_t>((scale[j] & 15) | (offset[j] & 15) << 4);
        packed[j - 4] |= static_cast<std::uint8_t>((scale[j] >> 4) << 6);
        packed[j] |= static_cast<std::uint8_t>((offset[j] >> 4) << 6);
      }
      for (int& c : codes[j]) {
        c = code(16);
        out.expected.push_back(d * scale[j] * c - m * offset[j]);
      }
    }
    out.bytes.insert(out.bytes.end(), packed, packed + 12);
    for (int pair = 0; pair < 4; ++pair)
      for (int i = 0; i < 32; ++i)
        out.bytes.push_back(static_cast<std::uint8_t>(codes[2 * pair][i] | codes[2 * pair + 1][i] << 4));
    return out;
  }

  Packed q6_k() {
    Packed out;
    std::vector<std::uint8_t> low(128), high(64), d_bytes;
    int scales[16];
    for (int& scale : scales) scale = code(256) - 128;
    const double d = half(d_bytes);
    for (std::size_t i = 0; i < 256; ++i) {
      const int c = code(64);
      const std::size_t part = i / 128, quarter = i % 128 / 32, lane = i % 32;
      low[64 * part + 32 * (quarter % 2) + lane] |= static_cast<std::uint8_t>((c & 15) << (quarter < 2 ? 0 : 4));
      high[32 * part + lane] |= static_cast<std::uint8_t>((c >> 4) << (2 * quarter));
      // rounded to float after each product, as the format defines it
      out.expected.push_back(static_cast<float>(d * scales[i / 16]) * static_cast<float>(c - 32));
    }
    out.bytes = low;
    out.bytes.insert(out.bytes.end(), high.begin(), high.end());
    for (const int scale : scales) out.bytes.push_back(static_cast<std::uint8_t>(scale));
    out.bytes.insert(out.bytes.end(), d_bytes.begin(), d_bytes.end());
    return out;
  }

 private:
  std::mt19937 random_;
};

void expect_unpacked(TensorType type, const Packed& packed) {
  const auto values = dequantized(type, packed.bytes);
  ASSERT_EQ(values.size(), packed.expected.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(values[i], static_cast<float>(packed.expected[i])) << "element " << i;
}

TEST(DequantizeTest, PackedCodesComeBack) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    Packer packer(seed);
    expect_unpacked(TensorType::q4_0, packer.simple(4, false));
    expect_unpacked(TensorType::q4_1, packer.simple(4, true));
    expect_unpacked(TensorType::q5_0, packer.simple(5, false));
    expect_unpacked(TensorType::q5_1, packer.simple(5, true));
    expect_unpacked(TensorType::q4_k, packer.q4_k());
    expect_unpacked(TensorType::q6_k, packer.q6_k());
  }
}

TEST(DequantizeTest, EightBitCodesAreSigned) {
  std::vector<std::uint8_t> block = {0x00, 0x38};  // d = 0.5
  for (int i = 0; i < 32; ++i) block.push_back(static_cast<std::uint8_t>(i * 8 - 128));
  const auto values = dequantized(TensorType::q8_0, block);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(values[static_cast<std::size_t>(i)], 0.5f * static_cast<float>(i * 8 - 128));
}

TEST(DequantizeTest, PlainTypesAreConverted) {
  EXPECT_THAT(dequantized(TensorType::f32, {0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc1}), testing::ElementsAre(1.0f, -10.0f));
  EXPECT_THAT(dequantized(TensorType::f16, {0x00, 0x3c, 0x00, 0xc9, 0x01, 0x00}),
              testing::ElementsAre(1.0f, -10.0f, 0x1p-24f));
  EXPECT_THAT(dequantized(TensorType::bf16, {0x80, 0x3f, 0x20, 0xc1}), testing::ElementsAre(1.0f, -10.0f));
}

}  // namespace
}  // namespace llama
