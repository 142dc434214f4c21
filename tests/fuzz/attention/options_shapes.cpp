// SPDX-License-Identifier: MIT
// Options of lengths and heads, other numbers, and arguments that do not fit.
#include <algorithm>
#include <cmath>

#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

std::vector<Index> read_lengths(Bytes& bytes, Call& call, Index Sequence::*limit) {
  const std::uint8_t kind = bytes.byte();
  const Index count = kind < 224 ? call.num_sequences() : 1 + kind % 5;
  std::vector<Index> lengths;
  call.impossible_if(count != call.num_sequences());
  for (Index b = 0; b < count; ++b) {
    const Index most = b < call.num_sequences() ? call.sequence(b).*limit : 0;
    lengths.push_back(kind < 128 ? bytes.between(0, most) : bytes.wild(0, most));
    call.impossible_if(lengths.back() < 0 || lengths.back() > most);
  }
  return lengths;
}

void read_key_lengths(Bytes& bytes, Call& call) { call.key_lengths = read_lengths(bytes, call, &Sequence::keys); }
void read_query_lengths(Bytes& bytes, Call& call) {
  if (call.ragged && bytes.byte() < 192) return;  // impossible together
  call.query_lengths = read_lengths(bytes, call, &Sequence::queries);
}

/// The offsets of a ragged batch, with one that is impossible.
void read_query_offsets(Bytes& bytes, Call& call) {
  if (call.query_offsets.empty()) return;
  std::vector<Index> changed = call.query_offsets;
  const auto at = static_cast<std::size_t>(bytes.between(0, std::ssize(changed) - 1));
  changed[at] = bytes.wild(0, 20);
  const bool possible = changed.front() == 0 && changed.back() == call.query_offsets.back() &&
                        std::is_sorted(changed.begin(), changed.end());
  if (possible) return;  // other tokens of each sequence, which shapes have anyway
  call.impossible_if(true);
  call.query_offsets = changed;
}

void read_share_prefix(Bytes& bytes, Call& call) {
  const std::uint8_t choice = bytes.byte() % 3;
  if (choice < 2) call.options.share_prefix = choice == 1;
}

static HeadMap read_map(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  const Index heads = kind < 224 ? call.num_heads : 1 + kind % 8;
  std::vector<Index> kv_head_of;
  call.impossible_if(heads != call.num_heads);
  for (Index i = 0; i < heads; ++i) {
    const Index last = call.num_kv_heads - 1;
    kv_head_of.push_back(kind < 192 ? bytes.between(0, last) : bytes.wild(0, last));
    call.impossible_if(kv_head_of.back() < 0 || kv_head_of.back() >= call.num_kv_heads);
  }
  return HeadMap::arbitrary(kv_head_of, call.num_kv_heads);
}
void read_map_of_attention(Bytes& bytes, Call& call) { call.map = read_map(bytes, call); }
void read_map_of_call(Bytes& bytes, Call& call) { call.map_of_call = read_map(bytes, call); }

void read_boundaries(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  const Index lists = kind % 2 == 0 ? 1 : call.num_sequences();
  for (Index i = 0; i < lists; ++i) {
    const auto begin = std::ssize(call.boundaries);
    for (Index g = 0; g <= call.num_kv_heads; ++g) call.boundaries.push_back(bytes.between(0, call.num_heads));
    std::sort(call.boundaries.begin() + begin, call.boundaries.end());
    call.boundaries[static_cast<std::size_t>(begin)] = 0;
    call.boundaries.back() = call.num_heads;
  }
  if (kind < 192) return;
  if (kind < 224) {
    const auto at = static_cast<std::size_t>(bytes.between(0, std::ssize(call.boundaries) - 1));
    const Index changed = bytes.wild(0, 4);
    call.impossible_if(changed < 0 || changed > call.num_heads);
    call.unsure_if(changed != call.boundaries[at]);
    call.boundaries[at] = changed;
  } else {
    call.boundaries.push_back(call.num_heads);
    // with one KV head, three numbers are also lists of two sequences, or two and one of three
    call.impossible_if(std::ssize(call.boundaries) % (call.num_kv_heads + 1) != 0);
    call.unsure_if(true);
  }
}

/// Values that are the first dimensions of their keys.
void read_values_in_keys(Bytes& bytes, Call& call) {
  const std::uint8_t dim = bytes.byte();
  if (call.of_caller()) return;
  call.values_in_keys = true;
  call.values = call.keys;
  call.value_dim = dim >= 240 ? call.head_dim + 1 : std::min(call.value_dim, call.head_dim);
  for (Sequence& s : call.sequences) s.v.resize(static_cast<std::size_t>(s.keys * call.num_kv_heads * call.value_dim));
  call.impossible_if(call.value_dim > call.head_dim || call.hadamard || call.channel_scales);
}

