// SPDX-License-Identifier: MIT
// What bytes say of each option: the value that the library is given, the same for the definition, and whether it is an
// impossible one. A new option is a function here and an entry in kOptions.
#include <algorithm>
#include <cmath>

#include "tests/fuzz/attention/call.hpp"

namespace headwise::fuzz {

namespace {

/// What the definition may count with: it knows no overflow.
Index for_definition(Index count) { return std::min(count, Index{1} << 40); }

/// Mostly a moderate number, else any.
float read_float(Bytes& bytes) { return bytes.byte() < 224 ? bytes.number() : bytes.any_float(); }

void read_scale(Bytes& bytes, Call& call) {
  const float scale = read_float(bytes) / 8;
  call.options.scale = scale;
  call.parameters.scale = static_cast<double>(scale);
  call.impossible_if(!std::isfinite(scale));
}

void read_causal(Bytes& bytes, Call& call) { call.options.causal = call.parameters.causal = bytes.flag(); }

void read_window(Bytes& bytes, Call& call) {
  const Index window = bytes.wild(0, 255);
  call.options.window = window;
  call.parameters.window = for_definition(window);
  call.impossible_if(window < 0);
}

void read_sinks(Bytes& bytes, Call& call) {
  const Index sinks = bytes.wild(0, 100);
  call.options.num_sink_tokens = sinks;
  call.parameters.num_sink_tokens = sinks;
  call.impossible_if(sinks < 0);
}

void read_window_right(Bytes& bytes, Call& call) {
  const Index window = bytes.wild(0, 100);
  call.options.window_right = window;
  call.parameters.window_right = for_definition(window);
  call.impossible_if(window < 0);
}

void read_softcap(Bytes& bytes, Call& call) {
  const float softcap = read_float(bytes);
  call.options.softcap = softcap;
  call.parameters.softcap = call.softcap = static_cast<double>(softcap);
  call.impossible_if(!std::isfinite(softcap) || softcap < 0);
}

void read_alibi(Bytes& bytes, Call& call) {
  const std::uint8_t count = bytes.byte();
  const Index slopes = count < 224 ? call.num_heads : 1 + count % 8;
  for (Index i = 0; i < slopes; ++i) call.slopes.push_back(read_float(bytes) / 16);
  call.impossible_if(slopes != call.num_heads);
  for (const float slope : call.slopes) call.impossible_if(!std::isfinite(slope));
  double furthest = 0;
  for (const Sequence& s : call.sequences) furthest = std::max(furthest, static_cast<double>(s.keys + s.queries));
  for (const float slope : call.slopes)
    call.added = std::max(call.added, std::abs(static_cast<double>(slope)) * furthest);
  call.parameters.alibi_slopes = call.slopes;
}

void read_relative_bias(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  const Index heads = kind < 224 ? call.num_heads : 1 + kind % 8;
  RelativeBiasOptions options;
  options.bidirectional = bytes.flag();
  options.num_buckets = 4 + bytes.between(0, 20) * 2;
  options.max_distance = options.num_buckets + bytes.between(0, 200);
  if (kind % 8 == 7) {  // maybe impossible ones
    options.num_buckets = bytes.wild(0, 64);
    options.max_distance = bytes.wild(0, 255);
    call.unsure_if(true);
  }
  const Index size = options.num_buckets >= 0 && options.num_buckets <= 256 ? heads * options.num_buckets : 1;
  std::vector<float> table(static_cast<std::size_t>(size));
  const float unit = bytes.number() / 64;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = unit * static_cast<float>(i % 37) - unit;
  call.impossible_if(heads != call.num_heads);
  call.bias.emplace(table, heads, options);
  call.added += 40 * std::abs(static_cast<double>(unit));
  call.parameters.bias = [&bias = *call.bias](Index head, Index distance) {
    return static_cast<double>(bias(head, distance));
  };
}

/// A length of each sequence, rarely of more or fewer.
std::vector<Index> read_lengths(Bytes& bytes, Call& call, Index Sequence::*limit) {
  const std::uint8_t kind = bytes.byte();
  const Index count = kind < 224 ? call.num_sequences() : 1 + kind % 5;
  std::vector<Index> lengths;
  call.impossible_if(count != call.num_sequences());
  for (Index b = 0; b < count; ++b) {
    const Index most = b < call.num_sequences() ? call.sequence(b).*limit : 0;
    lengths.push_back(bytes.wild(0, most));
    call.impossible_if(lengths.back() < 0 || lengths.back() > most);
  }
  return lengths;
}

void read_key_lengths(Bytes& bytes, Call& call) { call.key_lengths = read_lengths(bytes, call, &Sequence::keys); }
void read_query_lengths(Bytes& bytes, Call& call) {
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

HeadMap read_map(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  const Index heads = kind < 224 ? call.num_heads : 1 + kind % 8;
  std::vector<Index> kv_head_of;
  call.impossible_if(heads != call.num_heads);
  for (Index i = 0; i < heads; ++i) {
    kv_head_of.push_back(bytes.wild(0, call.num_kv_heads - 1));
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
                     (value_dim == 0 ? dim : value_dim) != call.value_dim);
  call.other_heads.emplace(heads, kv_heads, dim, value_dim);
}

void read_wrong_argument(Bytes& bytes, Call& call) {
  call.wrong_argument = 1 + bytes.byte() % 3;
  call.wrong_size = bytes.byte() % 4;
  call.wrong_by = bytes.wild(-3, 3);
  call.impossible_if(call.wrong_by != 0 && (call.lse || call.wrong_argument != 3));
}

void read_wrong_plan(Bytes& bytes, Call& call) {
  call.planned_tokens = bytes.wild(-3, 3);
  if (call.planned_tokens > 1024) call.planned_tokens = 1024;  // a plan of more is a plan, and takes long
  if (call.planned_tokens < -(Index{1} << 40)) call.planned_tokens = -(Index{1} << 40);
  call.impossible_if(call.planned && call.planned_tokens != 0);
}

// Inputs name options by their places here: new ones are added at the end.
constexpr void (*kOptions[])(Bytes&, Call&) = {
    read_scale,         read_causal,       read_window,        read_sinks,       read_window_right,
    read_softcap,       read_alibi,        read_relative_bias, read_key_lengths, read_query_lengths,
    read_query_offsets, read_share_prefix, read_boundaries,    read_map_of_call, read_map_of_attention,
    read_magnitude,     read_number,       read_poison,        read_other_heads, read_wrong_argument,
    read_wrong_plan};
static_assert(std::size(kOptions) <= 64);

}  // namespace

void read_option(Bytes& bytes, Call& call) {
  const std::uint8_t option = bytes.byte();
  if (option >= std::size(kOptions) || (call.options_read >> option & 1)) return;
  call.options_read |= std::uint64_t{1} << option;
  kOptions[option](bytes, call);
}

}  // namespace headwise::fuzz
