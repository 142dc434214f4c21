// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <charconv>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace regroup_tool {

using headwise::Index;

namespace detail {

inline Index number(std::string_view text, std::string_view list) {
  Index value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  headwise::require(error == std::errc() && end == text.data() + text.size() && value >= 0, "--layers (", list,
                    ") must be all, numbers and ranges such as 0,3,5-9, lowest:N or highest:N; it holds '", text, "'");
  return value;
}

}  // namespace detail

/// Which layers "all", "0,3,5-9", "lowest:8" or "highest:8" means, [layer]. `errors` orders the last two; equal ones by
/// number. Throws std::invalid_argument that shows the text.
inline std::vector<bool> choose_layers(std::string_view list, std::span<const double> errors) {
  const Index num_layers = std::ssize(errors);
  std::vector<bool> chosen(errors.size(), list == "all");
  if (list == "all") return chosen;
  for (const bool lowest : {true, false}) {
    const std::string_view name = lowest ? "lowest:" : "highest:";
    if (!list.starts_with(name)) continue;
    const Index count = detail::number(list.substr(name.size()), list);
    headwise::require(count <= num_layers, "--layers (", list, ") must name at most the model's ", num_layers,
                      " layers");
    std::vector<std::size_t> order(errors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::ranges::stable_sort(
        order, [&](std::size_t a, std::size_t b) { return lowest ? errors[a] < errors[b] : errors[a] > errors[b]; });
    for (Index i = 0; i < count; ++i) chosen[order[static_cast<std::size_t>(i)]] = true;
    return chosen;
  }
  for (std::size_t at = 0; at <= list.size();) {
    const std::size_t end = std::min(list.find(',', at), list.size());
    const std::string_view item = list.substr(at, end - at);
    const std::size_t dash = item.find('-');
    const Index first = detail::number(item.substr(0, dash), list);
    const Index last = dash == std::string_view::npos ? first : detail::number(item.substr(dash + 1), list);
    headwise::require(first <= last && last < num_layers, "--layers (", list, ") must name layers 0 to ",
                      num_layers - 1, ", ranges from low to high; it holds '", item, "'");
    for (Index l = first; l <= last; ++l) chosen[static_cast<std::size_t>(l)] = true;
    at = end + 1;
  }
  return chosen;
}

}  // namespace regroup_tool
