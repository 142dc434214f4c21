// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <limits>
#include <string_view>

#include "headwise/core/index.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"

namespace headwise {

/// The instruction sets kernels are compiled for.
enum class Isa : std::uint8_t { baseline, avx2, avx512, avx512vnni, avx512bf16, neon };

constexpr std::string_view name_of(Isa isa) {
  constexpr std::string_view names[] = {"baseline", "avx2", "avx512", "avx512vnni", "avx512bf16", "neon"};
  return names[static_cast<int>(isa)];
}

/// Most lanes any ISA has: per-row partial sums are kept this wide.
inline constexpr Index kMaxLanes = 16;

/// How a row (q, or the softmax weights p) is kept to meet stored keys or values: as f32, as pairs of bf16 where the ISA
/// multiplies those, or as integers of two 8-bit digits each where it multiplies codes (kernel/digits.inl.hpp).
enum class Operand : std::uint8_t { f32, bf16_pair, digits };

/// Bytes of a row of `dim` numbers, a multiple of 8; never more than 4·dim. Digits have a unit and two kinds of sums behind
/// them.
constexpr Index row_bytes(Operand operand, Index dim) {
  if (operand == Operand::digits) return round_up(2 * dim + 8 + 4 * ceil_div(dim, kScaleDims), 16);
  return operand == Operand::f32 ? 4 * dim : 2 * dim;
}

/// `widen_rows` of a storage type whose kernels take any number of rows.
inline constexpr Index kNeverWiden = std::numeric_limits<Index>::max();

/// Up to so many rows walk K and V at the pace of memory: each line is met once, or twice within a few kilobytes.
inline constexpr Index kStreamRows = 8;

/// A head's rows lie far apart, where no prefetcher of the hardware finds them: packing asks for each this many rows
/// ahead. A whole tile ahead is too far: at strides of a power of two the rows fall into few sets of the cache.
inline constexpr Index kRowsAhead = 16;

/// Memory that will be needed soon: a kernel brings it into L2 line by line between its own steps, so that arithmetic and
/// memory overlap. A hint; any address will do.
struct AheadArgs {
  const void* begin;
  Index bytes;                      // in a row; or, where there is a stride,
  Index row_bytes = 0, stride = 0;  // a tile's rows of up to 512 bytes each, `stride` bytes apart
  /// Rows 0, 16, 32 and 48 of those: behind each, 16 are asked for.
  const char* rows[kTileTokens / kBlockTokens] = {};
};

/// What options do to the scores of a row, and the row as options know it.
struct ScoreRowInfo {
  Index sequence, head, position;
  float slope;        // of ALiBi
  const float* bias;  // a relative bias by distance key − position
};

/// softcap → ALiBi → relative bias → what a mask adds, of the scores of rows that meet a tile.
struct ScoreTransform {
  /// TileKernels::softcap.
  void (*softcap)(const ScoreTransform&, float* scores, Index rows, Index tokens);
  const ScoreRowInfo* rows;
  float inverse_cap, cap;  // s → cap·tanh(inverse_cap·s); cap 0: none
  bool alibi;              // adds −slope·|key − position|
  bool bias;               // adds bias[key − position]·bias_factor; a tile's first distance is clamped to these:
  Index bias_begin, bias_end;
  float bias_factor;
  Index first;                          // position of the tile's first token
  const float* const* added = nullptr;  // [rows] of [64] that are added to the scores at last; null: nothing is
};

/// How numbers that a mask adds become those of scores, and what a tile's of a row are.
struct AddedScale {
  float factor, most;  // on magnitudes up to `most`
};
struct AddedKinds {
  std::uint64_t seen;  // bit t: number t is not −inf
  bool some;           // one of those is not 0
  bool beyond;         // or is beyond `most`, or NaN
};

/// Rows that meet one K tile.
struct ScoreArgs {
  const void* queries;  // [rows][padded head_dim], prepared and grouped
  const void* keys;     // K tile
  float* scores;        // [rows][64], out, in units of log2
  Index rows;
  Index head_dim;  // padded
  Index tokens;    // 1 … 64: scores of the tokens up to here (rounded up to what suits) are computed, the rest left
  const Index* ends;  // [rows] or null: instead of `tokens`, of each row; never falling
  AheadArgs ahead;
  const ScoreTransform* transform = nullptr;  // of the scores, before anything else is done with them; null: none
  /// [rows] or null: all. Bit t: whether a row sees token t; 0 behind `ends`. Whatever the score of another token is, its
  /// weight is 0; without a softmax all 64 scores of every row are written then, and it is −inf.
  const std::uint64_t* visible = nullptr;
};

/// Online softmax over the tiles of a row, rescaled lazily: weights are 2^(score − max) with `max` the first visible
/// tile's maximum, raised only when a tile exceeds it by more than 2^kLazyRange. The rule looks at the row alone, so
/// every path that applies it gives the same bits.
struct SoftmaxState {
  float* max;             // [rows]; −inf: no key seen yet
  float* sum;             // [rows][kMaxLanes]
  float* tile_sum;        // [rows][kMaxLanes], scratch
  void* weights;          // [rows][64] of `operand`, out
  Operand operand;        // f32, or bf16_pair where the values are met so
  float headroom = 0.0f;  // how far above the tile's maximum a raised one is put: for scores known to grow tile by tile
  /// [rows] or null: none. How much further above it is put, the first one too, for values whose sums would overflow; it
  /// rounds weights by 2^-18 where it is kLift. Not for `scores`.
  const float* lift = nullptr;
};
inline constexpr float kLazyRange = 12.0f;
inline constexpr float kLift = 60.0f;

/// Rows' weights that meet one V tile.
struct SumArgs {
  const void* weights;  // [rows][64]
  const void* values;   // V tile
  float* output;        // [rows][value_dim], added to
  Index rows;
  Index value_dim;    // padded
  Index tokens;       // 1 … 64: weights beyond are 0 and may be skipped
  const Index* ends;  // [rows] or null: instead of `tokens`, of each row; never falling
  AheadArgs ahead;
  Index output_stride = 0;  // floats from row to row of the output; 0: value_dim

