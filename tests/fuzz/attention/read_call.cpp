// SPDX-License-Identifier: MIT
#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

namespace {

constexpr Index kMostSums = 1 << 17;     // products that the definition adds up, for some hundred calls a second
constexpr Index kMostNumbers = 1 << 15;  // of keys, and of values

/// Mostly few; otherwise those around which kernels change their ways.
Index read_dim(Bytes& bytes) {
  constexpr Index kDims[] = {31, 32, 33, 48, 63, 64, 65, 80, 96, 127, 128, 160, 255, 256, kMaxHeadDim - 1, kMaxHeadDim};
  const std::uint8_t choice = bytes.byte();
  return choice < 192 ? 1 + choice % 24 : kDims[choice % std::size(kDims)];
}

/// Mostly few; otherwise around whole tiles and segments.
Index read_keys(Bytes& bytes) {
  const Index choice = bytes.word(), few = choice % 200;
  switch (choice / 4096) {  // 0 … 15
    case 0:
      return std::max<Index>(0, choice % 34 * 64 + choice / 34 % 3 - 1);
    case 1:
      return 1023 + choice % 3;
    case 2:
      return 1024 + choice % 1100;
    default:
      return few;
  }
}

Index read_queries(Bytes& bytes) {
  const std::uint8_t choice = bytes.byte();
  return choice < 128 ? choice % 8 : choice % 160;
}

/// Makes the call smaller until it is quick, the same for the same bytes.
void limit_work(Call& call) {
  const auto sums = [&] {
    Index total = 0;
    for (const Sequence& s : call.sequences)
      total += std::max<Index>(1, s.queries) * s.keys * call.num_heads * (call.head_dim + call.value_dim);
    return total;
  };
  const auto numbers = [&] {
    Index total = 0;
    for (const Sequence& s : call.sequences)
      total += s.keys * call.num_kv_heads * std::max(call.head_dim, call.value_dim);
    return total;
  };
  while (sums() > kMostSums || numbers() > kMostNumbers) {
    Index queries = 0;
    for (const Sequence& s : call.sequences) queries = std::max(queries, s.queries);
    if (queries > 4 && sums() > kMostSums) {
      for (Sequence& s : call.sequences) s.queries = (s.queries + 1) / 2;
    } else if (call.num_heads > 4) {
      call.num_heads = call.num_kv_heads = call.num_heads / 2;
    } else if (call.head_dim > 4 || call.value_dim > 4) {
      call.head_dim = (call.head_dim + 1) / 2;
      call.value_dim = (call.value_dim + 1) / 2;
    } else {
      for (Sequence& s : call.sequences) s.keys /= 2;
    }
  }
}

/// Random numbers that look like those of a model: most near 0, some far from it.
class Numbers {
 public:
  explicit Numbers(std::uint64_t seed) : state_(seed) {}
  std::vector<float> operator()(Index count) {
    std::vector<float> numbers(static_cast<std::size_t>(count));
    for (float& x : numbers) {
      const std::uint64_t bits = next();
      x = static_cast<float>(static_cast<std::int32_t>(bits)) * 0x1p-30f + static_cast<float>(bits >> 32) * 0x1p-31f -
          1;
    }
    return numbers;
  }

