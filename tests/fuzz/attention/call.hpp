// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "headwise/headwise.hpp"
#include "headwise/reference.hpp"
#include "tests/fuzz/array.hpp"
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
  Index chunk = 0;                         // tokens per append; 0: all
  Index shared = 0;                        // of paged sequences, the first tokens of the first that the others share
  Index size = 1;                          // of a block in tokens, of a page in tiles
  Index window = 64, sinks = 0;            // of a ring
  int wrong_argument = 0, wrong_size = 0;  // 1: q, 2: output, 3: lse claims to have
  Index wrong_by = 0;                      // so much more of one of its sizes than it has
  Index planned_tokens = 0;                // so many more tokens in the plan than in the call

  // options: those of the library, the memory that they refer to, and the definition's
  Options options;
  std::vector<float> slopes;
  std::optional<RelativeBias> bias;
  std::vector<Index> key_lengths, query_lengths, query_offsets, boundaries;
  std::optional<HeadMap> map, map_of_call;
  reference::Parameters parameters;  // but those that differ from sequence to sequence
  double softcap = 0, added = 0;     // most that the score can be, that positions add to it

  std::uint64_t options_read = 0;  // one bit each

  Verdict verdict = Verdict::possible;
  /// What makes a call impossible stays.
  void impossible_if(bool condition) {
    if (condition) verdict = Verdict::impossible;
  }
  void unsure_if(bool condition) {
    if (condition && verdict == Verdict::possible) verdict = Verdict::either;
  }

  Index num_sequences() const { return std::ssize(sequences); }
  Sequence& sequence(Index b) { return sequences[static_cast<std::size_t>(b)]; }
  const Sequence& sequence(Index b) const { return sequences[static_cast<std::size_t>(b)]; }
  Index most_keys() const {
    Index most = 0;
    for (const Sequence& s : sequences) most = std::max(most, s.keys);
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
};

/// The call that the bytes describe: its shape and data, then options until they end. Throws where the library refuses to
/// make what it refers to.
void read_call(Bytes bytes, Call& call);
/// One option (options.cpp). Bytes that name none, or one that was read before, are passed over.
void read_option(Bytes& bytes, Call& call);

/// What the library gave.
struct Results {
  Array output, lse;
  friend bool operator==(const Results&, const Results&) = default;
};
/// Makes the source, makes the call, and leaves in the call's sequences what the source holds. Throws what the library throws.
Results run(Call& call);

/// Ends the program unless these are the results that the definition says, as near as the arithmetic may come.
void check_results(const Call& call, const Results& results);

}  // namespace headwise::fuzz