  Index stride() const { return output_stride > 0 ? output_stride : value_dim; }
};

/// What becomes of the masses of a tile's keys.
enum class MassTo : std::uint8_t {
  set,  // f32
  add,  // to f32
  sum,  // as integers of 2^-23, to uint64: such sums have no order
};
inline constexpr float kMassUnit = 0x1p-23f;
/// Of one call: sums of rounded weights fit 32 bits.
inline constexpr Index kMostMassRows = 511;

/// Weights of rows in successive tiles, to be summed over the rows, key by key.
struct MassArgs {
  const void* weights;  // of the first tile, [rows][64] of `operand`, f32 or bf16_pair
  const float* max;     // of the first tile, [rows rounded up to 16], what they are relative to
  Index tile_bytes;     // from a tile to the next, of both
  Index tiles;
  Operand operand;
  const float*
      row_max;  // [rows rounded up to 16]: a weight of the softmax is weight·2^(max − row_max)·row_factor, at most 1,
  const float* row_factor;  // and rounded to a multiple of 2^-23; max <= row_max
  Index rows, heads;        // row r is added to the masses of head r mod heads
  MassTo to;
  void* const* masses;  // [heads]: [keys], out
  Index keys;           // 64·tiles, or fewer where masses of f32 end within the last tile
};

/// A projection: y[token][output] = x[token]·weight[output] + bias[output], rows of x `x_stride` floats apart, of y
/// `y_stride`, of weight `inputs`.
struct ProductArgs {
  const float* x;
  Index x_stride;
  Index tokens;
  const float* weight;
  Index inputs;
  Index outputs;
  const float* bias;  // null: none
  float* y;
  Index y_stride;
};

/// The tile kernels of one ISA. Everything the library computes on tiles goes through here; what surrounds it is plain
/// C++. All functions take 64-bit sizes, write only what they name and never allocate or throw.
struct TileKernels {
  Isa isa;
  int lanes;  // of f32 in a vector: 4, 8 or 16
  /// From this many rows on, a tile of the storage type is widened to f32 first: `scores` and `weighted_sum` of that type
  /// are for fewer rows, and null where it is 1. A type with another operand than f32 is never widened.
  Index widen_rows[kStorages];
  /// How rows are kept for keys or values of each storage type.
  Operand operand[kStorages];

  /// queries: `dim` elements of `storage` (dense), times `factor`, to [padded] of `operand`, zero-padded.
  void (*prepare_row)(const void* q, Storage storage, Index dim, Index padded, float factor, Operand operand,
                      void* row);
  /// numbers: `tokens` (0 … 64) elements of `storage` (dense), times the factor, to [64], 0 behind.
  AddedKinds (*prepare_added)(const void* numbers, Storage storage, Index tokens, const AddedScale& scale,
                              float* added);
  /// Prepared rows, all that meet a tile together, to the order in which `scores` meets them: in place. `elements` of 32 bits
  /// a row, floats or pairs (digits stay as they are); `scratch`: 16 rows. Null where that is one behind another.
  void (*group_rows)(void* queries, Index rows, Index elements, void* scratch);
  /// output row: `dim` sums times `factor`, rounded to `storage`.
  void (*finish_row)(const float* sums, Index dim, float factor, void* out, Storage storage);

