// SPDX-License-Identifier: MIT
#include "roofline.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "headwise/cost/machine.hpp"
#include "headwise/kernel/dispatch.hpp"
#include "headwise/simd/region.hpp"
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace compare {

namespace {

struct ProbeKernels {
  float (*multiply_add)(Index steps, float factor, float addend);
  float (*read)(const char* data, Index bytes, Index streams, Index ahead);
  Index multiply_adds_per_step;
};

// As the library does it: one source, compiled for each ISA in a region, chosen at run time.
namespace baseline {
// 16 registers on x86 (SSE2 multiplies and adds apart, so one more is needed per chain), 32 on aarch64
#if defined(__x86_64__)
constexpr Index kVectorBytes = 16, kChains = 8;
#else
constexpr Index kVectorBytes = 16, kChains = 24;
#endif
#include "probe_kernels.inl.hpp"
}  // namespace baseline

#if defined(__x86_64__)
HEADWISE_REGION_BEGIN("avx2,fma")
namespace avx2 {
constexpr Index kVectorBytes = 32, kChains = 12;
#include "probe_kernels.inl.hpp"
}  // namespace avx2
HEADWISE_REGION_END

HEADWISE_REGION_BEGIN("avx512f,avx2,fma")
namespace avx512 {
constexpr Index kVectorBytes = 64, kChains = 24;
#include "probe_kernels.inl.hpp"
}  // namespace avx512
HEADWISE_REGION_END

HEADWISE_REGION_BEGIN("avx512bf16,avx512f,avx2,fma")
namespace avx512bf16 {
/// As multiply_add, of bf16 pairs: steps × kChains × kLanes × 2 multiply-adds. Inline assembly, since compilers copy
/// and spill the accumulators of the intrinsic.
inline float multiply_add(Index steps, float factor, float addend) {
  using avx512::kChains;
  avx512::Vector acc[kChains], a = avx512::Vector{} + factor, b = avx512::Vector{} + addend;
  for (Index c = 0; c < kChains; ++c) acc[c] = avx512::Vector{};
  for (Index i = 0; i < steps; ++i)
#pragma GCC unroll 32
    for (Index c = 0; c < kChains; ++c) {
      avx512::Vector sum = acc[c];
      asm("vdpbf16ps %1, %2, %0" : "+v"(sum) : "v"(a), "v"(b));
      acc[c] = sum;
    }
  return avx512::sum_of(acc, kChains);
}
inline constexpr ProbeKernels kernels{&multiply_add, &avx512::read, 2 * avx512::kChains* avx512::kLanes};
}  // namespace avx512bf16
HEADWISE_REGION_END
#endif

/// `storage` f32: plain multiply-adds on every ISA.
const ProbeKernels& probe_kernels([[maybe_unused]] headwise::Storage storage) {
#if defined(__x86_64__)
  switch (headwise::current_isa()) {
    case headwise::Isa::avx512bf16:
      return Roofline::uses_dot(storage) ? avx512bf16::kernels : avx512::kernels;
    case headwise::Isa::avx512:
    case headwise::Isa::avx512vnni:  // differs for int8 and int4 alone
      return avx512::kernels;
    case headwise::Isa::avx2:
      return avx2::kernels;
    case headwise::Isa::baseline:
    case headwise::Isa::neon:
      break;
  }
#endif
  return baseline::kernels;
}

constexpr Index kPage = 4096, kChunk = Index{1} << 20, kSlice = Index{32} << 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Keeps results alive, and hides constants from the compiler.
std::atomic<float> sink{0};

// A parked pool takes a tenth of a millisecond to wake; that is no part of a limit.
void wake(ExecutorRef executor) {
  executor.parallel_for(4 * executor.concurrency(), [](Index) {});
}

}  // namespace

double Limits::seconds(double bytes, double flops) const {
  return headwise::cost::roofline_seconds(flops, bytes, {peak_flops, read_bandwidth});
}
bool Limits::memory_bound(double bytes, double flops) const { return bytes / read_bandwidth >= flops / peak_flops; }

bool Roofline::uses_dot(headwise::Storage storage) {
  return storage == headwise::Storage::bf16 && headwise::current_isa() == headwise::Isa::avx512bf16;
}

Roofline::Roofline(Index cold_bytes) : num_slices_(std::max<Index>(2, headwise::ceil_div(cold_bytes, kSlice))) {
  constexpr Index kHugePage = Index{2} << 20;
  memory_.reserve(static_cast<std::size_t>(num_slices_ * kSlice + kHugePage));
  const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
  begin_ = memory_.data() + (kHugePage - static_cast<Index>(address % kHugePage)) % kHugePage;
#if defined(__linux__)
  // the best this machine can do is the limit, and 4 KiB pages are not
  (void)madvise(const_cast<char*>(begin_), static_cast<std::size_t>(num_slices_ * kSlice), MADV_HUGEPAGE);
#endif
  memory_.resize(static_cast<std::size_t>(num_slices_ * kSlice + kHugePage));  // touches every page
}

const char* Roofline::next_slice() {
  const char* slice = begin_ + slice_ * kSlice;
  slice_ = (slice_ + 1) % num_slices_;
  return slice;
}

double Roofline::read(ExecutorRef executor, const char* data, Index bytes, Pattern pattern) {
  const ProbeKernels& kernels = probe_kernels(headwise::Storage::f32);
  const Index chunk = std::min(kChunk, headwise::round_up(headwise::ceil_div(bytes, executor.concurrency()), kPage));
  const Index chunks = headwise::ceil_div(bytes, chunk);
  const auto start = std::chrono::steady_clock::now();
  executor.parallel_for(chunks, [&](Index i) {
    sink.store(kernels.read(data + i * chunk, std::min(chunk, bytes - i * chunk), pattern.streams, pattern.ahead),
               std::memory_order_relaxed);
  });
  return static_cast<double>(bytes) / seconds_since(start);
}

Roofline::Pattern Roofline::best_pattern(ExecutorRef executor) {
  if (const auto known = patterns_.find(executor.concurrency()); known != patterns_.end()) return known->second;
  static constexpr Pattern kCandidates[] = {{1, 0}, {1, 2048}, {1, 8192}, {2, 0}, {2, 2048}, {4, 0}, {4, 2048}};
  constexpr int kRounds = 3;
  double best_of[std::size(kCandidates)] = {};
  for (int round = 0; round < kRounds; ++round)  // interleaved, so that a slow moment does not decide
    for (std::size_t i = 0; i < std::size(kCandidates); ++i)
      best_of[i] = std::max(best_of[i], read(executor, next_slice(), kSlice, kCandidates[i]));
  const Pattern best = kCandidates[std::ranges::max_element(best_of) - best_of];
  patterns_.emplace(executor.concurrency(), best);
  return best;
}

double Roofline::cold_bandwidth(ExecutorRef executor) {
  wake(executor);
  const Pattern pattern = best_pattern(executor);
  return read(executor, next_slice(), kSlice, pattern);
}

double Roofline::warm_bandwidth(ExecutorRef executor, Index footprint) {
  const Index bytes = std::clamp(headwise::round_up(footprint, kPage), kPage, num_slices_ * kSlice);
  const Index passes = std::max<Index>(2, kSlice / bytes);
  double total = 0;
  for (Index i = -1; i < passes; ++i) {  // pass -1 brings it in
    const double rate = read(executor, begin_, bytes, {1, 0});
    if (i >= 0) total += 1 / rate;
  }
  return static_cast<double>(passes) / total;
}

double Roofline::peak_flops(ExecutorRef executor, headwise::Storage storage) {
  constexpr Index kSteps = 4000, kItemsPerThread = 6;  // about a millisecond
  const ProbeKernels& kernels = probe_kernels(storage);
  const Index items = kItemsPerThread * executor.concurrency();
  const float zero = sink.load() * 0.0f;  // the data are zeros, so this is 0, which the compiler cannot know
  wake(executor);
  const auto start = std::chrono::steady_clock::now();
  executor.parallel_for(items, [&](Index) {
    sink.store(kernels.multiply_add(kSteps, zero + 0.5f, zero + 1.0f) * 0.0f, std::memory_order_relaxed);
  });
  const double multiply_adds = static_cast<double>(items * kSteps * kernels.multiply_adds_per_step);
  return 2 * multiply_adds / seconds_since(start);
}

}  // namespace compare
