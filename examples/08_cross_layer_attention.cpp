// SPDX-License-Identifier: MIT
// Cross-Layer Attention (Brandon et al. 2024): every second layer has no keys and values and reads those of the layer
// below. The cache holds half, each token writes half, and each layer still attends with queries of its own.
#include <headwise/nn.hpp>

#include <cstdio>
#include <vector>

namespace hw = headwise;
using hw::nn::Matrix;

constexpr hw::Index kLayers = 6, kHidden = 256, kTokens = 200;

/// The attention of a model; a borrower is told so and gets Wq and Wo alone.
std::vector<hw::nn::MultiHeadAttention> make_layers(const hw::KvSharing& sharing) {
  std::vector<hw::nn::MultiHeadAttention> layers;
  for (hw::Index l = 0; l < sharing.num_layers(); ++l) {
    auto& layer = layers.emplace_back(hw::nn::MultiHeadAttentionOptions{.hidden_size = kHidden,
                                                                        .num_heads = 8,
                                                                        .num_kv_heads = 2,
                                                                        .rope = hw::nn::RopeOptions{},
                                                                        .borrows_kv = !sharing.is_producer(l)});
    const auto weight = [](hw::Index rows) -> Matrix { return Matrix::Random(rows, kHidden) * 0.1f; };
    const hw::Index kv = 2 * layer.heads().head_dim();
    if (layer.borrows_kv())
      layer.set_weights(weight(kHidden), weight(kHidden));
    else
      layer.set_weights(weight(kHidden), weight(kv), weight(kv), weight(kHidden));
  }
  hw::nn::check_sharing(layers, sharing);  // shapes, RoPE and roles fit
  return layers;
}

int main() {
  const Matrix prompt = Matrix::Random(kTokens, kHidden);
  hw::Index dense_bytes = 0;
  bool correct = true;
  for (const char* name : {"none", "cla2", "cla3", "keep-ends"}) {
    const hw::KvSharing sharing = hw::KvSharing::by_name(name, kLayers);
    const auto layers = make_layers(sharing);
    std::vector<hw::LayerShape> shapes;
    for (const auto& layer : layers) shapes.push_back(layer.cache_shape());
    hw::KvCache<hw::bf16> cache(shapes, sharing, /*max_tokens=*/kTokens);

    hw::nn::Workspace workspace;
    const auto forward = [&](Matrix x) {
      Matrix y(x.rows(), kHidden);
      for (hw::Index l = 0; l < kLayers; ++l) {
        layers[static_cast<std::size_t>(l)].forward(x, cache, l, y, workspace);  // a borrower appends nothing
        x += y;
      }
      return x;
    };
    const Matrix at_once = forward(prompt);
    cache.clear();
    for (hw::Index t = 0; t < kTokens; ++t) correct = correct && forward(prompt.row(t)) == at_once.row(t);

    if (dense_bytes == 0) dense_bytes = cache.bytes_per_token();
    correct = correct && cache.bytes_per_token() * kLayers == dense_bytes * sharing.num_producers();
    std::printf("%-9s  %td of %td layers store, each token keeps and writes %5td bytes: %2.0f %% saved\n", name,
                sharing.num_producers(), kLayers, cache.bytes_per_token(),
                100.0 * static_cast<double>(dense_bytes - cache.bytes_per_token()) / static_cast<double>(dense_bytes));
  }
  std::printf("prompt at once and token by token: %s\n", correct ? "the same bits" : "different");
  return correct ? 0 : 1;
}
