// SPDX-License-Identifier: MIT
// Attention on threads that you already have. An executor is anything with concurrency() and parallel_for(n, f);
// ExecutorAdapter makes one of any thread pool, here OpenMP's. Compile with -fopenmp.
#include <omp.h>

#include <cmath>
#include <cstdio>
#include <headwise/headwise.hpp>
#include <vector>

namespace hw = headwise;

int main() {
  // Exceptions need no care here: the adapter brings the first one to the caller.
  const hw::ExecutorAdapter openmp([] { return omp_get_max_threads(); },
                                   [](hw::Index n, hw::IndexFunction f) {
#pragma omp parallel for schedule(dynamic)
                                     for (hw::Index i = 0; i < n; ++i) f(i);
                                   });

  // 32 query heads share 8 key/value heads; 100 tokens attend to themselves and what comes before them.
  const hw::Index tokens = 100, num_heads = 32, num_kv_heads = 8, head_dim = 64;
  std::vector<float> q(tokens * num_heads * head_dim), k(tokens * num_kv_heads * head_dim), v(k.size());
  for (std::size_t i = 0; i < q.size(); ++i) q[i] = std::sin(0.37f * static_cast<float>(i));
  for (std::size_t i = 0; i < k.size(); ++i) k[i] = std::sin(0.61f * static_cast<float>(i));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = std::cos(0.17f * static_cast<float>(i));

  const hw::Attention attend(hw::Heads<>{num_heads, num_kv_heads, head_dim});
  const auto run = [&](const auto& executor) {
    std::vector<float> out(q.size());
    const hw::KvRows keys(hw::View<const float>(k.data(), tokens, num_kv_heads, head_dim),
                          hw::View<const float>(v.data(), tokens, num_kv_heads, head_dim));
    attend(hw::View<const float>(q.data(), tokens, num_heads, head_dim), keys,
           hw::View<float>(out.data(), tokens, num_heads, head_dim), {}, executor);
    return out;
  };

  // The results are the same bits on any executor with any number of threads.
  const std::vector<float> serial = run(hw::Serial{});
  const std::vector<float> parallel = run(openmp);
  std::printf("OpenMP, %d threads: output[99][31][0..3] = %.4f %.4f %.4f %.4f\n",
              static_cast<int>(openmp.concurrency()), parallel[parallel.size() - 64], parallel[parallel.size() - 63],
              parallel[parallel.size() - 62], parallel[parallel.size() - 61]);
  const bool same = serial == parallel;
  std::printf("%s\n", same ? "the same bits as on one thread" : "DIFFERENT from the result on one thread");
  return same ? 0 : 1;
}
