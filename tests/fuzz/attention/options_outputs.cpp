// SPDX-License-Identifier: MIT
// What a call is asked for beside its results.
#include <algorithm>

#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

namespace {

constexpr Index kMostNumbers = 1 << 19;  // of scores

/// Room for more keys than there are, rarely for fewer.
Index read_room(Bytes& bytes) {
  const std::uint8_t choice = bytes.byte();
  return choice < 240 ? choice % 70 : -(choice % 16);
}

}  // namespace

void read_scores(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  call.scores =
      AskedScores{static_cast<ScoreStage>(kind % 4), read_room(bytes), static_cast<Layout>(kind / 4 % kLayouts)};
  call.at_end.push_back([](Call& whole) {
    const Index longest = whole.longest_keys(),
                rows = (whole.ragged ? 1 : whole.num_sequences()) * whole.query_tokens();
    const bool too_many = rows * whole.num_heads * (longest + whole.scores->room) > kMostNumbers;
    if (too_many && whole.verdict != Verdict::impossible) return whole.scores.reset();
    whole.impossible_if(std::max<Index>(0, longest + whole.scores->room) < longest);
  });
}

void read_mass(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  AskedMass mass;
  mass.heads = kind >= 224 ? 1 + kind % 8 : kind % 2 == 0 ? call.num_kv_heads : call.num_heads;
  mass.add = kind / 2 % 2 == 1;
  mass.layout = static_cast<Layout>(kind / 4 % kLayouts);
  if (kind / 16 % 2 == 1) mass.last_queries = bytes.wild(0, 8);
  mass.room = read_room(bytes);
  call.mass = mass;
  call.impossible_if(mass.heads != call.num_kv_heads && mass.heads != call.num_heads);
  call.impossible_if(mass.last_queries && *mass.last_queries < 0);
  call.at_end.push_back([](Call& whole) {
    const Index longest = whole.longest_keys();
    whole.impossible_if(std::max<Index>(0, longest + whole.mass->room) < longest);
  });
}

void read_merge(Bytes& bytes, Call& call) { call.merge_at = bytes.word() % (call.most_keys() + 1); }

}  // namespace headwise::fuzz
