// SPDX-License-Identifier: MIT
// A decode loop allocates nothing after its first step. This file counts malloc for the whole test program (Eigen does
// not go through operator new), where the C library lets a program do so.
#include "tests/support/sanitizers.hpp"

#if defined(__linux__) && !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include <features.h>
#endif
#if defined(__GLIBC__) && !defined(HEADWISE_TEST_ASAN) && !defined(HEADWISE_TEST_TSAN)
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <vector>

#include "headwise/nn/multi_head_attention.hpp"
#include "headwise/parallel/thread_pool.hpp"
#include "tests/nn/module_definition.hpp"

namespace {
std::atomic<long> allocations{0};
}
extern "C" {
void* __libc_malloc(std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);
void* malloc(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_malloc(bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return __libc_memalign(alignment, bytes);
}
}

namespace headwise::nn {
namespace {

using headwise::testing::ModuleWeights;
using headwise::testing::random_matrix;

TEST(MultiHeadAttentionAllocation, IsSeenByTheCounter) {
  const long before = allocations;
  const Matrix x = random_matrix(10, 10, 1);
  Workspace workspace;
  EXPECT_GT(allocations, before);
}

/// Allocations of 70 decode steps after 10, which cross a tile's border.
template <class E>
long allocations_of_decoding(E& executor) {
  MultiHeadAttention module({.hidden_size = 192,
                             .num_heads = 6,
                             .num_kv_heads = 2,
                             .output_bias = true,
                             .rope = RopeOptions{.scaling = DynamicNtkScaling{2.0, 40}}});
  ModuleWeights(module).give_to(module);
  KvCache<bf16> cache(module.heads(), 100);
  const Matrix x = random_matrix(80, 192, 1);
  Matrix y(1, 192);
  Workspace workspace;
  long before = 0;
  for (Index t = 0; t < 80; ++t) {
    if (t == 10) before = allocations;
    module.forward(x.row(t), cache, 0, y, workspace, executor);
  }
  return allocations - before;
}

TEST(MultiHeadAttentionAllocation, DoesNotHappenInLayersThatShareAndRegroup) {
  MultiHeadAttentionOptions options{.hidden_size = 192, .num_heads = 6, .num_kv_heads = 2, .rope = RopeOptions{}};
  MultiHeadAttention producer(options);
  options.borrows_kv = true;
  MultiHeadAttention borrower(options);
  const ModuleWeights w(producer);
  w.give_to(producer);
  borrower.set_weights(w.wq, w.wo);
  KvCache<bf16> cache(std::vector<LayerShape>(2, producer.cache_shape()), KvSharing::every(2, 2), 100,
                      {.key_norms = true});
  std::array<Index, 3> boundaries{0, 0, 6};
  const auto groups = [&](const KvCache<>& kv, Index layer) {
    boundaries[1] = kv.key_norm_squares(layer, 0, 0) > kv.key_norm_squares(layer, 0, 1) ? 4 : 2;
    return std::span<const Index>(boundaries);
  };
  const Matrix x = random_matrix(80, 192, 1);
  Matrix y(1, 192);
  Workspace workspace;
  long before = 0;
  for (Index t = 0; t < 80; ++t) {
    if (t == 10) before = allocations;
    producer.forward(x.row(t), cache, 0, y, workspace, {.groups = groups});
    borrower.forward(y, cache, 1, y, workspace, {.groups = groups});
  }
  EXPECT_EQ(allocations, before);
}

TEST(MultiHeadAttentionAllocation, DoesNotHappenInRaggedBatches) {
  std::vector<MultiHeadAttention> layers;
  for (const Index window : {100, 100, 20}) {
    layers.emplace_back(MultiHeadAttentionOptions{
        .hidden_size = 192, .num_heads = 6, .num_kv_heads = 2, .rope = RopeOptions{}, .window = window});
    ModuleWeights(layers.back()).give_to(layers.back());
  }
  PagedCache<bf16> cache(std::vector<LayerShape>(3, layers[0].cache_shape()), 4, {.page_tokens = 128});
  const std::array ids{cache.create(), cache.create(), cache.create()};
  const Matrix x = random_matrix(6, 192, 1);
  Matrix y(6, 192);
  Workspace workspace;
  RaggedBatch batch;
  long before = 0;
  for (Index step = 0; step < 80; ++step) {  // crosses a tile's border, within the first pages
    if (step == 10) before = allocations;
    batch.clear();
    batch.add(ids[2], step % 5 == 0 ? 4 : 1);
    batch.add(ids[0], 1);
    if (step % 2 == 0) batch.add(ids[1], 1);
    const auto rows = x.topRows(batch.num_tokens());
    for (Index l = 0; l < 3; ++l)
      layers[static_cast<std::size_t>(l)].forward(rows, cache, batch, l, y.topRows(batch.num_tokens()), workspace);
    if (step % 20 == 19) cache.truncate(ids[2], 4);
  }
  EXPECT_EQ(allocations, before);
}

TEST(MultiHeadAttentionAllocation, DoesNotHappenWhileDecodingOnOneThread) {
  Serial serial;
  EXPECT_EQ(allocations_of_decoding(serial), 0);
}

TEST(MultiHeadAttentionAllocation, DoesNotHappenWhileDecodingOnAPool) {
  ThreadPool pool(2);
  // a worker that meets its first work item late makes its scratch memory then: once per thread, not per step
  EXPECT_LE(allocations_of_decoding(pool), 1);
}

}  // namespace
}  // namespace headwise::nn
#endif
