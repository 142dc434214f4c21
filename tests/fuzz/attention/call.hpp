// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "headwise/headwise.hpp"
#include "headwise/reference.hpp"
#include "tests/fuzz/array.hpp"
#include "tests/fuzz/attention/functions.hpp"
#include "tests/fuzz/attention/masks.hpp"
#include "tests/fuzz/bytes.hpp"

namespace headwise::fuzz {

/// What the library is to do with a call.
enum class Verdict {
  possible,    // gives what the definition says
  impossible,  // refuses it
  either       // does one of them
};

enum class Source : std::uint8_t { cache, ring, pages, rows, blocks };
inline constexpr int kSources = 5;

/// One sequence of a call. Keys and values are what the source is given, and, once it is made, what it holds.
struct Sequence {
  Index queries = 0, keys = 0;
  std::vector<float> q, k, v;  // [token][head][dim]
  TokenRange kept{};           // what the source has not forgotten
};

/// What keys go through as they are appended.
struct Appending {
  std::optional<QkNorm> norm;
  std::optional<Rope> rope;
  std::vector<std::vector<Index>> positions;  // [sequence][token][axes]; empty: none
  bool any() const { return norm || rope || !positions.empty(); }
};

/// What a call is asked for beside its results.
struct AskedScores {
  ScoreStage stage{};
  Index room = 0;  // for so many keys more than there are
  Layout layout{};
};
struct AskedMass {
  Index heads = 0, room = 0;
  Layout layout{};
  bool add = false;
  std::optional<Index> last_queries;
  static constexpr float kBefore = 0.25f;  // what it holds before it is added to
};

/// One call of Attention with all that it refers to, and what the definition is told of it.
struct Call {
  // shape
  Index num_heads = 1, num_kv_heads = 1, head_dim = 1, value_dim = 1;
  std::vector<Sequence> sequences;
  bool ragged = false;                 // queries of all sequences one behind another
  std::optional<Heads<>> other_heads;  // an Attention of these in place of its own

  // how it reaches the library
  Isa isa{};
  Source source = Source::cache;
  Storage keys{}, values{}, queries{}, outputs{};
  Layout key_layout{}, value_layout{}, query_layout{}, output_layout{};
  bool lse = true, planned = false, threads = false;
  bool hadamard = false, channel_scales = false, two_layers = false, wide_table = false;
  bool values_in_keys = false;             // of a cache
  Index chunk = 0;                         // tokens per append; 0: all
  Index shared = 0;                        // of paged sequences, the first tokens of the first that the others share
  Index size = 1;                          // of a block in tokens, of a page in tiles
  Index window = 64, sinks = 0;            // of a ring
  Index key_heads = 0, value_heads = 0;    // in the caller's memory; 0: num_kv_heads
  Appending appending;                     // of a cache
  int wrong_argument = 0, wrong_size = 0;  // 1: q, 2: output, 3: lse, 4: scores, 5: mass claims to have
  Index wrong_by = 0;                      // so much more of one of its sizes than it has
  Index planned_tokens = 0;                // so many more tokens in the plan than in the call

  // options: those of the library, the memory that they refer to, and the definition's
  Options options;
  std::vector<float> slopes, sink_logits;
  std::optional<RelativeBias> bias;
  std::vector<Index> key_lengths, key_starts, prefix_lengths, query_lengths, query_offsets, query_positions, boundaries;
  std::optional<HeadMap> map, map_of_call;
  std::unique_ptr<MaskMemory> mask;
  std::unique_ptr<TreeMemory> tree;
  std::unique_ptr<TileSet> tile_set;
  std::function<bool(Index b, Index g, Index i, Index tile)> lists_tile;       // of the tile set
  std::function<bool(Index b, Index head, Index p, Index key)> function_sees;  // of the mask function
  std::variant<std::monostate, SeesByHead, SeesByQuery, SeesByTile> mask_function;
  std::variant<std::monostate, ChangesScore, ChangesRow> score_function;
  std::optional<QkNorm> query_norm;
  std::optional<Rope> query_rope;
  bool norm_of_layer = false;        // the norm is LayerOptions' of a planned call
  reference::Parameters parameters;  // but those that differ from sequence to sequence
  double softcap = 0, added = 0;     // most that the score can be, that positions add to it
  double temperature = 1;            // its largest factor

  // results
  std::optional<AskedScores> scores;
  std::optional<AskedMass> mass;
  std::optional<Index> merge_at;  // also as two calls of the keys before this one and of the rest, merged

  std::uint64_t options_read = 0;                  // one bit each
  std::vector<std::function<void(Call&)>> at_end;  // what options do once all are known

  Verdict verdict = Verdict::possible;
  /// What makes a call impossible stays.
  void impossible_if(bool condition) {
    if (condition) verdict = Verdict::impossible;
  }
  void unsure_if(bool condition) {
    if (condition && verdict == Verdict::possible) verdict = Verdict::either;
  }

  bool of_caller() const { return source == Source::rows || source == Source::blocks; }
  Index num_sequences() const { return std::ssize(sequences); }
  Sequence& sequence(Index b) { return sequences[static_cast<std::size_t>(b)]; }
  const Sequence& sequence(Index b) const { return sequences[static_cast<std::size_t>(b)]; }
  Index most_keys() const {
    Index most = 0;
    for (const Sequence& s : sequences) most = std::max(most, s.keys);
    return most;
  }
  /// Keys and query tokens of a sequence that exist, by lengths where these are possible.
  Index keys_of(Index b) const { return length_of(key_lengths, b, sequence(b).keys); }
  Index queries_of_sequence(Index b) const { return length_of(query_lengths, b, sequence(b).queries); }
  Index longest_keys() const {
    Index most = 0;
    for (Index b = 0; b < num_sequences(); ++b) most = std::max(most, keys_of(b));
    return most;
  }
  Index longest_queries() const {
    Index most = 0;
    for (Index b = 0; b < num_sequences(); ++b) most = std::max(most, queries_of_sequence(b));
    return most;
  }
  /// Tokens of the array of queries, of each of its sequences.
  Index query_tokens() const {
    if (!ragged) return sequence(0).queries;
    Index total = 0;
    for (const Sequence& s : sequences) total += s.queries;
    return total;
  }
  /// Where the queries of a sequence are in it: sequence and first token.
  std::pair<Index, Index> queries_of(Index b) const {
    if (!ragged) return {b, 0};
    Index first = 0;
    for (Index i = 0; i < b; ++i) first += sequence(i).queries;
    return {0, first};
  }

 private:
  static Index length_of(const std::vector<Index>& lengths, Index b, Index all) {
    return b < std::ssize(lengths) ? std::clamp<Index>(lengths[static_cast<std::size_t>(b)], 0, all) : all;
  }
};

/// The call that the bytes describe: its shape and data, then options until they end. Throws where the library refuses to
/// make what it refers to.
void read_call(Bytes bytes, Call& call);

/// What the library gave. Of what was not asked for, arrays of nothing.
struct Results {
  Array output, lse, scores, mass;
  friend bool operator==(const Results&, const Results&) = default;
};
/// A call's results, and the same made of two halves of its keys where that is asked for.
struct AllResults {
  Results whole;
  std::optional<Results> merged;
};
/// Makes the source, makes the call, and leaves in the call's sequences what the source holds. Throws what the library throws.
AllResults run(Call& call);

/// Ends the program unless these are the results that the definition says, as near as the arithmetic may come.
void check_results(const Call& call, const AllResults& results);

}  // namespace headwise::fuzz
