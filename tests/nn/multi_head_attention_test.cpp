// SPDX-License-Identifier: MIT
#include "headwise/nn/multi_head_attention.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/nn/module_definition.hpp"

namespace headwise::nn {
namespace {

using headwise::testing::expect_near;
using headwise::testing::module_definition;
using headwise::testing::ModuleWeights;
using headwise::testing::random_matrix;

struct Case {
  const char* name;
  MultiHeadAttentionOptions options;
};

class Modules : public ::testing::TestWithParam<Case> {
 protected:
  Modules() { weights.give_to(module); }

  KvCache<float> cache(Index sequences = 1) const {
    return KvCache<float>(module.heads(), 300, {.num_sequences = sequences});
  }
  Matrix tokens(Index count, unsigned seed = 1) const {
    return random_matrix(count, module.options().hidden_size, seed);
  }

  MultiHeadAttention module{GetParam().options};
  ModuleWeights weights{module};
};

std::shared_ptr<const RelativeBias> some_bias(Index num_heads, bool bidirectional) {
  const Matrix table = random_matrix(num_heads, 32, 9);
  return std::make_shared<const RelativeBias>(std::span(table.data(), static_cast<std::size_t>(table.size())),
                                              num_heads, RelativeBiasOptions{.bidirectional = bidirectional});
}

TEST_P(Modules, ForwardIsTheDefinition) {
  for (const Index count : {1, 2, 17, 150}) {
    const Matrix x = tokens(count);
    expect_near(module.forward(x), module_definition(module, weights, x, x));
  }
}

TEST_P(Modules, ForwardWithACacheIsTheDefinition) {
  const Matrix x = tokens(150);
  auto kv = cache();
  expect_near(module.forward(x, kv), module_definition(module, weights, x, x));
  EXPECT_EQ(kv.num_tokens(), 150);
}

TEST_P(Modules, GiveATokenTheSameBitsHoweverThePromptIsCut) {
  const Index count = 140;
  const Matrix x = tokens(count);
  auto whole = cache();
  const Matrix expected = module.forward(x, whole);
  EXPECT_EQ(expected, module.forward(x)) << "no cache";
  if (!module.options().causal) return;  // an early token sees later ones
  for (const std::vector<Index>& pieces :
       {std::vector<Index>(static_cast<std::size_t>(count), 1), {64, 64, 12}, {63, 1, 66, 10}, {5, 135}}) {
    auto kv = cache();
    Index done = 0;
    for (const Index piece : pieces) {
      const Matrix y = module.forward(x.middleRows(done, piece), kv);
      for (Index t = 0; t < piece; ++t) ASSERT_EQ(y.row(t), expected.row(done + t)) << "token " << done + t;
      done += piece;
    }
    ASSERT_EQ(done, count);
  }
}

TEST_P(Modules, GiveTheSameBitsOnAnyNumberOfThreads) {
  ThreadPool two(2), three(3);
  const Matrix x = tokens(100), next = tokens(1, 2);
  auto serial_kv = cache(), two_kv = cache(), three_kv = cache();
  const Matrix prefill = module.forward(x, serial_kv);
  const Matrix decode = module.forward(next, serial_kv);
  EXPECT_EQ(prefill, module.forward(x, two_kv, 0, two));
  EXPECT_EQ(decode, module.forward(next, two_kv, 0, two));
  EXPECT_EQ(prefill, module.forward(x, three_kv, 0, three));
  EXPECT_EQ(decode, module.forward(next, three_kv, 0, three));
  EXPECT_EQ(module.forward(x), module.forward(x, three));
}

TEST_P(Modules, GiveASequenceTheSameBitsAloneAndInABatch) {
  const Matrix first = tokens(70, 1), second = tokens(70, 2), next = tokens(2, 3);
  auto batch = cache(2), a = cache(), b = cache();
  Matrix both(140, first.cols());
  both << first, second;
  const Matrix y = module.forward(both, batch);
  EXPECT_EQ(Matrix(y.topRows(70)), module.forward(first, a));
  EXPECT_EQ(Matrix(y.bottomRows(70)), module.forward(second, b));
  const Matrix step = module.forward(next, batch);
  EXPECT_EQ(Matrix(step.row(0)), module.forward(next.row(0), a));
  EXPECT_EQ(Matrix(step.row(1)), module.forward(next.row(1), b));
}

TEST_P(Modules, CrossAttentionIsTheDefinition) {
  const Matrix memory = tokens(90, 1), x = tokens(5, 2);
  auto kv = cache();
  module.fill_cross(memory, kv);
  EXPECT_EQ(kv.num_tokens(), 90);
  expect_near(module.forward_cross(x, kv), module_definition(module, weights, x, memory, true));
  EXPECT_EQ(kv.num_tokens(), 90);
  ThreadPool pool(2);
  EXPECT_EQ(module.forward_cross(x, kv), module.forward_cross(x, kv, 0, pool));
  EXPECT_EQ(Matrix(module.forward_cross(x, kv).row(3)), module.forward_cross(x.row(3), kv));
}

TEST_P(Modules, CrossAttentionOfABatchKeepsSequencesApart) {
  const Matrix memory = tokens(80, 1), x = tokens(6, 2);
  auto batch = cache(2), second = cache();
  module.fill_cross(memory, batch);
  module.fill_cross(memory.bottomRows(40), second);
  EXPECT_EQ(Matrix(module.forward_cross(x, batch).bottomRows(3)), module.forward_cross(x.bottomRows(3), second));
}

TEST_P(Modules, NarrowCachesStayWithinTheirRounding) {
  const Matrix x = tokens(100);
  const Eigen::MatrixXd want = module_definition(module, weights, x, x);
  KvCache<bf16> narrow(module.heads(), 100);
  KvCache<f16> half(module.heads(), 100);
  // K and V are rounded once, and the products of the attention with bf16 kernels once more; scores stay below 8
  expect_near(module.forward(x, narrow), want, 8 * epsilon_of(Storage::bf16));
  expect_near(module.forward(x, half), want, 8 * epsilon_of(Storage::f16));
}

INSTANTIATE_TEST_SUITE_P(
    Named, Modules,
    ::testing::Values(
        Case{"mha", {.hidden_size = 64, .num_heads = 4}},
        Case{"smollm2_heads",
             {.hidden_size = 96,
              .num_heads = 9,
              .num_kv_heads = 3,
              .head_dim = 64,
              .rope = RopeOptions{.style = RopeStyle::interleaved, .base = 1e5}}},
        Case{"gqa_biases",
             {.hidden_size = 96,
              .num_heads = 6,
              .num_kv_heads = 2,
              .query_bias = true,
              .key_bias = true,
              .value_bias = true,
              .output_bias = true,
              .rope = RopeOptions{.scaling = Llama3Scaling{.factor = 8.0, .original_max_position = 64}}}},
        Case{"mqa_yarn",
             {.hidden_size = 128,
              .num_heads = 8,
              .num_kv_heads = 1,
              .rope = RopeOptions{.scaling = YarnScaling{.factor = 4.0, .original_max_position = 32}}}},
        Case{"odd_dims_value_dim",
             {.hidden_size = 70, .num_heads = 5, .head_dim = 46, .value_dim = 23, .query_bias = true}},
        Case{"partial_rotary",
             {.hidden_size = 160, .num_heads = 2, .head_dim = 80, .rope = RopeOptions{.rotary_dim = 32}}},
        Case{"qwen3_norms",
             {.hidden_size = 48,
              .num_heads = 4,
              .num_kv_heads = 2,
              .head_dim = 20,
              .rope = RopeOptions{.base = 1e6},
              .qk_norm_epsilon = 1e-6f}},
        Case{"window_softcap_scale",
             {.hidden_size = 64,
              .num_heads = 4,
              .num_kv_heads = 2,
              .rope = RopeOptions{},
              .scale = 0.4f,
              .window = 20,
              .softcap = 3.0f}},
        Case{"alibi",
             {.hidden_size = 64, .num_heads = 4, .num_kv_heads = 4, .alibi_slopes = {0.5f, 0.25f, 0.125f, 0.0625f}}},
        Case{"t5_decoder",
             {.hidden_size = 64,
              .num_heads = 4,
              .num_kv_heads = 2,
              .scale = 1.0f,
              .relative_bias = some_bias(4, false)}},
        Case{"t5_encoder",
             {.hidden_size = 64, .num_heads = 4, .scale = 1.0f, .causal = false, .relative_bias = some_bias(4, true)}},
        Case{"encoder", {.hidden_size = 64, .num_heads = 4, .num_kv_heads = 2, .causal = false, .window_right = 30}},
        Case{"unequal_groups",
             {.hidden_size = 80,
              .num_heads = 5,
              .num_kv_heads = 2,
              .head_map = HeadMap::blocks(std::vector<Index>{4, 1})}}),
    [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace headwise::nn
