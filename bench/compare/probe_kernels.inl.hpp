// SPDX-License-Identifier: MIT
// The probes' inner loops, included once per ISA inside its target region. Needs before it: kVectorBytes and kChains,
// the registers to keep busy: enough multiply-adds in flight to cover their latency, few enough not to spill.

typedef float Vector __attribute__((vector_size(kVectorBytes)));
constexpr Index kLanes = kVectorBytes / 4;

inline float sum_of(const Vector* values, Index n) {
  float sum = 0;
  for (Index i = 0; i < n; ++i)
    for (Index lane = 0; lane < kLanes; ++lane) sum += values[i][lane];
  return sum;
}

/// steps × kChains × kLanes multiply-adds, all in registers.
inline float multiply_add(Index steps, float factor, float addend) {
  Vector acc[kChains], a = Vector{} + factor, b = Vector{} + addend;
  for (Index c = 0; c < kChains; ++c) acc[c] = Vector{} + static_cast<float>(c);
  for (Index i = 0; i < steps; ++i)
#pragma GCC unroll 32
    for (Index c = 0; c < kChains; ++c) acc[c] = acc[c] * a + b;
  return sum_of(acc, kChains);
}

/// Loads `bytes` (a multiple of 4 KiB) from `data`, as `streams` runs side by side (1, 2 or 4), with a software
/// prefetch `ahead` bytes before each line (0: none). Eight sums, since a single one would be as slow as its additions.
template <Index streams>
inline float read_streams(const char* data, Index bytes, Index ahead) {
  constexpr Index kLine = 64, kSums = 8;
  constexpr Index vectors = kLine / kVectorBytes, lines = 4 / streams;  // of a line; of a stream, per step
  const Index run = bytes / streams;
  Vector acc[kSums] = {};
  for (Index at = 0; at < run; at += lines * kLine)
#pragma GCC unroll 4
    for (Index i = 0; i < streams * lines; ++i) {
      const char* line = data + i / lines * run + at + i % lines * kLine;
      if (ahead != 0) __builtin_prefetch(line + ahead, 0, 2);
#pragma GCC unroll 4
      for (Index v = 0; v < vectors; ++v)
        acc[(i * vectors + v) % kSums] += *reinterpret_cast<const Vector*>(line + v * kVectorBytes);
    }
  return sum_of(acc, kSums);
}

inline float read(const char* data, Index bytes, Index streams, Index ahead) {
  if (streams == 1) return read_streams<1>(data, bytes, ahead);
  if (streams == 2) return read_streams<2>(data, bytes, ahead);
  return read_streams<4>(data, bytes, ahead);
}

inline constexpr ProbeKernels kernels{&multiply_add, &read, kChains* kLanes};
