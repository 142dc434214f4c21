// SPDX-License-Identifier: MIT
#pragma once

#include <Eigen/SVD>
#include <cmath>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "headwise/position/rope.hpp"
#include "headwise/regroup/attention_weights.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/convert/pooling.hpp"

namespace headwise::regroup {

/// Settings of align.
struct AlignmentOptions {
  /// RoPE of the layer, of which style and rotary_dim matter: keys then turn within the planes that it turns, and freely
  /// in the dimensions it leaves alone. Unset: none, keys turn freely.
  std::optional<RopeOptions> rope{};
  bool keys = true, values = true;
  /// Times that every head of a group is turned, at most; at least 1.
  Index rounds = 32;
};

namespace detail {

/// The rotations that leave attention as it is: within given planes, and any among the dimensions from free_begin on.
struct Freedom {
  std::vector<std::pair<Index, Index>> planes;
  Index free_begin = 0;
};

/// A rotation in a RoPE plane commutes with RoPE's own; a reflection, or one that mixes planes, does not.
inline Freedom key_freedom(Index head_dim, const std::optional<RopeOptions>& options) {
  if (!options) return {};
  const Rope rope(head_dim, *options);
  const Index pairs = rope.rotary_dim() / 2;
  require(options->rotary_begin == 0, "rotary_begin (", options->rotary_begin,
          ") of the RoPE of keys that are aligned must be 0");
  Freedom freedom{{}, rope.rotary_dim()};
  for (Index i = 0; i < pairs; ++i)
    freedom.planes.push_back(options->style == RopeStyle::interleaved ? std::pair{2 * i, 2 * i + 1}
                                                                      : std::pair{i, i + pairs});
  return freedom;
}

/// The rotation R of that freedom with the largest <R·block, target>: orthogonal Procrustes (Schönemann 1966), in a plane
/// its closed form.
inline Eigen::MatrixXd best_rotation(const MatrixD& target, const MatrixD& block, const Freedom& freedom) {
  Eigen::MatrixXd rotation = Eigen::MatrixXd::Identity(block.rows(), block.rows());
  for (const auto& [a, b] : freedom.planes) {
    const double along = target.row(a).dot(block.row(a)) + target.row(b).dot(block.row(b));
    const double across = target.row(b).dot(block.row(a)) - target.row(a).dot(block.row(b));
    const double length = std::hypot(along, across);
    if (length == 0) continue;
    rotation(a, a) = rotation(b, b) = along / length;
    rotation(b, a) = across / length;
    rotation(a, b) = -across / length;
  }
  if (const Index free = block.rows() - freedom.free_begin; free > 0) {
    const Eigen::MatrixXd cross = target.bottomRows(free) * block.bottomRows(free).transpose();
    // not BDCSVD: it takes 25 seconds more to compile wherever this is included
    const Eigen::JacobiSVD<Eigen::MatrixXd, Eigen::NoQRPreconditioner> svd(cross,
                                                                           Eigen::ComputeFullU | Eigen::ComputeFullV);
    rotation.bottomRightCorner(free, free) = svd.matrixU() * svd.matrixV().transpose();
  }
  return rotation;
}

/// A rotation for each block of a group, under which they lose least when pooled. Their pooling error is
/// Σ‖block‖² − ‖Σ R·block‖² / n, so every head in turn goes to where the sum of the others points; the first stays, since
/// turning all alike changes nothing.
inline std::vector<Eigen::MatrixXd> alignment(const std::vector<MatrixD>& blocks, const Freedom& freedom,
                                              Index rounds) {
  const Index dim = blocks.front().rows();
  const std::vector<Eigen::MatrixXd> unturned(blocks.size(), Eigen::MatrixXd::Identity(dim, dim));
  std::vector<Eigen::MatrixXd> rotations = unturned;
  std::vector<MatrixD> turned = blocks;
  MatrixD sum = MatrixD::Zero(dim, blocks.front().cols());
  double energy = 0;
  for (const MatrixD& block : blocks) {
    sum += block;
    energy += block.squaredNorm();
  }
  const double start = sum.squaredNorm();
  double length = start;
  for (Index round = 0; round < rounds; ++round) {
    for (std::size_t h = 1; h < blocks.size(); ++h) {
      sum -= turned[h];
      rotations[h] = best_rotation(sum, blocks[h], freedom);
      turned[h] = rotations[h] * blocks[h];
      sum += turned[h];
    }
    const double now = sum.squaredNorm();
    const bool settled = now - length <= 1e-9 * energy;
    length = now;
    if (settled) break;
  }
  // Turned weights are rounded to float: a gain below that is none, and not worth another basis.
  return (length - start) / static_cast<double>(blocks.size()) > 0x1p-20 * energy ? rotations : unturned;
}

/// rows of a head ← rotation · rows, bias included
inline void turn_head(nn::Matrix& weight, nn::Vector& bias, Index head, const Eigen::MatrixXd& rotation) {
  const MatrixD turned = rotation * KvProjection{weight, bias, rotation.rows()}.head(head);
  set_head(weight, bias, head, turned);
}

}  // namespace detail

/// Turns the heads of each group towards each other before they are pooled, and changes nothing else: the layer computes
/// what it did. Values turn by any orthogonal matrix, which the columns of the output projection of the query heads that
/// read them undo. Keys turn within RoPE's planes, and their query heads turn alike, so that scores stay. Weights and
/// biases are turned. Pooling the result by its mean has at most the weight error of pooling `weights`, and a much
/// smaller one where heads hold the same in different bases.
///
/// The alternating form of generalised Procrustes analysis (Gower 1975), begun where the heads are.
///
/// Throws std::invalid_argument on weights that AttentionWeights::check refuses, a partition of another head count, RoPE
/// that does not fit head_dim, and rounds below 1.
inline AttentionWeights align(const AttentionWeights& weights, const Partition& partition,
                              const AlignmentOptions& options = {}) {
  weights.check();
  detail::check_divides(partition, weights);
  require(options.rounds >= 1, "rounds (", options.rounds, ") of an alignment must be at least 1");
  const detail::Freedom key_freedom = detail::key_freedom(weights.head_dim, options.rope);
  const HeadMap map = weights.map();
  AttentionWeights result = weights;

  const auto rotations_of = [&](const detail::KvProjection& projection, std::span<const Index> heads,
                                const detail::Freedom& freedom) {
    std::vector<MatrixD> blocks;
    for (const Index g : heads) blocks.push_back(projection.head(g));
    return detail::alignment(blocks, freedom, options.rounds);
  };
  for (Index group = 0; group < partition.num_groups(); ++group) {
    const std::span<const Index> heads = partition.heads_of(group);
    if (heads.size() < 2) continue;
    if (options.keys) {
      const auto rotations = rotations_of(detail::keys_of(weights), heads, key_freedom);
      for (std::size_t i = 1; i < heads.size(); ++i) {
        if (rotations[i].isIdentity(0)) continue;
        detail::turn_head(result.key, result.key_bias, heads[i], rotations[i]);
        for (const Index h : map.query_heads_of(heads[i]))
          detail::turn_head(result.query, result.query_bias, h, rotations[i]);
      }
    }
    if (options.values) {
      const auto rotations = rotations_of(detail::values_of(weights), heads, {});
      for (std::size_t i = 1; i < heads.size(); ++i) {
        if (rotations[i].isIdentity(0)) continue;
        detail::turn_head(result.value, result.value_bias, heads[i], rotations[i]);
        for (const Index h : map.query_heads_of(heads[i]))
          result.output_block(h) = (result.output_block(h).cast<double>() * rotations[i].transpose()).cast<float>();
      }
    }
  }
  return result;
}

/// Procrustes-aligned pooling: pool of align.
inline AttentionWeights pool_aligned(const AttentionWeights& weights, const Partition& partition,
                                     const AlignmentOptions& alignment = {}, const PoolingOptions& pooling = {}) {
  return pool(align(weights, partition, alignment), partition, pooling);
}

}  // namespace headwise::regroup
