// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "headwise/core/index.hpp"
#include "headwise/regroup/partition.hpp"
#include "headwise/regroup/qcqa/layer.hpp"
#include "headwise/regroup/qcqa/layers.hpp"

namespace headwise::regroup {
namespace detail {

/// Rows of text under a header, columns right-aligned but the last. Numbers do not depend on the stream's locale.
using TextRows = std::vector<std::array<std::string, 4>>;

// The shortest text that reads back as the same number, or one of so many significant digits.
inline std::string number_text(double value, int digits = 0) {
  std::array<char, 32> buffer{};
  const auto end = digits > 0 ? std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                              std::chars_format::general, digits)
                              : std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  return {buffer.data(), end.ptr};
}

inline TextRows front_rows(const LayerFront& front, int digits) {
  check_layer_front(front);
  TextRows rows{{"capacity", "error", "groups", "partition"}};
  for (const LayerFront::Point& point : front)
    rows.push_back({number_text(point.objectives[kCapacity], digits),
                    number_text(point.objectives[kSharingError], digits), std::to_string(point.solution.num_groups()),
                    point.solution.text()});
  return rows;
}

inline TextRows front_rows(const ModelFront& front, std::span<const LayerChoice> layers, int digits) {
  TextRows rows{{"capacity", "error", "groups", "groups of each layer"}};
  for (const ModelFront::Point& point : front) {
    Index groups = 0;
    std::string of_each;
    for (const Partition& partition : partitions_of(point.solution, layers)) {
      groups += partition.num_groups();
      if (!of_each.empty()) of_each += ' ';
      of_each += std::to_string(partition.num_groups());
    }
    rows.push_back({number_text(point.objectives[kCapacity], digits),
                    number_text(point.objectives[kSharingError], digits), std::to_string(groups), of_each});
  }
  return rows;
}

inline void print_table(std::ostream& out, const TextRows& rows) {
  std::array<std::size_t, 3> width{};
  for (const auto& row : rows)
    for (std::size_t c = 0; c < width.size(); ++c) width[c] = std::max(width[c], row[c].size());
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < width.size(); ++c) out << std::string(width[c] - row[c].size(), ' ') << row[c] << "  ";
    out << row.back() << '\n';
  }
}

inline void print_csv(std::ostream& out, const TextRows& rows) {
  for (const auto& row : rows) out << row[0] << ',' << row[1] << ',' << row[2] << ',' << row[3] << '\n';
}

}  // namespace detail

/// The front as aligned text, a line per point: capacity, error, groups, and the partition as Partition::text() has it.
inline void write_table(std::ostream& out, const LayerFront& front) {
  detail::print_table(out, detail::front_rows(front, 6));
}
/// The same with the header capacity,error,groups,partition and numbers that read back exactly.
inline void write_csv(std::ostream& out, const LayerFront& front) {
  detail::print_csv(out, detail::front_rows(front, 0));
}

/// A model's front as aligned text: capacity, error, KV heads left in all, and in each layer. `layers` are the choices the
/// front was made of; throws std::invalid_argument when they are not as many.
inline void write_table(std::ostream& out, const ModelFront& front, std::span<const LayerChoice> layers) {
  detail::print_table(out, detail::front_rows(front, layers, 6));
}
/// The same with the header capacity,error,groups,groups of each layer and numbers that read back exactly.
inline void write_csv(std::ostream& out, const ModelFront& front, std::span<const LayerChoice> layers) {
  detail::print_csv(out, detail::front_rows(front, layers, 0));
}

}  // namespace headwise::regroup
