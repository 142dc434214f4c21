// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <optional>

#include "headwise/cache/paged_cache.hpp"
#include "tests/cache/paged_fixture.hpp"
#include "tests/support/errors.hpp"

namespace headwise {
namespace {

using testing::append_tokens;
using testing::expect_error;
using testing::keys_of;
using testing::PackedTokens;
using testing::PagedSnapshot;
using testing::tokens_like;
using testing::values_of;

const LayerShape kLayers[] = {{2, 6, 3}, {2, 6, 3}, {1, 4, 2}};
const Index kSources[] = {0, 0, 2};

class PagedErrors : public ::testing::Test {
 protected:
  PagedErrors() {
    append_tokens(cache_, id_, 70, 1);
    append_tokens(cache_, other_, 5, 2);
    before_.emplace(cache_);
  }
  void TearDown() override { EXPECT_TRUE(PagedSnapshot(cache_) == *before_); }

  View<const float> keys(const PackedTokens& tokens) const { return keys_of(tokens, kLayers[0]); }
  View<const float> values(const PackedTokens& tokens) const { return values_of(tokens, kLayers[0]); }

  PagedCache<float> cache_{kLayers, KvSharing::from_sources(kSources), 8};
  SequenceId id_ = cache_.create(), other_ = cache_.create();
  PackedTokens tokens_ = tokens_like(kLayers[0], 4, 3);
  std::optional<PagedSnapshot> before_;
};

TEST_F(PagedErrors, AReleasedSequenceIsNamedByEveryFunction) {
  const SequenceId gone = cache_.fork(id_);
  cache_.release(gone);
  const Index one[] = {1};
  float out[6];
  const auto expect_released = [](auto f) { expect_error(f, {"sequence 2 (released)", "in use"}); };
  expect_released([&] { cache_.release(gone); });
  expect_released([&] { cache_.fork(gone); });
  expect_released([&] { cache_.append(0, gone, keys(tokens_), values(tokens_)); });
  expect_released([&] { cache_.reserve(std::span(&gone, 1), one); });
  expect_released([&] { cache_.truncate(gone, 0); });
  expect_released([&] { cache_.truncate(0, gone, 0); });
  expect_released([&] { cache_.clear(gone); });
  expect_released([&] { cache_.evict(gone, 0, 0); });
  expect_released([&] { cache_.copy_range(gone, 0, 0, id_); });
  expect_released([&] { cache_.copy_range(id_, 0, 0, gone); });
  expect_released([&] { cache_.reorder(std::span(&gone, 1), std::span(one, 1)); });
  expect_released([&] { cache_.register_prefix(gone, {}); });
  expect_released([&] { cache_.num_tokens(0, gone); });
  expect_released([&] { cache_.num_pages(gone); });
  expect_released([&] { cache_.read_key(0, gone, 0, 0, out); });
  expect_released([&] { cache_.layer(0, std::span(&gone, 1)); });
  expect_released([&] { cache_.store(std::span(&gone, 1)); });
  EXPECT_FALSE(cache_.contains(gone));
  // whose place has been taken by another since
  const SequenceId next = cache_.create();
  EXPECT_EQ(next.number(), gone.number());
  expect_released([&] { cache_.release(gone); });
  cache_.release(next);
}

TEST_F(PagedErrors, ASequenceOfAnotherCacheAndNoneAtAllAreNamed) {
  PagedCache<float> second(kLayers, 8);
  const SequenceId foreign = second.create();
  expect_error([&] { cache_.fork(foreign); }, {"sequence 0 (of another cache)", "this PagedCache"});
  expect_error([&] { cache_.release(SequenceId()); }, {"sequence (none)", "create"});
  EXPECT_FALSE(cache_.contains(foreign));
  EXPECT_FALSE(cache_.contains(SequenceId()));
}

TEST_F(PagedErrors, SequencesOfARaggedAppendMustDiffer) {
  const SequenceId twice[] = {id_, other_, id_};
  const Index offsets[] = {0, 1, 2, 4}, zeros[] = {0, 0, 0};
  expect_error([&] { cache_.append_ragged(0, twice, offsets, keys(tokens_), values(tokens_)); },
               {"sequences[2]", "twice"});
  expect_error([&] { cache_.reserve(twice, zeros); }, {"sequences[2]", "twice"});
  expect_error([&] { cache_.reorder(twice, zeros); }, {"sequences[2]", "twice"});
}

TEST_F(PagedErrors, OffsetsMustCoverTheTokensInOrder) {
  const SequenceId ids[] = {id_, other_};
  const auto append = [&](std::vector<Index> offsets) {
    return [this, ids, offsets] { cache_.append_ragged(0, ids, offsets, keys(tokens_), values(tokens_)); };
  };
  expect_error(append({0, 4}), {"offsets (2 numbers)", "one more"});
  expect_error(append({1, 2, 4}), {"offsets[0] (1)", "0"});
  expect_error(append({0, 3, 2}), {"offsets[2] (2)"});
  expect_error(append({0, 2, 3}), {"offsets[2] (3)", "tokens of k (4)"});
}

TEST_F(PagedErrors, ShapesOfKeysAndValuesMustBeThoseOfTheLayer) {
  const std::vector<float> numbers(200);
  const auto view = [&](Index sequences, Index tokens, Index heads, Index dim) {
    return View<const float>(numbers.data(), sequences, tokens, heads, dim);
  };
  expect_error([&] { cache_.append(0, id_, view(1, 4, 1, 6), view(1, 4, 2, 3)); }, {"heads (1) of k", "(2)"});
  expect_error([&] { cache_.append(0, id_, view(1, 4, 2, 6), view(1, 4, 2, 6)); }, {"dim (6) of v", "3"});
  expect_error([&] { cache_.append(0, id_, view(1, 4, 2, 6), view(1, 3, 2, 3)); }, {"tokens (3) of v", "(4)"});
  expect_error([&] { cache_.append(0, id_, view(2, 4, 2, 6), view(2, 4, 2, 3)); }, {"sequences (2) of k", "1"});
  expect_error([&] { cache_.append(0, id_, keys(tokens_), values(tokens_), Rope(8)); }, {"head_dim (8)", "(6)"});
}

TEST_F(PagedErrors, LayersMustExistAndMakeTheirOwn) {
  expect_error([&] { cache_.append(3, id_, keys(tokens_), values(tokens_)); }, {"layer (3)", "(2)"});
  expect_error([&] { cache_.append(1, id_, keys(tokens_), values(tokens_)); }, {"layer (1)", "layer 0"});
  expect_error([&] { cache_.truncate(1, id_, 0); }, {"layer (1)", "layer 0"});
  expect_error([&] { cache_.layer(-1, std::span(&id_, 1)); }, {"layer (-1)"});
  EXPECT_EQ(cache_.num_tokens(1, id_), 70);  // a borrower reads its source's
}

TEST_F(PagedErrors, TokensMustBeStored) {
  float out[12];
  expect_error([&] { cache_.truncate(id_, 71); }, {"tokens (71)", "(70)"});
  expect_error([&] { cache_.truncate(id_, -1); }, {"tokens (-1)"});
  expect_error([&] { cache_.truncate(2, id_, 71); }, {"tokens (71)", "(70)"});
  expect_error([&] { cache_.evict(id_, -1, 5); }, {"first (-1)"});
  expect_error([&] { cache_.evict(id_, 6, 5); }, {"first (6)", "last (5)"});
  expect_error([&] { cache_.evict(id_, 6, 71); }, {"last (71)", "70"});
  expect_error([&] { cache_.copy_range(other_, 0, 6, id_); }, {"last (6)", "5"});
  expect_error([&] { cache_.register_prefix(other_, std::vector<std::int32_t>(6)); }, {"tokens (6)", "5"});
  expect_error([&] { cache_.read_key(0, id_, 70, 0, std::span(out, 6)); }, {"token (70)", "(69)"});
  expect_error([&] { cache_.read_key(0, id_, 0, 2, std::span(out, 6)); }, {"kv_head (2)", "(1)"});
  expect_error([&] { cache_.read_key(0, id_, 0, 0, std::span(out, 5)); }, {"out (5", "6"});
  expect_error([&] { cache_.read_value(0, id_, 0, 0, std::span(out, 4)); }, {"out (4", "3"});
  expect_error([&] { cache_.read_keys(0, id_, 69, 2, 0, out); }, {"count (2)", "(1)"});
  expect_error([&] { cache_.reserve(id_, -1); }, {"tokens (-1)"});
  expect_error([&] { cache_.match_prefix({}, 0, -1); }, {"leave (-1)"});
}

TEST_F(PagedErrors, RopesMustFitTheirLayersAndMoveKeys) {
  const std::vector<Rope> two{Rope(6), Rope(6)};
  const std::vector<const Rope*> wrong{&two[0], nullptr, &two[1]};
  const Rope dynamic(6, {.scaling = DynamicNtkScaling{2.0, 64}});
  const std::vector<const Rope*> moving{&dynamic, nullptr, nullptr};
  expect_error([&] { cache_.evict(id_, 0, 1, two); }, {"ropes (2)", "(3)"});
  expect_error([&] { cache_.evict(id_, 0, 1, wrong); }, {"head_dim (6)", "layer 2", "(4)"});
  expect_error([&] { cache_.copy_range(id_, 0, 1, other_, moving); }, {"dynamic NTK"});
}

TEST_F(PagedErrors, ParentsMustBeBeams) {
  const SequenceId beams[] = {id_, other_};
  const Index low[] = {0, -1}, high[] = {2, 0}, few[] = {0};
  expect_error([&] { cache_.reorder(beams, low); }, {"parents[1] (-1)"});
  expect_error([&] { cache_.reorder(beams, high); }, {"parents[0] (2)"});
  expect_error([&] { cache_.reorder(beams, few); }, {"parents (1)", "(2)"});
}

TEST(PagedErrorsOfMaking, OptionsAreNamed) {
  const auto make = [](Index pages, PagedOptions options, std::vector<LayerShape> layers = {{2, 6, 3}}) {
    return [=] { PagedCache<float> cache(layers, pages, options); };
  };
  expect_error(make(0, {}), {"num_pages (0)"});
  expect_error(make(Index{1} << 40, {}), {"num_pages"});
  expect_error(make(4, {.page_tokens = 0}), {"page_tokens (0)", "64"});
  expect_error(make(4, {.page_tokens = 96}), {"page_tokens (96)", "multiple of 64"});
  expect_error(make(4, {.max_sequences = 0}), {"max_sequences (0)"});
  expect_error(make(4, {}, {}), {"layers"});
  expect_error(make(4, {}, {{0, 6}}), {"layers[0].num_kv_heads (0)"});
  expect_error(make(4, {}, {{1, 6, 0, 32}}), {"layers[0].window (32)", "every token"});
  expect_error(make(4, {.key_storage = Storage::int8}), {"key_storage (int8)", "f32"});
  expect_error(make(4, {.key_channel_scales = {{1, 2}}}), {"key_channel_scales[0] (2 factors)", "(12)"});
  expect_error(make(Index{1} << 30, {.page_tokens = Index{1} << 20}, {{1 << 20, 512}}), {"num_pages", "2^63"});
  expect_error([] { PagedCache<> cache(Heads<>{2, 2, 4}, 4, {}); }, {"key_storage (unset)", "PagedOptions"});
}

TEST(PagedErrorsOfMaking, StorageIsOfTheTypeOrOfTheOptions) {
  PagedCache<int8, bf16> typed(Heads<>{2, 2, 4}, 4);
  PagedCache<> open(Heads<>{2, 2, 4}, 4, {.key_storage = Storage::int8, .value_storage = Storage::bf16});
  PagedCache<int8, AnyStorage> half(Heads<>{2, 2, 4}, 4);
  const SequenceId a = typed.create(), b = open.create(), c = half.create();
  EXPECT_EQ(typed.layer(0, std::span(&a, 1)).format(), open.layer(0, std::span(&b, 1)).format());
  EXPECT_EQ(half.layer(0, std::span(&c, 1)).format().value_storage, Storage::int8);
}

}  // namespace
}  // namespace headwise