  /// Scores of a tile, transformed. Without a softmax they are written. With one only their weights are (with a transform
  /// or a mask, the scores as well), made while the next block of keys loads, of all keys or of the visible ones, others 0; returns
  /// whether some row needs `rescale`: then `sum` is not updated yet and the scores are to be had by another call. Weights
  /// for bf16 pairs come of keys in pairs only (`fuses`).
  bool (*scores[kStorages])(const ScoreArgs&, const SoftmaxState* softmax);
  /// Softmax of scores in memory, hidden ones −inf; the same arithmetic and the same return.
  bool (*softmax)(const float* scores, Index rows, const SoftmaxState&);
  /// After a true return, or instead of `softmax`, where no row has seen a key yet: rows that need it get a new max, their
  /// weights again, and their output rescaled.
  void (*rescale)(const float* scores, Index rows, const SoftmaxState&, float* output, Index value_dim);

  void (*weighted_sum[kStorages])(const SumArgs&);
  /// to[d] = to[d]·a + from[d]·b over `count` (a multiple of 16) floats: two partial outputs become one.
  void (*blend)(float* to, float a, const float* from, float b, Index count);

  /// A K or V tile as f32, each number exactly as it reads (core/quantize.hpp): same layout rules, same bits of scores and
  /// sums as by the type's own kernels on f32 rows.
  void (*widen_keys[kStorages])(const void* tile, Index head_dim, float* out);
  void (*widen_values[kStorages])(const void* tile, Index value_dim, float* out);

  /// The panel from `dim` on of the V tile (value_dim) of the first dimensions of a K tile's keys, all of one storage type;
  /// null for those of which values are made in f32 (values_made_of).
  void (*values_of_keys[kStorages])(const void* keys, Index head_dim, Index value_dim, Index dim, void* panel);

  /// `tokens` rows (1 … 64, each dense in dim, anywhere) of a storage type of arrays to a tile of it; the rest is zeroed. Behind
  /// them `rows` names kRowsAhead more, any but null: those are asked for, not read.
  void (*pack_keys[kStorages])(const char* const* rows, Index tokens, Index head_dim, void* tile);
  void (*pack_values[kStorages])(const char* const* rows, Index tokens, Index value_dim, void* tile);
  /// Whether a V tile (value_dim padded) holds neither infinity nor NaN.
  bool (*all_finite[kStorages])(const void* values, Index value_dim);
  /// Whether `count` (a multiple of 16) floats lie within ±bound; NaN does not.
  bool (*all_within)(const float* x, Index count, float bound);

  /// The softcap of a transform, of rows × tokens (whole vectors) of scores, rows 64 apart.
  void (*softcap)(const ScoreTransform&, float* scores, Index rows, Index tokens);
  /// scores[i] *= factor over `count` (a multiple of 64); returns whether some is −infinity or NaN then.
  bool (*scale_scores)(float* scores, Index count, float factor);
  void (*add_mass)(const MassArgs&);
  /// to[c][r] = from[r][c], or += where it adds; rows of `from` are `from_stride` floats apart, of `to`, which may be
  /// misaligned, `to_stride`.
  void (*transpose)(const float* from, Index from_stride, Index rows, Index columns, void* to, Index to_stride,
                    bool adds);
  /// Weights of the softmax, weights[r][t] = 2^(scores[r][t] − max[r])·factor[r], at most 1, of rows of 64.
  void (*softmax_weights)(const float* scores, Index rows, const float* max, const float* factor, float* weights);

  /// Each y is summed in one order that `inputs` alone decides.
  void (*row_products)(const ProductArgs&);

  /// How weights are handed over for values of a storage type. Digits are made of f32 on the way: the values' scales are
  /// part of them.
  Operand weights_for(Storage values) const {
    const Operand kept = operand[static_cast<int>(values)];
    return kept == Operand::digits ? Operand::f32 : kept;
  }
  /// As what rows meet values that are made of keys of a storage type: pairs of bf16 as such, all else in f32.
  Storage values_made_of(Storage keys) const { return values_of_keys[static_cast<int>(keys)] ? keys : Storage::f32; }
  /// Whether `scores` of these keys can make weights of `weights`.
  bool fuses(Storage keys, Operand weights) const {
    return weights == Operand::f32 || operand[static_cast<int>(keys)] == weights;
  }
};

}  // namespace headwise
