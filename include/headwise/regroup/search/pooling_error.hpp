// SPDX-License-Identifier: MIT
#pragma once

#include <utility>
#include <vector>

#include "headwise/regroup/search/head_gram.hpp"
#include "headwise/regroup/partition.hpp"

namespace headwise::regroup {

/// What the heads of a group lose when their mean takes their place, of the inner products Γ between heads:
///   J(P) = Σ_g [ Σ_{h in g} Γ_hh − (1/|g|)·Σ_{h, h' in g} Γ_hh' ] = Σ_g Σ_{h in g} ‖x_h − mean of g‖²
/// for Γ_hh' = <x_h, x_h'>: of activations (ActivationStatistics) or of weights (weight_gram). Valid for unequal groups.
/// This class keeps J of a partition with a fixed number of groups while heads move. The change of a move costs O(1), the
/// move O(num_heads). `gram` must outlive it.
class PoolingError {
 public:
  /// Throws std::invalid_argument on a gram that is not square, finite and symmetric and a partition of another head
  /// count.
  PoolingError(const Eigen::MatrixXd& gram, const Partition& partition)
      : PoolingError(Checked{}, checked(gram, partition), partition) {}
  PoolingError(Eigen::MatrixXd&&, const Partition&) = delete;  // would not outlive it

  Index num_heads() const { return std::ssize(group_of_); }
  Index num_groups() const { return std::ssize(groups_); }
  Index group_of(Index h) const { return group_of_[static_cast<std::size_t>(h)]; }
  Index size(Index g) const { return group(g).size; }

  /// The term of group g.
  double group_error(Index g) const { return error(group(g)); }
  /// J.
  double total() const {
    double sum = 0;
    for (const Group& g : groups_) sum += error(g);
    return sum;
  }

  /// By how much J changes if head h moves to group `to`.
  double relocation_change(Index h, Index to) const {
    const Index from = group_of(h);
    if (from == to) return 0;
    return error(without(group(from), h, from)) + error(with(group(to), h, to)) - error(group(from)) - error(group(to));
  }
  /// By how much J changes if heads a and b change places.
  double swap_change(Index a, Index b) const {
    const Index of_a = group_of(a), of_b = group_of(b);
    if (of_a == of_b) return 0;
    return error(exchanged(of_a, a, b)) + error(exchanged(of_b, b, a)) - error(group(of_a)) - error(group(of_b));
  }

  /// Moves head h to group `to`; the group it leaves may become empty (and then costs nothing).
  void relocate(Index h, Index to) {
    const Index from = group_of(h);
    if (from == to) return;
    group(from) = without(group(from), h, from);
    group(to) = with(group(to), h, to);
    assign(h, to);
  }
  void swap(Index a, Index b) {
    const Index of_a = group_of(a), of_b = group_of(b);
    if (of_a == of_b) return;
    const Group new_a = exchanged(of_a, a, b), new_b = exchanged(of_b, b, a);
    group(of_a) = new_a;
    group(of_b) = new_b;
    assign(a, of_b);
    assign(b, of_a);
  }

  /// The groups as they are now, those that are empty left out.
  Partition partition() const { return Partition::from_labels(group_of_); }

 private:
  struct Checked {};
  /// Σ Γ_hh and Σ Γ_hh' over the heads of a group.
  struct Group {
    Index size = 0;
    double diagonal = 0, pairs = 0;
  };

  static const Eigen::MatrixXd& checked(const Eigen::MatrixXd& gram, const Partition& partition) {
    detail::check_gram(gram);
    require(partition.num_heads() == gram.rows(), "partition (", partition.num_heads(),
            " heads) must divide as many heads as gram has (", gram.rows(), ")");
    return gram;
  }
  PoolingError(Checked, const Eigen::MatrixXd& gram, const Partition& partition)
      : gram_(&gram),
        group_of_(partition.labels().begin(), partition.labels().end()),
        groups_(static_cast<std::size_t>(partition.num_groups())),
        link_(Eigen::MatrixXd::Zero(gram.rows(), partition.num_groups())) {
    for (Index h = 0; h < num_heads(); ++h) {
      const Index g = group_of(h);
      group(g) = with(group(g), h, g);
      link_.col(g) += gram.col(h);
    }
  }

  const Group& group(Index g) const { return groups_[static_cast<std::size_t>(g)]; }
  Group& group(Index g) { return groups_[static_cast<std::size_t>(g)]; }
  static double error(const Group& g) { return g.size == 0 ? 0 : g.diagonal - g.pairs / static_cast<double>(g.size); }

  Group with(Group g, Index h, Index name) const {
    const double self = (*gram_)(h, h);
    return {g.size + 1, g.diagonal + self, g.pairs + 2 * link_(h, name) + self};
  }
  Group without(Group g, Index h, Index name) const {
    const double self = (*gram_)(h, h);
    return {g.size - 1, g.diagonal - self, g.pairs - 2 * link_(h, name) + self};
  }
  /// Group `name` with head `in` in the place of its head `out`.
  Group exchanged(Index name, Index out, Index in) const {
    Group g = without(group(name), out, name);
    const double self = (*gram_)(in, in), link = link_(in, name) - (*gram_)(in, out);
    return {g.size + 1, g.diagonal + self, g.pairs + 2 * link + self};
  }
  void assign(Index h, Index to) {
    link_.col(group_of(h)) -= gram_->col(h);
    link_.col(to) += gram_->col(h);
    group_of_[static_cast<std::size_t>(h)] = to;
  }

  const Eigen::MatrixXd* gram_;  // [head][head]
  std::vector<Index> group_of_;  // [head]
  std::vector<Group> groups_;
  Eigen::MatrixXd link_;  // [head][group]: Σ over the group's heads of their product with the head
};

/// J of a partition (see PoolingError), computed from nothing else.
inline double pooling_error(const Eigen::MatrixXd& gram, const Partition& partition) {
  return PoolingError(gram, partition).total();
}

}  // namespace headwise::regroup
