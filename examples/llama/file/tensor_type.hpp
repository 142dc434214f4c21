// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string_view>

#include "headwise/core/index.hpp"

namespace llama {

using headwise::Index;

/// How a tensor's numbers are stored, by the number a GGUF file gives it.
enum class TensorType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q4_k = 12,
  q6_k = 14,
  bf16 = 30,
};

/// A tensor is a sequence of blocks: `elements` numbers in `bytes` bytes. Rows are whole numbers of blocks.
struct BlockFormat {
  TensorType type;
  std::string_view name;
  Index elements;
  Index bytes;
};

inline constexpr BlockFormat kBlockFormats[] = {
    {TensorType::f32, "F32", 1, 4},       {TensorType::f16, "F16", 1, 2},     {TensorType::bf16, "BF16", 1, 2},
    {TensorType::q4_0, "Q4_0", 32, 18},   {TensorType::q4_1, "Q4_1", 32, 20}, {TensorType::q5_0, "Q5_0", 32, 22},
    {TensorType::q5_1, "Q5_1", 32, 24},   {TensorType::q8_0, "Q8_0", 32, 34}, {TensorType::q4_k, "Q4_K", 256, 144},
    {TensorType::q6_k, "Q6_K", 256, 210},
};
inline constexpr std::string_view kBlockFormatNames = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q6_K";

/// The format with that number in a file; null when it is not one of these.
constexpr const BlockFormat* find_block_format(std::uint32_t type) {
  for (const BlockFormat& format : kBlockFormats)
    if (static_cast<std::uint32_t>(format.type) == type) return &format;
  return nullptr;
}

}  // namespace llama
