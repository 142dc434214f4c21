// SPDX-License-Identifier: MIT
// Faults of numbers as they are stored, and of sizes.
#include "tests/attention/oracle.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace headwise {
namespace {

using namespace testing;

// ik_llama.cpp 217: scores over keys of f16 were summed in f16; sums here go beyond what f16 holds
TEST(StorageFaults, ScoresOverKeysOfF16AreSummedInF32) {
  for (const Storage storage : {Storage::f16, Storage::bf16}) {
    Inputs in({2, 1, 256}, 1, 1, 200);
    for (float& x : in.q) x *= 32;
    for (float& x : in.k) x *= 32;  // products of 2^13, 256 of them: 2^17 and more, where f16 ends at 2^16
    expect_defined(in, {.storage = storage, .queries = Storage::f16}, {.scale = 1.0f / (1 << 16)});
  }
}

/// Attention over a cache with a narrow storage is that over an f32 cache of the numbers it reads back, up to the digits
/// that integer products have (a relative 6e-5, see ARCHITECTURE.md).
void expect_as_read_back(Storage keys, Storage values, const Inputs& in) {
  const Index G = in.heads.num_kv_heads(), D = in.heads.head_dim(), T = in.key_tokens;
  KvCache<> cache(in.heads, T, {.key_storage = keys, .value_storage = values});
  cache.append(View<const float>(in.k.data(), T, G, D), View<const float>(in.v.data(), T, G, D));
  Inputs read = in;
  std::vector<float> out(in.q.size());
  for (Index g = 0; g < G; ++g)
    for (Index t = 0; t < T; ++t) {
      cache.read_key(0, 0, t, g, std::span(read.key(0, t, g), static_cast<std::size_t>(D)));
      cache.read_value(0, 0, t, g, std::span(read.value(0, t, g), static_cast<std::size_t>(D)));
    }
  const Index H = in.heads.num_heads();
  Attention<>{in.heads}(View<const float>(in.q.data(), in.query_tokens, H, D), cache,
                        View<float>(out.data(), in.query_tokens, H, D));
  const std::vector<float> expected = run(read).output;
  for (std::size_t i = 0; i < out.size(); ++i)
    ASSERT_NEAR(static_cast<double>(out[i]), static_cast<double>(expected[i]), 2e-3) << name_of(keys) << " " << i;
}

// ik_llama.cpp 92: garbage from quantized keys and values, where another program over the same ones was right
TEST(StorageFaults, QuantizedKeysAndValuesGiveWhatTheyReadBackAs) {
  for (const Storage keys : {Storage::int8, Storage::int4, Storage::e4m3, Storage::e5m2})
    for (const Storage values : {Storage::int8, Storage::int4, Storage::e4m3})
      for (const Index queries : {1, 40}) expect_as_read_back(keys, values, Inputs({4, 2, 64}, 1, queries, 300));
}

// openvino 29100: keys and values of int8 were wrong on AVX2, and right on AVX-512
TEST(StorageFaults, QuantizedKeysAndValuesAreRightOnEveryIsa) {
  const Isa before = current_isa();
  for (const Isa isa : available_isas()) {
    set_isa(isa);
    for (const Index queries : {1, 40})
      expect_as_read_back(Storage::int8, Storage::int8, Inputs({4, 1, 72}, 1, queries, 130));
  }
  set_isa(before);
}

// ik_llama.cpp 335: garbage beyond 64 K tokens
TEST(StorageFaults, MoreThan65536TokensAreSeen) {
  Inputs in({2, 1, 8}, 1, 1, 70000);
  for (Index t = 65530; t < 65550; ++t) std::copy_n(in.query(0, 0, 0), 8, in.key(0, t, 0));  // weight on both sides
  expect_defined(in, {});
  expect_defined(in, {.storage = Storage::f16});
}

// ik_llama.cpp 1458: products of tokens and strides overflowed 32 bits. Every token here is the same memory.
TEST(StorageFaults, TokensBeyond32BitsAreCountedIn64) {
  const Index far = Index{1} << 33;
  float numbers[8] = {1, 2, 3, 4, 5, 6, 7, 8}, out[8];
  const View<const float> endless(numbers, 1, far, 1, 8, Strides{0, 0, 0, 1});
  Attention<>{Heads<>(1, 1, 8)}(View<const float>(numbers, 1, 1, 8), KvRows(endless, endless),
                                View<float>(out, 1, 1, 8), {.window = 100});
  for (int d = 0; d < 8; ++d) EXPECT_NEAR(out[d], numbers[d], 1e-5f);  // the mean of equal values
}

// vllm 50427: block numbers of 32 bits were multiplied with the elements of a block in 32 bits. Blocks here lie 2^31
// elements apart, in memory of which only what is used is ever there.
TEST(StorageFaults, BlocksBeyond32BitsAreReadWhereTheyLie) {
#if !defined(__linux__)
  GTEST_SKIP() << "skipped: no address space without memory";
#else
  const Inputs in({2, 1, 16}, 1, 1, 32);
  const Index apart = Index{1} << 31;
  const std::size_t bytes = static_cast<std::size_t>(2 * apart + 1024) * sizeof(float);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "skipped: no address space of 16 GB";
  float* const numbers = static_cast<float*>(memory);
  // [block][slot][head][dim], keys then values in each block of 16 slots; tokens 0 to 15 in block 2
  const std::int32_t table[] = {2, 1};
  const Index lengths[] = {32};
  for (Index t = 0; t < 32; ++t) {
    float* const slot = numbers + table[t / 16] * apart + t % 16 * 16;
    std::copy_n(in.k.data() + t * 16, 16, slot);
    std::copy_n(in.v.data() + t * 16, 16, slot + 256);
  }
  const Strides strides{apart, 16, 16, 1};
  const KvBlocks blocks(View<const float>(numbers, 3, 16, 1, 16, strides),
                        View<const float>(numbers + 256, 3, 16, 1, 16, strides), BlockTable(table, 1, 2), lengths);
  EXPECT_EQ(run_over(blocks, in), run(in));
  munmap(memory, bytes);
#endif
}

}  // namespace
}  // namespace headwise