 private:
  std::uint64_t next() {  // splitmix64
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  std::uint64_t state_;
};

void read_route(Bytes& bytes, Call& call) {
  const auto isas = available_isas();
  call.isa = isas[bytes.byte() % isas.size()];
  call.source = static_cast<Source>(bytes.byte() % kSources);
  const bool of_caller = call.of_caller();
  const int types = of_caller ? 3 : kStorages;
  const int storages = bytes.byte(), elements = bytes.byte(), layouts = bytes.byte(), flags = bytes.byte();
  call.keys = static_cast<Storage>(storages % types);
  call.values = static_cast<Storage>(storages / types % types);
  call.queries = static_cast<Storage>(elements % 3);
  call.outputs = static_cast<Storage>(elements / 3 % 3);
  call.key_layout = static_cast<Layout>(layouts % kLayouts);
  call.value_layout = static_cast<Layout>(layouts / 4 % kLayouts);
  call.query_layout = static_cast<Layout>(layouts / 16 % kLayouts);
  call.output_layout = static_cast<Layout>(layouts / 64 % kLayouts);
  call.lse = flags % 2 == 0;
  call.planned = flags / 2 % 2 == 1;
  call.threads = flags / 4 % 8 == 7;  // seldom: threads take long to wake
  call.hadamard = !of_caller && flags / 32 % 2 == 1;
  call.channel_scales = !of_caller && flags / 64 % 2 == 1;
  call.two_layers = call.wide_table = flags / 128 % 2 == 1;
  const Index chunk = bytes.byte(), detail = bytes.byte();
  call.chunk = chunk;
  call.size = call.source == Source::pages ? 1 + detail % 3 : 1 + detail % 100;
  call.shared = call.source == Source::pages ? detail * 16 : 0;
  if (call.source == Source::ring) {
    call.window = 1 + detail % 100;
    call.sinks = chunk % 3 * 4;
    call.verdict = Verdict::either;  // of a call that sees what was forgotten
  }
}

void read_shape(Bytes& bytes, Call& call) {
  const std::uint8_t groups = bytes.byte();
  call.num_kv_heads = 1 + groups % 4;
  call.num_heads = call.num_kv_heads * (1 + groups / 4 % 4) + (groups >= 224 ? groups % 3 : 0);
  call.head_dim = read_dim(bytes);
  const Index value_dim = read_dim(bytes);
  call.value_dim = value_dim % 2 == 0 ? call.head_dim : value_dim;
  const std::uint8_t count = bytes.byte();
  call.ragged = count / 16 % 2 == 1;
  call.sequences.resize(1 + count % 3u);
  for (Sequence& s : call.sequences) {
    s.queries = read_queries(bytes);
    s.keys = read_keys(bytes);
  }
  for (Sequence& s : call.sequences) {
    if (!call.ragged) s.queries = call.sequence(0).queries;
    if (call.source == Source::rows) s.keys = call.sequence(0).keys;
  }
  limit_work(call);
}

void make_data(Bytes& bytes, Call& call) {
  Numbers numbers(static_cast<std::uint64_t>(bytes.word()));
  for (Sequence& s : call.sequences) {
    s.q = numbers(s.queries * call.num_heads * call.head_dim);
    s.k = numbers(s.keys * call.num_kv_heads * call.head_dim);
    s.v = numbers(s.keys * call.num_kv_heads * call.value_dim);
  }
}

}  // namespace

void read_call(Bytes bytes, Call& call) {
  constexpr int kMostOptions = 64;
  read_route(bytes, call);
  read_shape(bytes, call);
  make_data(bytes, call);
  if (call.ragged) {
    call.query_offsets.push_back(0);
    for (const Sequence& s : call.sequences) call.query_offsets.push_back(call.query_offsets.back() + s.queries);
  }
  for (int i = 0; i < kMostOptions && !bytes.empty(); ++i) read_option(bytes, call);

  // what only all of them together tell
  for (const auto& finish : call.at_end) finish(call);
  call.impossible_if(call.num_heads % call.num_kv_heads != 0 && !call.map);
  call.impossible_if(!call.boundaries.empty() && call.map_of_call);
  call.impossible_if(!call.query_offsets.empty() && !call.query_lengths.empty());
  Options& options = call.options;
  options.alibi_slopes = call.slopes;
  options.sink_logits = call.sink_logits;
  options.relative_bias = call.bias ? &*call.bias : nullptr;
  options.key_lengths = call.key_lengths;
  options.key_starts = call.key_starts;
  options.prefix_lengths = call.prefix_lengths;
  options.query_norm = call.query_norm ? &*call.query_norm : nullptr;
  options.query_rope = call.query_rope ? &*call.query_rope : nullptr;
  options.query_positions = call.query_positions;
  options.query_lengths = call.query_lengths;
  options.query_offsets = call.query_offsets;
  options.group_boundaries = call.boundaries;
  options.head_map = call.map_of_call ? &*call.map_of_call : nullptr;
}

}  // namespace headwise::fuzz
