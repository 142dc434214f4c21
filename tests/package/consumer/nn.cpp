// SPDX-License-Identifier: MIT
// <headwise/nn.hpp> with the Eigen that headwise::nn brings.
#include <headwise/nn.hpp>

int main() {
  const headwise::nn::MultiHeadAttention attention({.hidden_size = 16, .num_heads = 4, .num_kv_heads = 2});
  return attention.heads().head_dim() == 4 ? 0 : 1;
}
