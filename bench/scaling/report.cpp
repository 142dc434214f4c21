// SPDX-License-Identifier: MIT
#include "scaling/report.hpp"

#include <algorithm>
#include <cmath>

#include "compare/figures.hpp"
#include "scaling/curve.hpp"

namespace scaling {

namespace {

using compare::format;

constexpr double kMib = 1 << 20;

std::string heads_of(const headwise::Heads<>& heads) {
  return std::to_string(heads.num_heads()) + ":" + std::to_string(heads.num_kv_heads()) + ":" +
         std::to_string(heads.head_dim());
}
std::string threads_of(Index threads) { return std::to_string(threads) + (threads == 1 ? " thread" : " threads"); }
long long whole(Index n) { return static_cast<long long>(n); }

void print_header(std::ostream& out, const RunInfo& info) {
  out << "headwise " << compare::version_text() << " on " << info.machine.cpu << ", ISA " << info.isa << ", "
      << threads_of(info.all_threads) << "\n";
}

std::string growth(const Curve& curve, const char* variable, const char* work) {
  const Growth fit = growth_of(curve);
  if (!fit.time) return "too few lengths to fit";
  const auto rounded = [](double exponent) { return std::round(exponent * 100) / 100 + 0.0; };  // no −0.00
  return format("%s^%.2f (%s: %s^%.2f; rounds differ by %.0f%%)", variable, rounded(*fit.time), work, variable,
                rounded(*fit.work), fit.spread * 100);
}

std::string decode_cells(const Result* r) {
  if (!r) return format("%10s %12s %9s %9s", "-", "-", "-", "-");
  const double microseconds = r->seconds() * 1e6;
  return format("%10.1f %12.2f %8.0f%% %9.1f", microseconds,
                microseconds * 1024 / static_cast<double>(r->timed.seen_tokens()), r->roofline_fraction() * 100,
                r->tiles.bytes_distinct() / kMib);
}

std::string prefill_cells(const Result* r) {
  if (!r) return format("%10s %9s %8s %11s", "-", "-", "-", "-");
  return format("%10.2f %9.1f %7.0f%% %11.1f", r->seconds() * 1e3, r->timed.flops() / r->seconds() * 1e-9,
                r->peak_fraction() * 100, r->tiles.bytes_asked() / kMib);
}

/// One table: all keys on the left, the window on the right.
void print_curve(std::ostream& out, const RunInfo& info, const Curves& curves, const Curve& all, const Curve* window) {
  const bool decode = all.phase == Phase::decode;
  const char* variable = decode ? "kv" : "tokens";
  const char* work = decode ? "bytes" : "query-key pairs";
  out << "\n"
      << (decode ? "decode of one token, " : "causal prefill, ") << heads_of(curves.heads) << " "
      << name_of(all.storage) << ", " << threads_of(all.threads);
  if (decode) out << (all.points.front()->cycle_bytes > info.machine.last_level_cache ? ", cold" : ", cold?");
  out << "\n"
      << format("%8s | %-43s | window of %lld\n", "", "all keys", whole(curves.window)) << format("%8s |", variable);
  for (const char* end : {" |", "\n"})
    out << (decode ? format(" %10s %12s %9s %9s", "us", "us/1024 keys", "roofline", "MiB read")
                   : format(" %10s %9s %8s %11s   ", "ms", "GFLOP/s", "of peak", "MiB asked"))
        << end;
  for (const Result* point : all.points) {
    const Result* seen = window ? window->at(point->timed.tokens) : nullptr;
    out << format("%8lld | ", whole(point->timed.tokens))
        << (decode ? decode_cells(point) + " | " + decode_cells(seen)
                   : prefill_cells(point) + "    | " + prefill_cells(seen))
        << "\n";
  }
  out << "time grows as " << growth(all, variable, work);
  if (window) out << "; with the window as " << growth(*window, variable, work);
  out << "\n";
}

void print_tiles(std::ostream& out, const Curves& curves, const std::vector<Result>& results) {
  const auto one = [&](const Result& r) {
    return r.timed.storage == results.front().timed.storage && r.timed.threads == curves.threads.front();
  };
  const Index bytes = results.front().tiles.tile_bytes;
  out << "\ntiles of K and V that one call asks for, " << heads_of(curves.heads) << " "
      << name_of(results.front().timed.storage) << ", " << format("%.0f", static_cast<double>(bytes) / 1024)
      << " KiB each, counted in runs apart\n"
      << format("%-8s %8s %8s | %-28s | window of %lld\n", "", "", "", "all keys", whole(curves.window))
      << format("%-8s %8s %8s | %8s %9s %9s | %8s %9s %9s %7s\n", "phase", "tokens", "stored", "asked", "distinct",
                "MiB", "asked", "distinct", "MiB", "unseen");
  for (const Result& r : results) {
    if (!one(r) || r.timed.windowed()) continue;
    out << format("%-8s %8lld %8lld | %8lld %9lld %9.1f |", std::string(name_of(r.timed.phase)).c_str(),
                  whole(r.timed.tokens),
                  whole(headwise::ceil_div(r.timed.tokens, headwise::kTileTokens) * r.timed.heads.num_kv_heads()),
                  whole(r.tiles.asked), whole(r.tiles.distinct), r.tiles.bytes_distinct() / kMib);
    const auto window = std::ranges::find_if(results, [&](const Result& other) {
      return one(other) && other.timed.windowed() && other.timed.phase == r.timed.phase &&
             other.timed.tokens == r.timed.tokens;
    });
    if (window == results.end())
      out << format(" %8s %9s %9s %7s\n", "-", "-", "-", "-");
    else
      out << format(" %8lld %9lld %9.1f %7lld\n", whole(window->tiles.asked), whole(window->tiles.distinct),
                    window->tiles.bytes_distinct() / kMib, whole(window->tiles.unseen));
  }
}

void print_memory(std::ostream& out, const Curves& curves, const std::vector<MemoryUse>& memory) {
  if (!counts_allocations()) {
    out << "\nmemory: not counted, since a sanitizer brings its own operator new\n";
    return;
  }
  out << "\nKiB that the first call allocates beside cache, queries and output (" << name_of(curves.storages.front())
      << ")\n";
  Index later = 0;
  for (std::size_t i = 0; i < memory.size();) {
    const MemoryUse& first = memory[i];
    const auto same = [&](const MemoryUse& use) {
      return use.heads.num_kv_heads() == first.heads.num_kv_heads() && use.threads == first.threads &&
             use.phase == first.phase;
    };
    const auto print = [&](const std::string& name, auto cell) {
      out << format("%-30s", name.c_str());
      for (std::size_t k = i; k < memory.size() && same(memory[k]); ++k) out << cell(memory[k]);
      out << "\n";
    };
    if (i == 0 || first.phase != memory[i - 1].phase)
      print(std::string(name_of(first.phase)) + " of",
            [](const MemoryUse& use) { return format(" %8lld", whole(use.tokens)); });
    print("  " + heads_of(first.heads) + ", " + threads_of(first.threads),
          [&](const MemoryUse& use) { return format(" %8.1f", static_cast<double>(use.first_bytes) / 1024); });
    for (; i < memory.size() && same(memory[i]); ++i) later = std::max(later, memory[i].later_bytes);
    if (i == memory.size() || memory[i].phase != first.phase) {
      // for comparison, what a matrix of scores in f32 would take
      out << format("%-30s", ("  (all scores of " + std::to_string(first.heads.num_heads()) + " heads)").c_str());
      for (auto use = std::ranges::find_if(memory, same); use != memory.end() && same(*use); ++use) {
        const Index queries = use->phase == Phase::decode ? 1 : use->tokens;
        out << format(" %8.0f", static_cast<double>(queries * use->tokens * use->heads.num_heads() * 4) / 1024);
      }
      out << "\n";
    }
  }
  out << "bytes allocated by the " << kLaterCalls << " calls after the first, at most: " << later << "\n";
}

void print_notes(std::ostream& out, const RunInfo& info, const std::vector<Result>& results) {
  out << "\nTimes are medians of " << info.options.repetitions
      << " rounds (prefill: of at most 3), one layer, attention alone. roofline: least time possible = max(K/V bytes / "
         "read\nbandwidth, FLOPs / peak), over the time measured; of peak: FLOPs of the visible pairs over the peak of "
         "multiply-adds (bf16: of\ndot products where the ISA has them). Both limits are probed before and after every "
         "timing. MiB read: tiles asked for, each once;\nMiB asked: each time that a row tile walks them. rounds "
         "differ: "
         "slowest over fastest, median over the lengths; where that is much\nmore than a few percent, the machine was "
         "not "
         "quiet enough to tell an exponent.\n";
  if (!results.empty() && results.front().cycle_bytes <= info.machine.last_level_cache)
    out << "cold?: the caches taken in turn are no larger than the last-level cache.\n";
}

}  // namespace

void print_tables(std::ostream& out, const RunInfo& info, const Curves& curves, const std::vector<Result>& results,
                  const std::vector<MemoryUse>& memory) {
  print_header(out, info);
  const std::vector<Curve> drawn = curves_of(results);
  for (const Curve& curve : drawn) {
    if (curve.windowed) continue;
    const auto window = std::ranges::find_if(drawn, [&](const Curve& other) {
      return other.windowed && other.phase == curve.phase && other.storage == curve.storage &&
             other.threads == curve.threads;
    });
    print_curve(out, info, curves, curve, window == drawn.end() ? nullptr : &*window);
  }
  if (!results.empty()) print_tiles(out, curves, results);
  if (!memory.empty()) print_memory(out, curves, memory);
  if (!results.empty()) print_notes(out, info, results);
}

}  // namespace scaling
