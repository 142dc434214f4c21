// SPDX-License-Identifier: MIT
// Attention as a layer of a model: weights in, a prompt, then token by token. Two KV heads for eight query heads leave
// a quarter of the cache; with num_kv_heads unset the same lines are plain multi-head attention.
#include <headwise/nn.hpp>

#include <cstdio>

namespace hw = headwise;
using hw::nn::Matrix;

int main() {
  hw::nn::MultiHeadAttention layer(
      {.hidden_size = 512,
       .num_heads = 8,
       .num_kv_heads = 2,
       .rope = hw::nn::RopeOptions{.style = hw::nn::RopeStyle::half_split, .base = 500000.0}});
  const hw::Index d = 512, kv = 2 * layer.heads().head_dim();
  layer.set_weights(Matrix::Random(d, d) * 0.05f, Matrix::Random(kv, d) * 0.05f, Matrix::Random(kv, d) * 0.05f,
                    Matrix::Random(d, d) * 0.05f);  // your checkpoint's, [output][input]

  const Matrix prompt = Matrix::Random(100, d);  // [token][hidden_size]
  hw::ThreadPool pool;
  hw::KvCache<hw::bf16> cache(layer.heads(), /*max_tokens=*/128);

  const Matrix at_once = layer.forward(prompt, cache, 0, pool);

  // the same tokens one by one: positions continue from what the cache holds
  cache.clear();
  Matrix y(1, d);
  hw::nn::Workspace workspace;  // kept, so that decoding allocates nothing
  bool same = true;
  for (hw::Index t = 0; t < prompt.rows(); ++t) {
    layer.forward(prompt.row(t), cache, 0, y, workspace, pool);
    same = same && y.row(0) == at_once.row(t);
  }

  std::printf("%td parameters, %td KV bytes per token\n", layer.parameters(), cache.bytes_per_token());
  std::printf("prompt at once and token by token: %s\n", same ? "the same bits" : "different");
  return same ? 0 : 1;
}
