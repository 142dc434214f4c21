// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cmath>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise::cost {

/// What sets the least time that work can take.
struct Machine {
  double flops_per_second = 0;  // π, peak of arithmetic
  double bytes_per_second = 0;  // β, bandwidth of memory
};

/// What a forward pass asks for. Floating-point operations count a multiply-add as two; additions of biases, softmax
/// and normalisation are not counted. Bytes are those that must be read, each once.
struct StepCost {
  double projection_flops = 0;  // products with weights
  double core_flops = 0;        // q·k and p·v
  double weight_bytes = 0;
  double kv_bytes = 0;

  double flops() const { return projection_flops + core_flops; }
  double bytes() const { return weight_bytes + kv_bytes; }
  StepCost& operator+=(const StepCost& other) {
    projection_flops += other.projection_flops;
    core_flops += other.core_flops;
    weight_bytes += other.weight_bytes;
    kv_bytes += other.kv_bytes;
    return *this;
  }
  friend bool operator==(const StepCost&, const StepCost&) = default;
};

namespace detail {

inline void check_machine(const Machine& machine) {
  require(std::isfinite(machine.flops_per_second) && machine.flops_per_second > 0, "flops_per_second (",
          machine.flops_per_second, ") must be finite and above 0");
  require(std::isfinite(machine.bytes_per_second) && machine.bytes_per_second > 0, "bytes_per_second (",
          machine.bytes_per_second, ") must be finite and above 0");
}

}  // namespace detail

/// The least time, in seconds, of work that reads and computes at once: max(flops/π, bytes/β) (the roofline: Williams,
/// Waterman and Patterson 2009).
inline double roofline_seconds(double flops, double bytes, const Machine& machine) {
  detail::check_machine(machine);
  require(std::isfinite(flops) && flops >= 0, "flops (", flops, ") must be finite and at least 0");
  require(std::isfinite(bytes) && bytes >= 0, "bytes (", bytes, ") must be finite and at least 0");
  return std::max(flops / machine.flops_per_second, bytes / machine.bytes_per_second);
}

/// The least time, in seconds, of projections and then the core:
///   max(F_proj/π, B_w/β) + max(F_core/π, B_kv/β)
inline double roofline_seconds(const StepCost& cost, const Machine& machine) {
  return roofline_seconds(cost.projection_flops, cost.weight_bytes, machine) +
         roofline_seconds(cost.core_flops, cost.kv_bytes, machine);
}

/// R* = s·π/(2β): the group size (query heads per KV head) at which decode's core asks as much of arithmetic as of
/// memory, with s bytes per stored element. Larger groups no longer save time.
inline double ridge_group_size(double bytes_per_element, const Machine& machine) {
  detail::check_machine(machine);
  require(std::isfinite(bytes_per_element) && bytes_per_element > 0, "bytes_per_element (", bytes_per_element,
          ") must be finite and above 0");
  return bytes_per_element * machine.flops_per_second / (2 * machine.bytes_per_second);
}

/// Predicted decode speed-up of `num_kv_heads` KV heads against as many as there are query heads, where memory sets the
/// time: 1/(1 − (1 − G/H)·f), `kv_share` f being the part of the bytes of an MHA step that are keys and values (0 to 1).
inline double decode_speedup(Index num_kv_heads, Index num_heads, double kv_share) {
  require(num_heads >= 1, "num_heads (", num_heads, ") must be at least 1");
  require(num_kv_heads >= 1 && num_kv_heads <= num_heads, "num_kv_heads (", num_kv_heads, ") must be 1 to num_heads (",
          num_heads, ")");
  require(kv_share >= 0 && kv_share <= 1, "kv_share (", kv_share, ") must be 0 to 1");
  const double saved = static_cast<double>(num_heads - num_kv_heads) / static_cast<double>(num_heads);
  return 1 / (1 - saved * kv_share);
}

}  // namespace headwise::cost
