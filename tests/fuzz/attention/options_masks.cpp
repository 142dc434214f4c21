// SPDX-License-Identifier: MIT
// Options that say which keys a query sees.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/fuzz/attention/options.hpp"

namespace headwise::fuzz {

namespace {

constexpr float kHidden = -std::numeric_limits<float>::infinity();

/// Sums in which nothing overflows.
bool holds_all(Index size, Index needed) { return size == 1 || size >= needed; }

/// A count of tokens, mostly least … most, for an option and what the definition calls it.
template <class Option, class Parameter>
void read_count(Bytes& bytes, Call& call, Index least, Index most, Option& option, Parameter& parameter) {
  const Index count = bytes.wild(least, most);
  option = count;
  parameter = for_definition(count);
  call.impossible_if(count < least);
}

}  // namespace

void read_causal(Bytes& bytes, Call& call) { call.options.causal = call.parameters.causal = bytes.flag(); }

void read_window(Bytes& bytes, Call& call) {
  read_count(bytes, call, 0, 255, call.options.window, call.parameters.window);
}
void read_sinks(Bytes& bytes, Call& call) {
  read_count(bytes, call, 0, 100, call.options.num_sink_tokens, call.parameters.num_sink_tokens);
}
void read_window_right(Bytes& bytes, Call& call) {
  read_count(bytes, call, 0, 100, call.options.window_right, call.parameters.window_right);
}
void read_chunk_size(Bytes& bytes, Call& call) {
  read_count(bytes, call, 1, 100, call.options.chunk_size, call.parameters.chunk_size);
}

/// Each 0 … the keys that exist.
namespace {

void limit_to_keys(const std::vector<Index>& lengths, Call& call) {
  for (Index b = 0; b < std::min(std::ssize(lengths), call.num_sequences()); ++b)
    call.impossible_if(lengths[static_cast<std::size_t>(b)] > call.keys_of(b));
}

}  // namespace

void read_prefix_lengths(Bytes& bytes, Call& call) {
  call.prefix_lengths = read_lengths(bytes, call, &Sequence::keys);
  call.at_end.push_back([](Call& whole) { limit_to_keys(whole.prefix_lengths, whole); });
}
void read_key_starts(Bytes& bytes, Call& call) {
  call.key_starts = read_lengths(bytes, call, &Sequence::keys);
  call.at_end.push_back([](Call& whole) { limit_to_keys(whole.key_starts, whole); });
}

namespace {

constexpr Index kMostElements = 1 << 17;

/// A number of an additive mask: mostly none or a small one, else one that hides nearly or altogether.
float added_number(std::uint32_t bits, bool extreme) {
  constexpr float kMost = std::numeric_limits<float>::max();
  constexpr float kExtremes[] = {-kMost, -1e30f, -65504.0f, -1e9f, -10000.0f, 1e30f, 0x1.8p126f, -0x1.8p126f};
  if (extreme && bits % 16 == 0) return kExtremes[bits / 16 % std::size(kExtremes)];
  if (bits % 4 == 1) return 0.0f;
  return static_cast<float>(static_cast<std::int32_t>(bits / 64 % 4096) - 2048) / 512.0f;
}

/// Its size in one dimension: that of the call, or 1 for all, or rarely another one.
Index mask_size(Bytes& bytes, Index of_call) {
  const std::uint8_t choice = bytes.byte();
  if (choice >= 240) return 1 + choice % 16;
  return choice % 3 == 0 ? 1 : std::max<Index>(1, of_call);
}

/// What Options::mask says of shapes.
bool mask_fits(const Call& call, const std::array<Index, 4>& sizes) {
  const bool queries =
      call.ragged ? holds_all(sizes[2], call.longest_queries()) : sizes[2] == 1 || sizes[2] == call.query_tokens();
  return (sizes[0] == 1 || sizes[0] == call.num_sequences()) && (sizes[1] == 1 || sizes[1] == call.num_heads) &&
         queries && holds_all(sizes[3], call.longest_keys());
}

}  // namespace

void read_mask(Bytes& bytes, Call& call) {
  const auto type = static_cast<MaskType>(bytes.byte() % kMaskTypes);
  Index queries = 0;  // of the longest sequence
  for (const Sequence& s : call.sequences) queries = std::max(queries, s.queries);
  const std::uint8_t order = bytes.byte(), layout = bytes.byte();
  MaskMemory::Shape shape{{mask_size(bytes, call.num_sequences()), mask_size(bytes, call.num_heads),
                           mask_size(bytes, queries), mask_size(bytes, call.most_keys())},
                          {0, 1, 2, 3},
                          {layout % 2 == 1, layout / 2 % 2 == 1, layout / 4 % 2 == 1, layout / 8 % 2 == 1},
                          layout / 16 % 4};
  if (layout / 64 % 4 == 1) shape.sizes[3] += 3;  // more keys than there are
  for (Index& size : shape.sizes)                 // so that the longest of several sequences do not make it huge
    if (shape.sizes[0] * shape.sizes[1] * shape.sizes[2] * shape.sizes[3] > kMostElements) size = 1;
  for (int i = 0, last = type == MaskType::bits ? 3 : 4, rest = order; i + 1 < last; rest /= last - i++)
    std::swap(shape.order[static_cast<std::size_t>(i)], shape.order[static_cast<std::size_t>(i + rest % (last - i))]);
  const Pattern sees(bytes);
  const bool extreme = bytes.byte() % 4 == 1;
  call.mask = std::make_unique<MaskMemory>(type, shape);
  for (Index b = 0; b < shape.sizes[0]; ++b)
    for (Index h = 0; h < shape.sizes[1]; ++h)
      for (Index i = 0; i < shape.sizes[2]; ++i)
        for (Index t = 0; t < shape.sizes[3]; ++t)
          call.mask->set(b, h, i, t,
                         sees(b, h, i, t) ? added_number(mixed(sees.seed + 1, b, h, i, t), extreme) : kHidden);
  call.options.mask = call.mask->mask();
  call.at_end.push_back([](Call& whole) { whole.impossible_if(!mask_fits(whole, whole.mask->sizes())); });
}

namespace {

/// Whether a tree mask of so many rows is one tree for all sequences.
bool one_tree(const Call& call, Index rows) {
  if (!call.ragged) return rows == call.query_tokens();
  return std::ranges::all_of(call.sequences, [&](const Sequence& s) { return s.queries == rows; });
}
Index all_tree_rows(const Call& call) {
  return call.ragged ? call.query_tokens() : call.num_sequences() * call.query_tokens();
}

void give_tree(Call& call, std::unique_ptr<TreeMemory> tree) {
  call.tree = std::move(tree);
  const TreeMask mask = call.tree->mask();
  call.options.tree_mask = mask;
  call.at_end.push_back([mask](Call& whole) {
    whole.impossible_if(!one_tree(whole, mask.rows()) && mask.rows() != all_tree_rows(whole));
    whole.impossible_if(mask.words_per_row() * 64 < whole.longest_queries());
  });
}

}  // namespace

void read_tree_mask(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  auto tree = std::make_unique<TreeMemory>();
  Index queries = 0;
  for (const Sequence& s : call.sequences) queries = std::max(queries, s.queries);
  tree->words_per_row = kind < 224 ? std::max<Index>(1, ceil_div(queries, 64)) + kind / 2 % 2 : 1 + kind % 3;
  tree->rows = kind % 2 == 0 && one_tree(call, queries) ? queries : all_tree_rows(call);
  if (kind >= 240) tree->rows = kind % 16;
  tree->words.resize(static_cast<std::size_t>(tree->rows * tree->words_per_row));
  const Pattern sees(bytes);
  for (Index row = 0; row < tree->rows; ++row)
    for (Index node = 0; node < tree->words_per_row * 64; ++node)
      if (sees(0, 0, row, node))
        tree->words[static_cast<std::size_t>(row * tree->words_per_row + node / 64)] |= std::uint64_t{1} << (node % 64);
  if (!call.tree) give_tree(call, std::move(tree));
}

void read_draft_tree(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  auto tree = std::make_unique<TreeMemory>();
  const bool one = kind % 2 == 0 && one_tree(call, call.sequence(0).queries);
  tree->offsets.push_back(0);
  for (Index b = 0; b < (one ? 1 : call.num_sequences()); ++b) {
    const Index nodes = call.sequence(b).queries;
    for (Index node = 0; node < nodes; ++node)  // near ones: deep trees
      tree->parents.push_back(node - 1 - std::min(node, bytes.byte() % Index{4}));
    tree->offsets.push_back(tree->offsets.back() + nodes);
  }
  if (kind >= 240 && !tree->parents.empty()) {
    tree->parents[kind % tree->parents.size()] = bytes.wild(-1, 5);
    call.unsure_if(true);  // another tree, or none
  }
  tree->tree = DraftTree::from_parents(tree->parents, tree->offsets);
  if (!call.tree) give_tree(call, std::move(tree));
}

void read_tile_set(Bytes& bytes, Call& call) {
  const std::uint8_t kind = bytes.byte();
  Index queries = 0;
  for (const Sequence& s : call.sequences) queries = std::max(queries, s.queries);
  TileSetShape shape;
  shape.block_tokens = kind % 4 == 0 ? 64 : 1 + kind % 40;
  shape.tiles = ceil_div(call.most_keys(), 64) + kind / 8 % 2;
  shape.sequences = kind / 16 % 2 == 0 ? 1 : call.num_sequences();
  shape.kv_heads = kind / 32 % 2 == 0 ? 1 : call.num_kv_heads;
  shape.query_blocks = kind / 64 % 2 == 0 ? 1 : std::max<Index>(1, ceil_div(queries, shape.block_tokens));
  if (const std::uint8_t wrong = bytes.byte(); wrong >= 240) {
    Index* const sizes[] = {&shape.tiles, &shape.sequences, &shape.kv_heads, &shape.query_blocks, &shape.block_tokens};
    *sizes[wrong % 5] = std::min<Index>(bytes.wild(0, 8), 64);
    call.impossible_if(shape.tiles < 0 || std::min({shape.sequences, shape.kv_heads, shape.query_blocks}) < 1 ||
                       shape.block_tokens < 1);
  }
  const Pattern lists(bytes);
  call.tile_set = std::make_unique<TileSet>(shape);
  for (Index b = 0; b < shape.sequences; ++b)
    for (Index g = 0; g < shape.kv_heads; ++g)
      for (Index block = 0; block < shape.query_blocks; ++block)
        for (Index tile = 0; tile < shape.tiles; ++tile)
          if (lists(b, g, block, tile)) call.tile_set->insert(b, g, block, tile);
  call.lists_tile = [lists, shape](Index b, Index g, Index i, Index tile) {
    return lists(shape.sequences == 1 ? 0 : b, shape.kv_heads == 1 ? 0 : g,
                 shape.query_blocks == 1 ? 0 : i / shape.block_tokens, tile);
  };
  call.options.tile_set = call.tile_set.get();
  call.at_end.push_back([shape](Call& whole) {
    whole.impossible_if(shape.sequences != 1 && shape.sequences != whole.num_sequences());
    whole.impossible_if(shape.kv_heads != 1 && shape.kv_heads != whole.num_kv_heads);
    whole.impossible_if(!holds_all(shape.query_blocks, ceil_div(whole.longest_queries(), shape.block_tokens)));
    whole.impossible_if(shape.tiles < ceil_div(whole.longest_keys(), 64));
  });
}

void read_mask_function(Bytes& bytes, Call& call) {
  const std::uint8_t form = bytes.byte() % 3;
  const Pattern sees(bytes);
  call.function_sees = [sees, form](Index b, Index head, Index p, Index key) {
    return sees(b, form == 1 ? 0 : head, p, key);
  };
  if (form == 0) call.options.mask_function.emplace(call.mask_function.emplace<SeesByHead>(sees));
  if (form == 1) call.options.mask_function.emplace(call.mask_function.emplace<SeesByQuery>(sees));
  if (form == 2) call.options.mask_function.emplace(call.mask_function.emplace<SeesByTile>(sees));
}

}  // namespace headwise::fuzz
