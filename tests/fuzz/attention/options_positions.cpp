// SPDX-License-Identifier: MIT
// Options of norms, RoPE and positions, of queries and of keys that are appended.
#include <algorithm>
#include <cmath>

#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

namespace {

/// The head_dim of what is made for the call, rarely another one.
Index read_head_dim(Bytes& bytes, Call& call) {
  const std::uint8_t choice = bytes.byte();
  return choice < 240 ? call.head_dim : 1 + choice % 16;
}

QkNorm read_norm(Bytes& bytes, Call& call) {
  const Index dim = read_head_dim(bytes, call);
  const std::uint8_t kind = bytes.byte();
  std::vector<float> weight(kind % 2 == 0 ? 0 : static_cast<std::size_t>(dim));
  for (std::size_t d = 0; d < weight.size(); ++d) weight[d] = 0.25f + static_cast<float>((kind + d) % 11) / 8;
  float epsilon = kind % 4 < 2 ? 1e-6f : 0.5f;
  if (kind >= 240) {
    call.unsure_if(true);  // no QkNorm, or one like others
    epsilon = bytes.any_float();
    if (kind % 4 == 3) weight.back() = bytes.any_float();
    if (kind % 4 == 1) weight.resize(static_cast<std::size_t>(kind % 7));
  }
  return QkNorm(dim, weight, epsilon);
}

RopeScaling read_scaling(Bytes& bytes, Index pairs) {
  const std::uint8_t kind = bytes.byte();
  const double factor = 1 + bytes.byte() / 16.0;
  const Index original = 2 + bytes.byte();
  switch (kind % 8) {
    case 1:
      return LinearScaling{factor};
    case 2:
      if (pairs < 2) break;
      return DynamicNtkScaling{factor, original};
    case 3:
      return YarnScaling{.factor = factor, .original_max_position = original};
    case 4:
      return Llama3Scaling{.factor = factor, .original_max_position = original};
    case 5: {
      LongRopeScaling scaling{.original_max_position = original, .factor = factor};
      for (Index i = 0; i < pairs; ++i) {
        scaling.short_factors.push_back(1 + static_cast<double>(i % 3));
        scaling.long_factors.push_back(kind < 128 ? factor : 1 + static_cast<double>(i % 3));
      }
      return scaling;
    }
    case 6:
      return ProportionalScaling{kind / 256.0, factor};
    default:
      break;
  }
  return {};
}

Rope read_rope(Bytes& bytes, Call& call) {
  const Index dim = std::max<Index>(2, read_head_dim(bytes, call));  // none turns heads of one dimension
  const std::uint8_t kind = bytes.byte();
  RopeOptions options;
  options.style = kind % 2 == 0 ? RopeStyle::half_split : RopeStyle::interleaved;
  if (kind / 2 % 2 == 1) options.rotary_begin = bytes.between(0, dim - 2);
  const Index most = (dim - options.rotary_begin) / 2, pairs = kind / 4 % 2 == 0 ? most : bytes.between(1, most);
  options.rotary_dim = 2 * pairs;
  options.scaling = read_scaling(bytes, pairs);
  if (kind / 8 % 4 == 1) {
    const Index height = bytes.between(0, pairs / 3), width = bytes.between(0, pairs / 3);
    options.sections = {pairs - height - width, height, width};
    options.section_order = kind / 32 % 2 == 0 ? RopeSectionOrder::consecutive : RopeSectionOrder::interleaved;
  }
  if (kind >= 240) {
    call.unsure_if(true);  // no Rope, or one like others
    Index* const sizes[] = {&options.rotary_begin, &options.rotary_dim, &options.sections[0], &options.sections[2]};
    *sizes[kind % 4] = bytes.wild(0, 64);
    if (kind % 8 == 1) options.base = static_cast<double>(bytes.any_float());
  }
  return Rope(dim, options);
}

/// Positions of so many tokens: those of text, of a tree, or of an image.
std::vector<Index> make_positions(Bytes& bytes, Index tokens, Index axes) {
  const std::uint8_t kind = bytes.byte();
  const Index first = kind % 16 == 15 ? (Index{1} << 53) - 16384 : bytes.word(), step = kind / 16 % 4,
              spread = 1 + kind % 7;
  std::vector<Index> positions;
  for (Index t = 0; t < tokens; ++t)
    for (Index axis = 0; axis < axes; ++axis) positions.push_back(first + t * step + (axis + 1) * t % spread);
  return positions;
}

/// One number too many or too few, or, where there is one, one that is no position.
void spoil_positions(Bytes& bytes, std::vector<Index>& positions, Index at) {
  const std::uint8_t how = bytes.byte();
  if (how % 3 == 0)
    positions.push_back(0);
  else if (how % 3 == 1)
    positions.pop_back();
  else
    positions[static_cast<std::size_t>(at)] = how % 2 == 0 ? -1 : (Index{1} << 53) + 1;
}

}  // namespace

