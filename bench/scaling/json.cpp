// SPDX-License-Identifier: MIT
#include <nlohmann/json.hpp>

#include "compare/figures.hpp"
#include "compare/json.hpp"
#include "scaling/curve.hpp"
#include "scaling/report.hpp"

namespace scaling {

namespace {

using nlohmann::json;

json json_of(const std::optional<double>& value) { return value ? json(*value) : json(nullptr); }

json json_of(const headwise::Heads<>& heads) {
  return {{"num_heads", heads.num_heads()}, {"num_kv_heads", heads.num_kv_heads()}, {"head_dim", heads.head_dim()}};
}

json json_of(const Result& result, Index last_level_cache) {
  const Case& c = result.timed;
  return {{"phase", name_of(c.phase)},
          {"storage", headwise::name_of(c.storage)},
          {"threads", c.threads},
          {"tokens", c.tokens},
          {"window", c.windowed() ? json(c.window) : json(nullptr)},
          {"cold", result.cycle_bytes > last_level_cache},
          {"seconds", result.seconds()},
          {"kv_bytes", c.kv_bytes()},
          {"flop", c.flops()},
          {"roofline_fraction", result.roofline_fraction()},
          {"peak_fraction", result.peak_fraction()},
          {"tiles_asked", result.tiles.asked},
          {"tiles_distinct", result.tiles.distinct},
          {"tiles_unseen", result.tiles.unseen},
          {"tile_bytes", result.tiles.tile_bytes},
          {"error", result.check.error},
          {"error_limit", result.check.limit},
          {"samples", compare::json_of(result.samples)}};
}

}  // namespace

void write_json(const std::string& path, const RunInfo& info, const Curves& curves, const std::vector<Result>& results,
                const std::vector<MemoryUse>& memory) {
  json document;
  document["headwise"] = compare::version_text();
  document["machine"] = {{"cpu", info.machine.cpu},
                         {"isa", info.isa},
                         {"threads", info.all_threads},
                         {"last_level_cache_bytes", info.machine.last_level_cache}};
  document["settings"] = {{"repetitions", info.options.repetitions},
                          {"min_time_s", info.options.min_time},
                          {"cold_bytes", info.options.cold_bytes}};
  document["heads"] = json_of(curves.heads);
  document["cases"] = json::array();
  for (const Result& result : results) document["cases"].push_back(json_of(result, info.machine.last_level_cache));
  document["growth"] = json::array();
  for (const Curve& curve : curves_of(results)) {
    const Growth fit = growth_of(curve);
    document["growth"].push_back({{"phase", name_of(curve.phase)},
                                  {"storage", headwise::name_of(curve.storage)},
                                  {"threads", curve.threads},
                                  {"windowed", curve.windowed},
                                  {"time_exponent", json_of(fit.time)},
                                  {"work_exponent", json_of(fit.work)},
                                  {"spread_of_rounds", fit.spread}});
  }
  document["memory"] = json::array();
  for (const MemoryUse& use : memory)
    document["memory"].push_back({{"heads", json_of(use.heads)},
                                  {"phase", name_of(use.phase)},
                                  {"tokens", use.tokens},
                                  {"threads", use.threads},
                                  {"first_call_bytes", use.first_bytes},
                                  {"later_calls_bytes", use.later_bytes}});
  compare::write_file(path, document);
}

}  // namespace scaling
