// SPDX-License-Identifier: MIT
// Your own mask, compiled into your program, in the three ways to write one: key by key for all heads, from an object with
// state; key by key for each head; and 64 keys at a time as the bits of a word. Each gives, bit for bit, what the library's
// own options give where these say the same. What such functions cost: bench/scores.

#include <headwise/headwise.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace hw = headwise;
using hw::Index;

namespace {

constexpr Index kTokens = 300, kHeads = 8, kKvHeads = 2, kDim = 32;

/// Several documents in one sequence, as in training or in a batch without padding: none sees another. The same for all
/// heads, so it is asked once for those that share keys.
struct SameDocument {
  std::vector<Index> begins;  // of each token's document
  bool operator()(Index /*sequence*/, Index query, Index key) const {
    return key >= begins[static_cast<std::size_t>(query)];
  }
};

/// Windows that differ from head to head.
struct WindowOfHead {
  std::vector<Index> windows;
  bool operator()(Index /*sequence*/, Index head, Index query, Index key) const {
    return query - key < windows[static_cast<std::size_t>(head)];
  }
};

/// Strided attention (Child et al., Sparse Transformers, 2019, arXiv 1904.10509): the last 64 keys and every eighth of those
/// before. Bit j is the tile's key first_key + j.
constexpr auto strided = [](const hw::MaskTile& tile) -> std::uint64_t {
  constexpr std::uint64_t every_eighth = 0x0101010101010101, all = ~std::uint64_t{0};
  const Index recent = tile.query - 63 - tile.first_key;  // the first of the tile's keys that is
  return recent >= 64 ? every_eighth : recent <= 0 ? all : every_eighth | all << recent;
};

class Layer {
 public:
  Layer() : q_(kTokens * kHeads * kDim), k_(kTokens * kKvHeads * kDim), v_(k_.size()) {
    for (std::size_t i = 0; i < q_.size(); ++i) q_[i] = std::sin(static_cast<float>(i * i % 1000));
    for (std::size_t i = 0; i < k_.size(); ++i)
      k_[i] = std::cos(static_cast<float>(i * i % 777)), v_[i] = std::sin(static_cast<float>(i));
  }
  /// [token][head][dim]
  std::vector<float> attend(const hw::Options& options) const {
    std::vector<float> out(q_.size());
    const hw::KvRows keys(hw::View(k_.data(), kTokens, kKvHeads, kDim), hw::View(v_.data(), kTokens, kKvHeads, kDim));
    attention_(hw::View(q_.data(), kTokens, kHeads, kDim), keys, hw::View(out.data(), kTokens, kHeads, kDim), options);
    return out;
  }

 private:
  hw::Gqa<kHeads, kKvHeads, kDim> attention_;
  std::vector<float> q_, k_, v_;
};

/// Whether both are the same in tokens from `first` on, in one head or in all (−1).
bool same(const std::vector<float>& a, const std::vector<float>& b, Index first = 0, Index only = -1) {
  for (Index row = first * kHeads; row < kTokens * kHeads; ++row)
    if ((only < 0 || row % kHeads == only) &&
        !std::equal(a.begin() + row * kDim, a.begin() + (row + 1) * kDim, b.begin() + row * kDim))
      return false;
  return true;
}

bool report(const char* what, bool agrees) {
  std::printf("%-62s %s\n", what, agrees ? "yes" : "NO");
  return agrees;
}

}  // namespace

int main() {
  const Layer layer;
  bool good = true;

  // the last of three documents is what a sequence is whose first 170 tokens are padding
  SameDocument documents;
  for (Index t = 0; t < kTokens; ++t) documents.begins.push_back(t < 50 ? 0 : t < 170 ? 50 : 170);
  const Index starts[] = {170};
  good &= report("a document sees itself alone:", same(layer.attend({.mask_function = hw::MaskFunction(documents)}),
                                                       layer.attend({.key_starts = starts}), 170));

  // a call with a window for each head, in one
  const WindowOfHead windows{{16, 32, 48, 64, 100, 128, 200, 300}};
  const std::vector<float> by_head = layer.attend({.mask_function = hw::MaskFunction(windows)});
  bool all = true;
  for (Index h = 0; h < kHeads; ++h)
    all &= same(by_head, layer.attend({.window = windows.windows[static_cast<std::size_t>(h)]}), 0, h);
  good &= report("each head has the window that was meant for it:", all);

  // a word at a time says what a mask in memory says key by key, which takes memory for every query and key
  std::vector<std::uint8_t> bytes;
  for (Index query = 0; query < kTokens; ++query)
    for (Index key = 0; key < kTokens; ++key) bytes.push_back(query - key < 64 || key % 8 == 0);
  good &= report("64 keys at a time are the same as one by one:",
                 same(layer.attend({.mask_function = hw::MaskFunction(strided)}),
                      layer.attend({.mask = hw::Mask(bytes.data(), kTokens, kTokens)})));
  return good ? 0 : 1;
}