void read_query_norm(Bytes& bytes, Call& call) {
  call.norm_of_layer = bytes.flag();
  call.query_norm = read_norm(bytes, call);
  call.impossible_if(call.query_norm->head_dim() != call.head_dim);
}

void read_query_rope(Bytes& bytes, Call& call) {
  call.query_rope = read_rope(bytes, call);
  call.impossible_if(call.query_rope->head_dim() != call.head_dim);
}

void read_query_positions(Bytes& bytes, Call& call) {
  const bool spoiled = bytes.byte() >= 224;
  call.at_end.push_back([bytes, spoiled](Call& whole) mutable {
    if (!whole.query_rope && !spoiled) return;  // impossible without
    const Index tokens = whole.query_tokens(), axes = whole.query_rope ? whole.query_rope->num_axes() : 1;
    const Index all = (whole.ragged ? 1 : whole.num_sequences()) * tokens;
    std::vector<Index>& positions = whole.query_positions;
    positions = make_positions(bytes, all, axes);
    Index one = -1;  // a number that is looked at
    for (Index b = 0; b < whole.num_sequences(); ++b) {
      const auto [sequence, first] = whole.queries_of(b);
      const Index begin = (sequence * tokens + first) * axes, queries = whole.queries_of_sequence(b);
      if (queries > 0) one = begin + (queries - 1) * axes;
      std::fill(positions.begin() + begin + queries * axes,
                positions.begin() + begin + whole.sequence(b).queries * axes,
                -1);  // never looked at
    }
    if (spoiled && one >= 0) {
      spoil_positions(bytes, positions, one);
      whole.impossible_if(!positions.empty());
    }
    whole.impossible_if(!positions.empty() && !whole.query_rope);
  });
}

namespace {

/// What is wrong with appending shows where something is appended.
void impossible_to_append_if(Call& call, bool condition) {
  call.impossible_if(condition && !call.of_caller() && call.most_keys() > 0);
}

}  // namespace

void read_key_norm(Bytes& bytes, Call& call) {
  call.appending.norm = read_norm(bytes, call);
  call.at_end.push_back([](Call& whole) {
    impossible_to_append_if(whole, whole.appending.norm->head_dim() != whole.head_dim || whole.values_in_keys);
  });
}

void read_key_rope(Bytes& bytes, Call& call) {
  call.appending.rope = read_rope(bytes, call);
  call.at_end.push_back([](Call& whole) {
    const Rope& rope = *whole.appending.rope;
    impossible_to_append_if(whole, rope.head_dim() != whole.head_dim ||
                                       (whole.values_in_keys && rope.options().rotary_begin < whole.value_dim));
  });
}

void read_key_positions(Bytes& bytes, Call& call) {
  const bool spoiled = bytes.byte() >= 240;
  call.at_end.push_back([bytes, spoiled](Call& whole) mutable {
    if (!whole.appending.rope && !spoiled) return;  // impossible without
    const Index axes = whole.appending.rope ? whole.appending.rope->num_axes() : 1;
    for (Index b = 0; b < whole.num_sequences(); ++b)
      whole.appending.positions.push_back(make_positions(bytes, whole.sequence(b).keys, axes));
    impossible_to_append_if(whole, !whole.appending.rope);
    std::vector<Index>& first = whole.appending.positions.front();  // those of others may be shared with it
    if (!spoiled || first.empty()) return;
    first.front() = -1;
    impossible_to_append_if(whole, true);
  });
}

}  // namespace headwise::fuzz
