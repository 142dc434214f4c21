// SPDX-License-Identifier: MIT
//
// Decode of multi-head latent attention in its absorbed form (DeepSeek-V2, 2024, arXiv 2405.04434): all query heads read
// one latent of 512 + 64 dimensions whose first 512 are the value. Stored once (LayerShape::values_in_keys) and, to compare,
// twice. Every figure stands beside the peak of multiply-adds, or of bf16 dot products, that was measured in turn with it.
// Every output is verified against plain loops in double. See --help.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "compare/figures.hpp"
#include "compare/json.hpp"
#include "compare/machine.hpp"
#include "compare/roofline.hpp"
#include "headwise/headwise.hpp"

namespace hw = headwise;
using hw::Index;

namespace {

struct Arguments {
  Index latent = 512, rotated = 64, keys = 4096, rounds = 40;
  std::vector<Index> heads{16, 128}, threads{1, 2};
  std::string json;
  bool smoke = false;

  Index key_dim() const { return latent + rotated; }
};

struct Figure {
  std::string storage;
  bool stored_once;
  Index heads, threads, bytes_per_token;
  double flops, peak, share, error;
};

std::vector<float> random_numbers(Index count) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& x : result) x = normal(generator);
  return result;
}

/// The largest difference of an output from the definition over the keys as they are read back, first and last head.
double error_of(const hw::KvCache<>& cache, const Arguments& args, const std::vector<float>& q,
                const std::vector<float>& out) {
  const Index dim = args.key_dim(), heads = std::ssize(q) / dim;
  std::vector<float> keys(static_cast<std::size_t>(args.keys * dim));
  cache.read_keys(0, 0, 0, args.keys, 0, keys);
  double worst = 0;
  for (const Index h : {Index{0}, heads - 1}) {
    std::vector<double> sums(static_cast<std::size_t>(args.latent));
    double total = 0;
    for (Index t = 0; t < args.keys; ++t) {
      const float* key = keys.data() + t * dim;
      double score = 0;
      for (Index d = 0; d < dim; ++d) score += static_cast<double>(q[static_cast<std::size_t>(h * dim + d)]) * key[d];
      const double weight = std::exp(score / std::sqrt(static_cast<double>(dim)));
      total += weight;
      for (Index d = 0; d < args.latent; ++d) sums[static_cast<std::size_t>(d)] += weight * key[d];
    }
    for (Index d = 0; d < args.latent; ++d)
      worst = std::max(worst, std::abs(sums[static_cast<std::size_t>(d)] / total -
                                       out[static_cast<std::size_t>(h * args.latent + d)]));
  }
  return worst;
}

template <class T>
Figure measure(const Arguments& args, bool once, Index heads, Index threads, compare::Roofline& roofline) {
  const Index dim = args.key_dim();
  const hw::LayerShape shape{.num_kv_heads = 1, .head_dim = dim, .value_dim = args.latent, .values_in_keys = once};
  hw::KvCache<T> cache(std::span(&shape, 1), args.keys);
  const std::vector<float> k = random_numbers(args.keys * dim), q = random_numbers(heads * dim);
  const hw::View<const float> keys(k.data(), args.keys, 1, dim);
  if (once)
    cache.append(keys);
  else
    cache.append(keys, hw::View<const float>(k.data(), 1, args.keys, 1, args.latent, keys.strides()));
  std::vector<float> out(static_cast<std::size_t>(heads * args.latent));
  const hw::Attention<> attend(hw::Heads<>{heads, 1, dim, args.latent});
  hw::ThreadPool pool(threads);
  const auto run = [&] {
    attend(hw::View<const float>(q.data(), 1, heads, dim), cache, hw::View<float>(out.data(), 1, heads, args.latent),
           {}, pool);
  };
  run();
  const double flops = 2.0 * static_cast<double>(heads * args.keys * (dim + args.latent));
  std::vector<double> speeds, peaks, shares;
  for (Index round = 0; round < args.rounds; ++round) {
    peaks.push_back(roofline.peak_flops(pool, hw::storage_of<T>));
    const auto begin = std::chrono::steady_clock::now();
    run();
    speeds.push_back(flops / std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    shares.push_back(speeds.back() / peaks.back());
  }
  return {std::string(name_of(hw::storage_of<T>)),
          once,
          heads,
          threads,
          cache.bytes_per_token(),
          compare::median(speeds),
          compare::median(peaks),
          compare::median(shares),
          error_of(cache, args, q, out)};
}

}  // namespace

int main(int argc, char** argv) {
  Arguments args;
  CLI::App app("Decode of multi-head latent attention against the arithmetic peak of this CPU.", "mla");
  app.add_flag("--smoke", args.smoke, "tiny shapes, a second: a test of this program");
  app.add_option("--keys", args.keys, "tokens stored")->check(CLI::Range(1, 1 << 22))->capture_default_str();
  app.add_option("--heads", args.heads, "query heads")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--threads", args.threads, "threads")
      ->delimiter(',')
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--rounds", args.rounds, "timings of each")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_option("--latent", args.latent, "dimensions of the value")->check(CLI::Range(1, 576))->capture_default_str();
  app.add_option("--rotated", args.rotated, "dimensions of the key behind them")
      ->check(CLI::Range(0, 575))
      ->capture_default_str();
  app.add_option("--json", args.json, "write every figure to this file");
  CLI11_PARSE(app, argc, argv);
  if (args.smoke) {
    args.keys = 150;
    args.heads = {4, 20};
    args.rounds = 1;
  }

  compare::Roofline roofline(Index{1} << 24);
  nlohmann::json figures = nlohmann::json::array();
  bool verified = true;
  std::printf("%s\n%-5s %-6s %5s %7s %8s %9s %9s %7s %9s\n", std::string(name_of(hw::current_isa())).c_str(), "type",
              "stored", "heads", "threads", "B/token", "GFLOP/s", "peak", "share", "error");
  const auto show = [&](const Figure& figure) {
    std::printf("%-5s %-6s %5td %7td %8td %9.1f %9.1f %5.0f %% %9.1e\n", figure.storage.c_str(),
                figure.stored_once ? "once" : "twice", figure.heads, figure.threads, figure.bytes_per_token,
                figure.flops / 1e9, figure.peak / 1e9, 100 * figure.share, figure.error);
    figures.push_back({{"storage", figure.storage},
                       {"stored_once", figure.stored_once},
                       {"heads", figure.heads},
                       {"threads", figure.threads},
                       {"bytes_per_token", figure.bytes_per_token},
                       {"flop_per_s", figure.flops},
                       {"peak_flop_per_s", figure.peak},
                       {"share_of_peak", figure.share},
                       {"error", figure.error}});
    verified &= figure.error < 0x1p-4;  // queries and weights rounded to bf16 where the CPU multiplies those; not NaN
  };
  for (const Index threads : args.threads)
    for (const Index heads : args.heads)
      for (const bool once : {true, false}) {
        show(measure<float>(args, once, heads, threads, roofline));
        show(measure<hw::f16>(args, once, heads, threads, roofline));
        show(measure<hw::bf16>(args, once, heads, threads, roofline));
      }
  if (!args.json.empty())
    compare::write_file(args.json, {{"headwise", compare::version_text()},
                                    {"machine", compare::json_of(compare::this_machine(), args.threads.back())},
                                    {"keys", args.keys},
                                    {"figures", figures}});
  if (!verified) std::cerr << "mla: an output is not what the definition says\n";
  return verified ? 0 : 1;
}
