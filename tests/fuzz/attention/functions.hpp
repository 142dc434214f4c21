// SPDX-License-Identifier: MIT
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "headwise/score/mask_function.hpp"
#include "headwise/score/score_function.hpp"
#include "tests/fuzz/bytes.hpp"

// The callers' own functions that calls are given. The definition asks the same objects, one key at a time.

namespace headwise::fuzz {

/// A number that depends on all of these alone.
inline std::uint32_t mixed(std::uint32_t seed, Index a, Index b, Index c, Index d) {
  std::uint64_t z = seed;
  for (const Index x : {a, b, c, d}) {
    z = (z ^ static_cast<std::uint64_t>(x)) * 0x9e3779b97f4a7c15u;
    z ^= z >> 29;
  }
  return static_cast<std::uint32_t>(z >> 32);
}

/// Which keys are seen, as masks have it: all, most, few or none, by itself each or a tile of them at a time.
struct Pattern {
  std::uint32_t seed = 0, eighths = 0;
  bool whole_tiles = false;

  Pattern() = default;
  explicit Pattern(Bytes& bytes) : seed(bytes.bits()), eighths(bytes.byte() % 9u), whole_tiles(seed % 4 == 0) {}
  bool operator()(Index sequence, Index head, Index query, Index key) const {
    return mixed(seed, sequence, head, query, whole_tiles ? key / 64 : key) % 8 < eighths;
  }
};

/// The three forms of a MaskFunction.
struct SeesByHead {
  Pattern pattern;
  bool operator()(Index sequence, Index head, Index query, Index key) const {
    return pattern(sequence, head, query, key);
  }
};
struct SeesByQuery {
  Pattern pattern;
  bool operator()(Index sequence, Index query, Index key) const { return pattern(sequence, 0, query, key); }
};
struct SeesByTile {
  Pattern pattern;
  std::uint64_t operator()(const MaskTile& tile) const {
    std::uint64_t word = 0;
    for (Index j = 0; j < 64; ++j)  // what is said of keys that there are not does not matter
      if (j >= tile.keys || pattern(tile.sequence, tile.head, tile.query, tile.first_key + j))
        word |= std::uint64_t{1} << j;
    return word;
  }
};

/// A change of scores that looks at all it is given, and hides some keys by −∞.
struct Change {
  float factor = 1, term = 0;
  Pattern hides;
  std::vector<Index> keys;  // of each sequence; NaN beyond

  template <class Number>
  Number changed(Number score, Index sequence, Index head, Index query, Index key) const {
    if (key >= keys[static_cast<std::size_t>(sequence)]) return std::numeric_limits<Number>::quiet_NaN();
    if (hides(sequence, head, query, key)) return -std::numeric_limits<Number>::infinity();
    return score * static_cast<Number>(factor) +
           static_cast<Number>(term) * static_cast<Number>((sequence + 3 * head + query - key) % kTerms);
  }
  static constexpr Index kTerms = 7;
};
/// The two forms of a ScoreFunction.
struct ChangesScore {
  Change change;
  float operator()(float score, Index sequence, Index head, Index query, Index key) const {
    return change.changed(score, sequence, head, query, key);
  }
};
struct ChangesRow {
  Change change;
  void operator()(ScoreRow scores, Index sequence, Index head, Index query, Index first_key) const {
    for (std::size_t j = 0; j < scores.size(); ++j)
      scores[j] = change.changed(scores[j], sequence, head, query, first_key + static_cast<Index>(j));
  }
};

}  // namespace headwise::fuzz
