// SPDX-License-Identifier: MIT
// The caller's own memory is attended to; all else is the caller's to do, and does not compile.
#include <gtest/gtest.h>

#include <cstdint>

#include "tests/cache_cells/checks.hpp"
#include "tests/cache_cells/table.hpp"

namespace headwise::testing {
namespace {

template <class T>
class Rows {
 public:
  static constexpr const char* kName = "KvRows";
  explicit Rows(Model& model) : model_(model) {
    for (Index l = 0; l < kLayers; ++l) {
      Tokens all;
      for (Index b = 0; b < kSequences; ++b) all.insert(all.end(), model.at(b, l).begin(), model.at(b, l).end());
      packed_.emplace_back(all, model.shape(l));
    }
  }
  Index num_tokens(Index layer, Index sequence) const { return std::ssize(model_.at(sequence, layer)); }
  bool keeps(Index, Index, Index) const { return true; }
  void read(Index layer, Index sequence, Index token, Index g, std::span<float> key, std::span<float> value) const {
    const Token& t = model_.at(sequence, layer)[Model::index(token)];
    for (std::size_t d = 0; d < key.size(); ++d)
      key[d] = static_cast<float>(T(t.key[Model::index(g) * key.size() + d]));
    for (std::size_t d = 0; d < value.size(); ++d)
      value[d] = static_cast<float>(T(t.value[Model::index(g) * value.size() + d]));
  }
  template <class F>
  void with_source(Index layer, F f) const {
    const auto& [keys, values, k, v] = packed_[Model::index(layer)];
    const LayerShape& s = model_.shape(layer);
    const Index tokens = num_tokens(layer, 0);  // equally many of each sequence
    f(KvRows(View<const T>(keys.data(), kSequences, tokens, s.num_kv_heads, s.head_dim),
             View<const T>(values.data(), kSequences, tokens, s.num_kv_heads, s.value_dim)));
  }

 protected:
  Model& model_;
  std::vector<Packed<T>> packed_;
};

/// The same memory as blocks of 16 slots, in tables.
template <class T>
class Blocks : public Rows<T> {
 public:
  static constexpr const char* kName = "KvBlocks";
  using Rows<T>::Rows;
  template <class F>
  void with_source(Index layer, F f) const {
    const auto& [keys, values, k, v] = this->packed_[Model::index(layer)];
    const LayerShape& s = this->model_.shape(layer);
    const Index blocks = this->num_tokens(layer, 0) / 16;
    std::vector<std::int32_t> table(Model::index(kSequences * blocks));
    for (std::size_t i = 0; i < table.size(); ++i) table[i] = static_cast<std::int32_t>(i);
    const std::vector<Index> lengths(Model::index(kSequences), 16 * blocks);
    f(KvBlocks(View<const T>(keys.data(), kSequences * blocks, 16, s.num_kv_heads, s.head_dim),
               View<const T>(values.data(), kSequences * blocks, 16, s.num_kv_heads, s.value_dim),
               BlockTable(table.data(), kSequences, blocks), lengths));
  }
};

template <template <class> class Memory, class T>
void expect_attends_in(Storage storage) {
  Model model(plain_layers());
  for (Index b = 0; b < kSequences; ++b)
    for (Index l = 0; l < kLayers; ++l) model.at(b, l) = model.fresh(l, 208);
  const Memory<T> memory(model);
  const Types types{storage, storage};
  for (const bool causal : {true, false}) {
    expect_attends(memory, model, types, causal);
    if (::testing::Test::HasFatalFailure()) return;
    CellTable::instance().passed(causal ? "attend" : "cross-attend", Memory<T>::kName, types.name());
  }
}

TEST(CacheCells, AttendToRowsOfTheCaller) {
  expect_attends_in<Rows, float>(Storage::f32);
  expect_attends_in<Rows, f16>(Storage::f16);
  expect_attends_in<Rows, bf16>(Storage::bf16);
}

TEST(CacheCells, AttendToBlocksOfTheCaller) {
  expect_attends_in<Blocks, float>(Storage::f32);
  expect_attends_in<Blocks, f16>(Storage::f16);
  expect_attends_in<Blocks, bf16>(Storage::bf16);
}

template <class C>
concept Changes =
    requires(C& c, View<const float> v) { c.append(v, v); } || requires(C& c, Index i) { c.truncate(i, i); } ||
    requires(C& c, Index i) { c.fork(i, i); } || requires(C& c, Index i) { c.evict(i, i, i); } ||
    requires(C& c, Index i) { c.copy_range(i, i, i, i); } ||
    requires(C& c, std::span<const Index> p) { c.reorder(p); } || requires(C& c) { c.defragment(); } ||
    requires(C& c, std::ostream& out) { save(c, Index{}, out); };

TEST(CacheCells, ChangingTheMemoryOfTheCallerDoesNotCompile) {
  static_assert(!Changes<KvRows> && !Changes<KvBlocks>);
  static_assert(Changes<KvCache<float>>, "the question can be answered with yes");
  for (const char* kind : {"KvRows", "KvBlocks"})
    for (const char* operation : {"append one token", "append many", "append to several sequences, ragged",
                                  "append with RoPE", "append f16 and bf16", "truncate, roll back", "clear", "fork",
                                  "copy a range", "reorder beams", "evict", "evict and turn keys (context shift)",
                                  "forget all but sinks and a window", "defragment", "save and restore", "count bytes"})
      CellTable::instance().refused(operation, kind, "the memory is the caller's, and so is all that changes it");
}

}  // namespace
}  // namespace headwise::testing
