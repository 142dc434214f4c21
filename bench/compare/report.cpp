// SPDX-License-Identifier: MIT
#include "report.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "figures.hpp"
#include "json.hpp"

namespace compare {

namespace {

template <class F>
double median_over(const std::vector<Sample>& samples, F f) {
  std::vector<double> values;
  std::ranges::transform(samples, std::back_inserter(values), f);
  return median(std::move(values));
}

/// Median of a limit over every repetition that probed it, with this many threads; 0: none did.
struct MedianLimits {
  double read_bandwidth, multiply_add, dot;
};
MedianLimits median_limits(const std::vector<Result>& results, Index threads) {
  std::vector<double> read, multiply_add, dot;
  for (const Result& result : results) {
    if (result.timed.threads != threads) continue;
    for (const Sample& sample : result.samples) {
      if (!result.timed.warm) read.push_back(sample.limits.read_bandwidth);
      (Roofline::uses_dot(result.timed.storage) ? dot : multiply_add).push_back(sample.limits.peak_flops);
    }
  }
  return {median(read), median(multiply_add), median(dot)};
}

std::set<Index> thread_counts(const std::vector<Result>& results) {
  std::set<Index> counts;
  for (const Result& result : results) counts.insert(result.timed.threads);
  return counts;
}

std::string mebibytes(Index bytes) { return std::to_string(bytes >> 20) + " MiB"; }

/// Caches in turn that fit in the last-level cache are not cold, whatever was wanted.
bool is_cold(const Result& result, const Machine& machine) {
  return !result.timed.warm && result.cycled_bytes > machine.last_level_cache;
}
bool has_temperature(const Result& result) { return result.timed.phase != Phase::prefill; }

void print_header(std::ostream& out, const RunInfo& info, const std::vector<Result>& results) {
  out << "headwise " << version_text() << " on " << info.machine.cpu << ", ISA " << info.isa << ", " << info.all_threads
      << (info.all_threads == 1 ? " thread" : " threads") << "\n";
  for (const Index threads : thread_counts(results)) {
    const MedianLimits limits = median_limits(results, threads);
    auto say = [&, first = true](const char* name, double rate, const char* unit) mutable {
      if (rate <= 0) return;
      out << (first ? " " : ", ") << name << " " << format("%.1f ", rate * 1e-9) << unit;
      first = false;
    };
    out << "limits with " << threads << (threads == 1 ? " thread:" : " threads:");
    say("read", limits.read_bandwidth, "GB/s");
    say("multiply-add", limits.multiply_add, "GFLOP/s");
    say("bf16 dot", limits.dot, "GFLOP/s");
    out << "\n";
  }
  out << "\n";
}

void print_notes(std::ostream& out, const RunInfo& info, const std::vector<Result>& results) {
  out << "\nKV B/token: of one attention layer. us/token: median of " << info.repetitions
      << " repetitions, one layer, attention alone.\n"
         "roofline: least time possible = max(K/V bytes / read bandwidth, FLOPs / peak), over the time measured; "
         "\"read\" or \"compute\"\nis the larger. Limits are probed before and after every repetition; shown above are "
         "medians. vs MHA: "
         "time of the MHA sibling over this one's, measured,\nand predicted from their least times. * the model as "
         "published; the others are its siblings.\n";
  const auto shows = [&](bool cold, bool warm) {
    return std::ranges::any_of(results, [&](const Result& r) {
      return has_temperature(r) && r.timed.warm == warm && is_cold(r, info.machine) == cold;
    });
  };
  const std::string llc = info.machine.last_level_cache > 0
                              ? "the last-level cache (" + mebibytes(info.machine.last_level_cache) + ")"
                              : "a last-level cache of unknown size";
  if (shows(true, false))
    out << "cold: caches of at least " << mebibytes(info.cold_bytes) << " together taken in turn, more than " << llc
        << ".\n";
  if (shows(false, false)) out << "cold?: caches taken in turn, but together no more than " << llc << ".\n";
  if (shows(false, true))
    out << "warm: the same cache every time; read bandwidth is that of reading so many bytes again.\n";
}

}  // namespace

double Result::seconds() const {
  return median_over(samples, [](const Sample& s) { return s.seconds; });
}
double Result::seconds_per_token() const { return seconds() / static_cast<double>(timed.new_tokens); }
double Result::roofline_seconds() const {
  return median_over(samples, [&](const Sample& s) { return s.limits.seconds(timed.kv_bytes(), timed.flops()); });
}
double Result::roofline_fraction() const {
  return median_over(samples,
                     [&](const Sample& s) { return s.limits.seconds(timed.kv_bytes(), timed.flops()) / s.seconds; });
}
bool Result::memory_bound() const {
  const Limits limits{median_over(samples, [](const Sample& s) { return s.limits.read_bandwidth; }),
                      median_over(samples, [](const Sample& s) { return s.limits.peak_flops; })};
  return limits.memory_bound(timed.kv_bytes(), timed.flops());
}

namespace {

/// Null where it was not timed.
const Result* mha_sibling(const Result& result, const std::vector<Result>& all) {
  const auto mha = std::ranges::find_if(all, [&](const Result& other) {
    return other.timed.is_sibling_of(result.timed) && other.timed.kv_heads == other.timed.num_heads();
  });
  return mha == all.end() ? nullptr : &*mha;
}

std::string times(double speedup) { return speedup > 0 ? format("%.2fx", speedup) : "-"; }

}  // namespace

double speedup_over_mha(const Result& result, const std::vector<Result>& all) {
  const Result* mha = mha_sibling(result, all);
  return mha ? mha->seconds() / result.seconds() : 0;
}

double predicted_speedup_over_mha(const Result& result, const std::vector<Result>& all) {
  const Result* mha = mha_sibling(result, all);
  return mha ? mha->roofline_seconds() / result.roofline_seconds() : 0;
}

double speed_over_equal_groups(const Result& result, const std::vector<Result>& all) {
  const auto equal =
      std::ranges::find_if(all, [&](const Result& other) { return result.timed.is_unequal_form_of(other.timed); });
  return equal == all.end() ? 0 : equal->seconds() / result.seconds();
}

namespace {

/// The sizes of a model's unequal groups, and how fast they were.
void print_unequal(std::ostream& out, const std::vector<Result>& results) {
  bool first = true;
  for (const Result& result : results) {
    const double speed = speed_over_equal_groups(result, results);
    if (speed == 0) continue;
    if (first) out << "\nspeed per K/V byte of unequal groups (u) over that of equal ones:\n";
    first = false;
    const Case& c = result.timed;
    out << format("  %.2f  ", speed) << c.name() << ", query heads of each KV head:";
    for (const Index size : c.model->unequal_groups) out << ' ' << size;
    out << "\n";
  }
}

}  // namespace

void print_table(std::ostream& out, const RunInfo& info, const std::vector<Result>& results) {
  print_header(out, info, results);
  constexpr const char* kConditions = "%-13s %-7s %-4s %6s %5s %7s %-5s ";
  out << format(kConditions, "model", "phase", "type", "kv", "new", "threads", "data")
      << format("%-10s %10s %11s %8s %9s %9s %-7s %7s %9s\n", "heads", "KV B/token", "us/token", "GB/s", "GFLOP/s",
                "roofline", "limit", "vs MHA", "predicted");
  const Case* previous = nullptr;
  for (const Result& result : results) {
    const Case& c = result.timed;
    if (!previous || !c.is_sibling_of(*previous)) {  // a new set of siblings: say what they have in common
      const char* data = !has_temperature(result)        ? "-"
                         : c.warm                        ? "warm"
                         : is_cold(result, info.machine) ? "cold"
                                                         : "cold?";
      out << (previous ? "\n" : std::string(129, '-') + "\n")
          << format(kConditions, std::string(c.model->name).c_str(), std::string(name_of(c.phase)).c_str(),
                    std::string(name_of(c.storage)).c_str(), std::to_string(c.kv_tokens).c_str(),
                    std::to_string(c.new_tokens).c_str(), std::to_string(c.threads).c_str(), data);
    } else {
      out << format(kConditions, "", "", "", "", "", "", "");
    }
    const std::string heads = std::string(kind_of_heads(c.num_heads(), c.kv_heads)) + " " +
                              std::to_string(c.num_heads()) + ":" + std::to_string(c.kv_heads) +
                              (c.unequal                             ? "u"
                               : c.kv_heads == c.model->own_kv_heads ? "*"
                                                                     : "");
    out << format("%-10s %10lld %11.2f %8.2f %9.1f %8.0f%% %-7s %7s %9s\n", heads.c_str(),
                  static_cast<long long>(c.kv_bytes_per_token()), result.seconds_per_token() * 1e6,
                  result.bytes_per_second() * 1e-9, result.flops_per_second() * 1e-9, result.roofline_fraction() * 100,
                  result.memory_bound() ? "read" : "compute", times(speedup_over_mha(result, results)).c_str(),
                  times(predicted_speedup_over_mha(result, results)).c_str());
    previous = &c;
  }
  print_notes(out, info, results);
  print_unequal(out, results);
}

void write_json(const std::string& path, const RunInfo& info, const std::vector<Result>& results) {
  using nlohmann::json;
  json document;
  document["headwise"] = version_text();
  document["machine"] = {{"cpu", info.machine.cpu},
                         {"isa", info.isa},
                         {"threads", info.all_threads},
                         {"last_level_cache_bytes", info.machine.last_level_cache},
                         {"memory_bytes", info.machine.memory}};
  document["settings"] = {
      {"cold_bytes", info.cold_bytes}, {"repetitions", info.repetitions}, {"min_time_s", info.min_time}};
  for (const Index threads : thread_counts(results)) {
    const MedianLimits limits = median_limits(results, threads);
    document["limits"].push_back({{"threads", threads},
                                  {"read_bytes_per_s", limits.read_bandwidth},
                                  {"multiply_add_flop_per_s", limits.multiply_add},
                                  {"bf16_dot_flop_per_s", limits.dot}});
  }
  document["cases"] = json::array();
  for (const Result& result : results) {
    const Case& c = result.timed;
    document["cases"].push_back(
        {{"name", c.name()},
         {"model", c.model->name},
         {"kind", kind_of_heads(c.num_heads(), c.kv_heads)},
         {"as_published", c.kv_heads == c.model->own_kv_heads && !c.unequal},
         {"group_sizes", c.unequal ? json(c.model->unequal_groups) : json()},
         {"speed_over_equal_groups", c.unequal ? json(speed_over_equal_groups(result, results)) : json()},
         {"num_heads", c.num_heads()},
         {"num_kv_heads", c.kv_heads},
         {"head_dim", c.head_dim()},
         {"storage", name_of(c.storage)},
         {"phase", name_of(c.phase)},
         {"new_tokens", c.new_tokens},
         {"kv_tokens", c.kv_tokens},
         {"threads", c.threads},
         {"warm", c.warm},
         {"cycled_bytes", result.cycled_bytes},
         {"cold", has_temperature(result) && is_cold(result, info.machine)},
         {"error", result.check.error},
         {"error_limit", result.check.limit},
         {"kv_bytes_per_token", c.kv_bytes_per_token()},
         {"kv_bytes", c.kv_bytes()},
         {"flop", c.flops()},
         {"us_per_token", result.seconds_per_token() * 1e6},
         {"kv_bytes_per_s", result.bytes_per_second()},
         {"flop_per_s", result.flops_per_second()},
         {"roofline_us_per_token", result.roofline_seconds() * 1e6 / static_cast<double>(c.new_tokens)},
         {"roofline_fraction", result.roofline_fraction()},
         {"limited_by", result.memory_bound() ? "read" : "compute"},
         {"speedup_over_mha", speedup_over_mha(result, results)},
         {"predicted_speedup_over_mha", predicted_speedup_over_mha(result, results)},
         {"samples", json_of(result.samples)}});
  }
  write_file(path, document);
}

}  // namespace compare
