// SPDX-License-Identifier: MIT
// Decode of multi-head latent attention in its absorbed form (DeepSeek-V2, 2024, arXiv 2405.04434): every query head reads
// one latent of 512 + 64 dimensions, whose first 512 are the value and which is stored once. Every figure stands beside the
// peak of the multiply-adds (or bf16 dot products) measured in turn with it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <random>
#include <vector>

#include "compare/roofline.hpp"
#include "headwise/headwise.hpp"

namespace hw = headwise;
using hw::Index;

namespace {

struct Arguments {
  Index latent = 512, rotated = 64, keys = 4096, rounds = 40;
  std::vector<Index> heads{16, 32, 64, 128}, threads{1, 2};
};

std::vector<float> random_numbers(Index count) {
  static std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> result(static_cast<std::size_t>(count));
  for (float& x : result) x = normal(generator) / 8;
  return result;
}

double median(std::vector<double>& values) {
  std::nth_element(values.begin(), values.begin() + std::ssize(values) / 2, values.end());
  return values[values.size() / 2];
}

template <class T>
void measure(const Arguments& args, bool latent, Index heads, Index threads, compare::Roofline& roofline) {
  const Index dim = args.latent + args.rotated;
  const hw::LayerShape shape{.num_kv_heads = 1, .head_dim = dim, .value_dim = args.latent, .values_in_keys = latent};
  hw::KvCache<T> cache(std::span(&shape, 1), args.keys);
  const std::vector<float> k = random_numbers(args.keys * dim), q = random_numbers(heads * dim);
  const hw::View<const float> keys(k.data(), args.keys, 1, dim);
  if (latent)
    cache.append(keys);
  else
    cache.append(keys, hw::View<const float>(k.data(), 1, args.keys, 1, args.latent, {args.keys * dim, dim, dim, 1}));
  std::vector<float> out(static_cast<std::size_t>(heads * args.latent));
  const hw::Attention<> attend(hw::Heads<>{heads, 1, dim, args.latent});

  hw::ThreadPool pool(threads);
  const double flops = 2.0 * static_cast<double>(heads) * static_cast<double>(args.keys * (dim + args.latent));
  const auto run = [&] {
    attend(hw::View<const float>(q.data(), 1, heads, dim), cache, hw::View<float>(out.data(), 1, heads, args.latent),
           {}, pool);
  };
  run();
  std::vector<double> speeds, peaks, shares;
  for (Index round = 0; round < args.rounds; ++round) {
    const double peak = roofline.peak_flops(pool, hw::storage_of<T>);
    const auto begin = std::chrono::steady_clock::now();
    run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    speeds.push_back(flops / seconds.count());
    peaks.push_back(peak);
    shares.push_back(speeds.back() / peak);
  }
  std::printf("%-5s %-8s %4td %8td %9td %10.1f %10.1f %8.0f %%\n", std::string(name_of(hw::storage_of<T>)).c_str(),
              latent ? "once" : "twice", heads, threads, cache.bytes_per_token(), median(speeds) / 1e9,
              median(peaks) / 1e9, 100 * median(shares));
}

}  // namespace

int main(int argc, char** argv) {
  Arguments args;
  CLI::App app("Decode of multi-head latent attention against the peak of this CPU");
  app.add_option("--keys", args.keys)->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--heads", args.heads)->capture_default_str();
  app.add_option("--threads", args.threads)->capture_default_str();
  app.add_option("--rounds", args.rounds)->capture_default_str();
  app.add_option("--latent", args.latent)->capture_default_str();
  app.add_option("--rotated", args.rotated)->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  compare::Roofline roofline(Index{1} << 26);
  std::printf("type  stored   heads  threads  B/token    GFLOP/s       peak     share\n");
  for (const Index threads : args.threads)
    for (const Index heads : args.heads)
      for (const bool latent : {true, false}) {
        measure<float>(args, latent, heads, threads, roofline);
        measure<hw::bf16>(args, latent, heads, threads, roofline);
        measure<hw::f16>(args, latent, heads, threads, roofline);
      }
}