/// Keys or values of fewer heads, in the caller's memory.
void read_head_counts(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  if (!call.of_caller()) return;
  call.key_heads = call.value_heads = call.num_kv_heads;
  Index& fewer = kind % 2 == 0 ? call.key_heads : call.value_heads;
  fewer = 1 + kind / 2 % 4;
  if (kind < 224)
    while (call.num_kv_heads % fewer != 0) --fewer;
  const auto [least, most] = std::minmax(call.key_heads, call.value_heads);
  call.impossible_if(most % least != 0 || most != call.num_kv_heads);
}

/// Other magnitudes of queries, keys or values.
void read_magnitude(Bytes& bytes, Call& call) {
  const std::uint8_t which = bytes.byte();
  const int exponent = static_cast<int>(bytes.between(0, 80)) - 40;
  for (Sequence& s : call.sequences)
    for (float& x : which % 3 == 0 ? s.q : which % 3 == 1 ? s.k : s.v) x = std::ldexp(x, exponent);
}

/// Any float in place of one number.
void read_number(Bytes& bytes, Call& call) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  constexpr float kNumbers[] = {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity, 0.0f, -0.0f, 1e-40f};
  Sequence& s = call.sequence(bytes.between(0, call.num_sequences() - 1));
  const std::uint8_t which = bytes.byte(), kind = bytes.byte();
  std::vector<float>& numbers = which % 3 == 0 ? s.q : which % 3 == 1 ? s.k : s.v;
  const auto at = static_cast<std::size_t>(bytes.word());
  const float number = kind < 32 ? bytes.any_float() : kNumbers[kind % std::size(kNumbers)];
  if (!numbers.empty()) numbers[at % numbers.size()] = number;
}

/// NaN in some keys and values of a sequence, which may be hidden ones.
void read_poison(Bytes& bytes, Call& call) {
  Sequence& s = call.sequence(bytes.between(0, call.num_sequences() - 1));
  if (s.keys == 0) return;
  const Index first = bytes.word() % s.keys, last = std::min(s.keys, first + 1 + bytes.word() % 128);
  const auto fill = [&](std::vector<float>& rows) {
    const Index size = std::ssize(rows) / s.keys;
    std::fill(rows.begin() + first * size, rows.begin() + last * size, std::numeric_limits<float>::quiet_NaN());
  };
  fill(s.k);
  fill(s.v);
}

/// An Attention of other heads than everything else has.
void read_other_heads(Bytes& bytes, Call& call) {
  const Index heads = bytes.wild(0, 16), kv_heads = bytes.wild(0, 8), dim = bytes.wild(0, 256),
              value_dim = bytes.wild(0, 256);
  call.impossible_if(heads != call.num_heads || kv_heads != call.num_kv_heads || dim != call.head_dim ||
                     value_dim < 0 || value_dim > kMaxHeadDim);
  call.at_end.push_back([=](Call& whole) {  // which may have other values then
    whole.impossible_if((value_dim == 0 ? dim : value_dim) != whole.value_dim);
  });
  call.other_heads.emplace(heads, kv_heads, dim, value_dim);
}

void read_wrong_argument(Bytes& bytes, Call& call) {
  call.wrong_argument = 1 + bytes.byte() % 5;
  call.wrong_size = bytes.byte() % 4;
  call.wrong_by = bytes.wild(-3, 3);
  if (call.wrong_argument == 4)
    call.wrong_size = call.wrong_size % 2 * 2;  // scores may have any dim of at least the keys
  if (call.wrong_argument == 5) call.wrong_size = call.wrong_size % 2 * 3;  // and masses tokens
  call.at_end.push_back([](Call& whole) {
    const bool asked[] = {true, true, whole.lse, whole.scores.has_value(), whole.mass.has_value()};
    whole.impossible_if(whole.wrong_by != 0 && asked[whole.wrong_argument - 1]);
  });
}

void read_wrong_plan(Bytes& bytes, Call& call) {
  call.planned_tokens = bytes.wild(-3, 3);
  if (call.planned_tokens > 1024) call.planned_tokens = 1024;  // a plan of more is a plan, and takes long
  if (call.planned_tokens < -(Index{1} << 40)) call.planned_tokens = -(Index{1} << 40);
  call.impossible_if(call.planned && call.planned_tokens != 0);
}

}  // namespace headwise::fuzz
