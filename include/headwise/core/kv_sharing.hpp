// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <charconv>
#include <numeric>
#include <span>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// Which layers of a model make keys and values, and whose the others read: Cross-Layer Attention (Brandon et al. 2024,
/// arXiv 2405.12981). Layer l reads the keys and values of layer source(l) ≤ l; a producer is its own source, a borrower
/// has no key and value projections and stores nothing.
class KvSharing {
 public:
  /// Every layer its own.
  static KvSharing none(Index num_layers) { return every(num_layers, 1); }

  /// CLA-n: groups of `layers_per_group` neighbouring layers, the first of each the producer. Where num_layers is no
  /// multiple, the first group is the smaller one: 10 layers by 3 have the producers 0, 1, 4, 7.
  static KvSharing every(Index num_layers, Index layers_per_group) {
    check_count(num_layers);
    require(layers_per_group >= 1 && layers_per_group <= num_layers, "layers_per_group (", layers_per_group,
            ") must be 1 to num_layers (", num_layers, ")");
    std::vector<Index> source(static_cast<std::size_t>(num_layers));
    const Index remainder = num_layers % layers_per_group;
    for (Index l = 0; l < num_layers; ++l)
      source[static_cast<std::size_t>(l)] =
          l < remainder ? 0 : remainder + (l - remainder) / layers_per_group * layers_per_group;
    return KvSharing(std::move(source));
  }

  /// The first and the last layer keep their own, those between share in groups. num_layers is at least 2.
  static KvSharing keep_ends(Index num_layers, Index layers_per_group) {
    check_count(num_layers);
    require(num_layers >= 2, "num_layers (", num_layers, ") of KvSharing::keep_ends must be at least 2");
    const Index most = std::max(Index{1}, num_layers - 2);
    require(layers_per_group >= 1 && layers_per_group <= most, "layers_per_group (", layers_per_group,
            ") must be 1 to the layers between the ends (", most, ")");
    std::vector<Index> source{0};
    if (num_layers > 2) {
      const KvSharing middle = every(num_layers - 2, layers_per_group);
      for (const Index s : middle.sources()) source.push_back(s + 1);
    }
    source.push_back(num_layers - 1);
    return KvSharing(std::move(source));
  }

  /// The first `dense` layers keep their own; all that follow share that of the next one.
  static KvSharing dense_front(Index num_layers, Index dense) {
    check_dense(num_layers, dense);
    std::vector<Index> source(static_cast<std::size_t>(num_layers), dense);
    std::iota(source.begin(), source.begin() + dense, Index{0});
    return KvSharing(std::move(source));
  }

  /// The last `dense` layers keep their own; all before share that of the first.
  static KvSharing dense_back(Index num_layers, Index dense) {
    check_dense(num_layers, dense);
    std::vector<Index> source(static_cast<std::size_t>(num_layers), 0);
    std::iota(source.end() - dense, source.end(), num_layers - dense);
    return KvSharing(std::move(source));
  }

  /// Any sharing: source[l] is the layer whose keys and values layer l reads. Throws std::invalid_argument on a forward
  /// reference and on a source that is itself a borrower.
  static KvSharing from_sources(std::span<const Index> source) {
    return KvSharing(std::vector<Index>(source.begin(), source.end()));
  }

  /// The sharings that have a name: "none"; "cla<n>" as every(num_layers, n), say "cla2"; "keep-ends", pairs between;
  /// "dense-front" and "dense-back", half of the layers (rounded down) dense, as Brandon et al. compare them.
  static KvSharing by_name(std::string_view name, Index num_layers) {
    check_count(num_layers);
    if (name == "none") return none(num_layers);
    if (name == "keep-ends") return keep_ends(num_layers, 2);
    if (name == "dense-front") return dense_front(num_layers, num_layers / 2);
    if (name == "dense-back") return dense_back(num_layers, num_layers / 2);
    Index layers_per_group = 0;
    const bool is_cla = name.starts_with("cla") && [&] {
      const char *const digits = name.data() + 3, *const end = name.data() + name.size();
      const auto [rest, error] = std::from_chars(digits, end, layers_per_group);
      return digits != end && *digits != '-' && rest == end && error == std::errc();
    }();
    require(
        is_cla, "the name (", name,
        ") of a KvSharing must be none, cla<n> (groups of n layers, say cla2), keep-ends, dense-front or dense-back");
    return every(num_layers, layers_per_group);
  }

  Index num_layers() const { return std::ssize(source_); }
  Index source(Index layer) const {
    require(layer >= 0 && layer < num_layers(), "layer (", layer, ") must be 0 to num_layers - 1 (", num_layers() - 1,
            ")");
    return source_[static_cast<std::size_t>(layer)];
  }
  std::span<const Index> sources() const { return source_; }
  bool is_producer(Index layer) const { return source(layer) == layer; }
  /// Layers that store keys and values.
  Index num_producers() const {
    Index count = 0;
    for (Index l = 0; l < num_layers(); ++l) count += is_producer(l);
    return count;
  }
  /// Those layers, ascending.
  std::vector<Index> producers() const {
    std::vector<Index> result;
    for (Index l = 0; l < num_layers(); ++l)
      if (is_producer(l)) result.push_back(l);
    return result;
  }

  friend bool operator==(const KvSharing&, const KvSharing&) = default;

 private:
  static constexpr Index kMaxLayers = 1 << 20;

  static void check_count(Index num_layers) {
    require(num_layers >= 1 && num_layers <= kMaxLayers, "num_layers (", num_layers, ") must be 1 to ", kMaxLayers);
  }
  static void check_dense(Index num_layers, Index dense) {
    check_count(num_layers);
    require(dense >= 0 && dense < num_layers, "dense (", dense, ") layers must be 0 to num_layers - 1 (",
            num_layers - 1, ")");
  }

  explicit KvSharing(std::vector<Index> source) : source_(std::move(source)) {
    check_count(num_layers());
    for (Index l = 0; l < num_layers(); ++l) {
      const Index s = this->source(l);
      require(s >= 0 && s <= l, "kv_source[", l, "] (", s, ") must be 0 to ", l,
              ": no layer reads those of a later one");
      require(this->source(s) == s, "kv_source[", l, "] (", s,
              ") must be a layer that makes its own keys and values, but ", s, " reads those of layer ",
              this->source(s));
    }
  }

  std::vector<Index> source_;  // [layer]
};

}  // namespace headwise
