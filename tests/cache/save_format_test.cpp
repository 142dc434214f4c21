// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <istream>
#include <streambuf>
#include <string>
#include <vector>

#include "headwise/cache/tile_codec.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "tests/cache/fake_store.hpp"
#include "tests/cache/saved_bytes.hpp"
#include "tests/support/errors.hpp"

namespace headwise::testing {
namespace {

constexpr TileFormat kSmall{Storage::bf16, Storage::bf16, 1, 8, 16};

std::vector<TileFormat> every_storage_type() {
  std::vector<TileFormat> formats;
  for (int k = 0; k < kStorages; ++k)
    formats.push_back(
        {static_cast<Storage>(k), static_cast<Storage>((k + 3) % kStorages), 1 + k % 3, 9 + 7 * k, 40 - 3 * k});
  return formats;
}

const TokenRange kRanges[] = {{0, 0, 0},     {0, 0, 1},       {0, 0, 63},   {0, 0, 64},     {0, 0, 65},
                              {0, 0, 200},   {4, 70, 200},    {4, 20, 64},  {64, 128, 192}, {65, 127, 130},
                              {0, 136, 200}, {100, 120, 121}, {4, 100, 100}};

/// What a reader makes of each slot without a token.
void expect_cleared(const TileFormat& format, const std::string& tile, Index slot) {
  std::vector<float> row(kMaxHeadDim);
  const auto* const bytes = reinterpret_cast<const std::byte*>(tile.data());
  detail::read_stored_key(format, bytes, slot, row.data());
  for (Index d = 0; d < format.head_dim; ++d) ASSERT_EQ(row[static_cast<std::size_t>(d)], 0.0f);
  detail::read_stored_value(format, bytes, slot, row.data());
  for (Index d = 0; d < format.value_dim; ++d) ASSERT_EQ(row[static_cast<std::size_t>(d)], 0.0f);
}
/// A slot's numbers, with NaN made a number.
std::vector<float> slot_numbers(const TileFormat& format, const std::string& tile, Index slot) {
  std::vector<float> row(static_cast<std::size_t>(format.head_dim + format.value_dim));
  const auto* const bytes = reinterpret_cast<const std::byte*>(tile.data());
  detail::read_stored_key(format, bytes, slot, row.data());
  detail::read_stored_value(format, bytes, slot, row.data() + format.head_dim);
  for (float& x : row)
    if (x != x) x = -1234.5f;
  return row;
}

TEST(SaveFormat, WritesTheHeaderAsItIsDescribed) {
  FakeStore store({kSmall, {Storage::int4, Storage::e5m2, 3, 80, 9}});
  const std::vector<float> scales(3 * 80, 1.5f);
  store.transforms[1] = {scales.data(), true};
  store.fill(0, {TokenRange{0, 0, 65}, TokenRange{4, 70, 200}}, 1);
  const std::string bytes = saved(store);

  EXPECT_EQ(bytes.substr(0, 8), "\x89HWKV\r\n\x1a");
  EXPECT_EQ(bytes.substr(8, 4), "\x04\x03\x02\x01");
  EXPECT_EQ(number_at<std::uint32_t>(bytes, 12), 1u);
  const std::size_t header = 40 + 2 * 56 + 8;
  const Index tiles = 2 * kSmall.bytes() + 3 * 4 * store.formats[1].bytes();  // of the second: 0, 1, 2, 3
  EXPECT_EQ(number_at<std::int64_t>(bytes, 16), static_cast<std::int64_t>(header));
  EXPECT_EQ(number_at<std::int64_t>(bytes, 24), tiles);
  EXPECT_EQ(number_at<std::int64_t>(bytes, 32), 2);
  const std::uint32_t first[] = {2, 2, 1, 8, 16, 0}, second[] = {6, 4, 3, 80, 9, 3};
  for (std::size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(number_at<std::uint32_t>(bytes, 40 + 4 * i), first[i]) << i;
    EXPECT_EQ(number_at<std::uint32_t>(bytes, 96 + 4 * i), second[i]) << i;
  }
  EXPECT_EQ(number_at<std::uint64_t>(bytes, 64), 0u);
  EXPECT_EQ(number_at<std::uint64_t>(bytes, 120), Xxh64::of(std::as_bytes(std::span(scales))));
  EXPECT_EQ(number_at<std::int64_t>(bytes, 88), 65);
  EXPECT_EQ(number_at<std::int64_t>(bytes, 128), 4);
  EXPECT_EQ(number_at<std::int64_t>(bytes, 136), 70);
  EXPECT_EQ(number_at<std::int64_t>(bytes, 144), 200);

  const auto all = std::as_bytes(std::span(bytes));
  const auto checksum = Xxh64::of(all.first(header - 8));
  ASSERT_EQ(bytes.size(), header + static_cast<std::size_t>(tiles) + 8);
  EXPECT_EQ(number_at<std::uint64_t>(bytes, header - 8), checksum);
  EXPECT_EQ(number_at<std::uint64_t>(bytes, bytes.size() - 8),
            Xxh64::of(all.subspan(header, static_cast<std::size_t>(tiles)), checksum));
  EXPECT_EQ(bytes.substr(header, static_cast<std::size_t>(kSmall.bytes())), (store.sequences[0].tiles.at({0, 0, 0})));
}

TEST(SaveFormat, NumbersOfStorageTypesNeverChange) {
  const std::pair<Storage, int> codes[] = {{Storage::f32, 0},  {Storage::f16, 1},  {Storage::bf16, 2},
                                           {Storage::e4m3, 3}, {Storage::e5m2, 4}, {Storage::int8, 5},
                                           {Storage::int4, 6}};
  for (const auto& [storage, code] : codes) EXPECT_EQ(static_cast<int>(storage), code);
}

TEST(SaveFormat, BringsBackEveryTokenOfEveryRangeBitForBitAndClearsAllOtherSlots) {
  for (const TokenRange& range : kRanges) {
    FakeStore store(every_storage_type()), other(every_storage_type(), 2);
    store.fill(0, range, 3);
    other.fill(1, {0, 0, 100}, 4);
    const auto neighbour = other.sequences[1];
    restore_bytes(other, 0, saved(store));
    EXPECT_EQ(other.sequences[1], neighbour);
    for (Index s = 0; s < store.num_storages(); ++s) {
      SCOPED_TRACE(::testing::Message() << s << ": " << range.sinks << " " << range.begin << " " << range.end);
      EXPECT_EQ(other.kept(s, 0), range);
      const TileFormat format = store.storage_format(s);
      for (const auto& [place, tile] : other.sequences[0].tiles) {
        if (std::get<0>(place) != s) continue;
        for (Index slot = 0; slot < kTileTokens; ++slot) {
          const Index token = std::get<2>(place) * kTileTokens + slot;
          if (token < range.sinks || (token >= range.begin && token < range.end))
            ASSERT_EQ(slot_numbers(format, tile, slot), slot_numbers(format, store.sequences[0].tiles.at(place), slot));
          else
            expect_cleared(format, tile, slot);
        }
      }
    }
    EXPECT_EQ(other.sequences[0].tiles.size(), store.sequences[0].tiles.size());
  }
}

TEST(SaveFormat, WritesTilesThatAreFullAsTheyLieInMemory) {
  FakeStore store(every_storage_type()), other(every_storage_type());
  store.fill(0, {0, 0, 128}, 5);
  restore_bytes(other, 0, saved(store));
  EXPECT_EQ(other.sequences[0], store.sequences[0]);
}

TEST(SaveFormat, GivesEqualBytesForEqualTokensWhateverLiesBeyondThem) {
  for (const TileFormat& format : every_storage_type()) {
    FakeStore store({format}), other({format});
    store.fill(0, {4, 70, 190}, 6);
    other.sequences = store.sequences;
    for (auto& [place, tile] : other.sequences[0].tiles) {
      auto* const bytes = reinterpret_cast<std::byte*>(tile.data());
      for (Index slot = 0; slot < kTileTokens; ++slot) {
        const Index token = std::get<2>(place) * kTileTokens + slot;
        if (token >= 4 && (token < 70 || token >= 190)) detail::clear_slots(format, bytes, slot, slot + 1);
      }
    }
    ASSERT_NE(store.sequences[0].tiles, other.sequences[0].tiles);
    EXPECT_EQ(saved(store), saved(other));
    restore_bytes(other, 0, saved(store));
    EXPECT_EQ(saved(store), saved(other));
  }
}

TEST(SaveFormat, WritesARangeWithoutAGapAsOneThatForgotNothing) {
  FakeStore ring({kSmall}), whole({kSmall});
  ring.fill(0, {4, 4, 50}, 7);
  whole.fill(0, {0, 0, 50}, 7);
  EXPECT_EQ(saved(ring), saved(whole));
}

TEST(SaveFormat, LeavesTheStreamBehindASequenceSoThatOthersMayFollow) {
  FakeStore store({kSmall}, 3), other({kSmall}, 3);
  std::stringstream stream;
  for (Index b = 0; b < 3; ++b) {
    store.fill(static_cast<std::size_t>(b), {0, 0, 64 * b}, static_cast<unsigned>(b));
    save(store, b, stream);
  }
  stream << "more";
  for (Index b = 0; b < 3; ++b) restore(other, b, stream);
  EXPECT_EQ(other.sequences, store.sequences);
  std::string rest;
  stream >> rest;
  EXPECT_EQ(rest, "more");
}

/// Bytes that come a few at a time from where nobody can go back, as from a pipe.
class Pipe : public std::streambuf {
 public:
  explicit Pipe(std::string bytes) : bytes_(std::move(bytes)) {}

 private:
  int_type underflow() override {
    const std::size_t count = std::min<std::size_t>(bytes_.size() - at_, 1000);
    if (count == 0) return traits_type::eof();
    char* const begin = bytes_.data() + at_;
    setg(begin, begin, begin + count);
    at_ += count;
    return traits_type::to_int_type(*begin);
  }
  std::string bytes_;
  std::size_t at_ = 0;
};

TEST(SaveFormat, RestoresFromAStreamThatCannotSeek) {
  const TileFormat large{Storage::f32, Storage::f32, 3, 512, 512};
  FakeStore store({large}), other({large});
  store.fill(0, {0, 0, 4 * 64}, 8);
  const std::string bytes = saved(store);
  ASSERT_GT(bytes.size(), std::size_t{3} << 20);  // more than is first made room for
  Pipe pipe(bytes + bytes);
  std::istream stream(&pipe);
  restore(other, 0, stream);
  EXPECT_EQ(other.sequences[0], store.sequences[0]);
  other = FakeStore({large});
  restore(other, 0, stream);
  EXPECT_EQ(other.sequences[0], store.sequences[0]);
  expect_file_error([&] { restore(other, 0, stream); }, {"stream", "ends after 0 bytes"});
}

TEST(SaveFormat, RestoresLayersThatHoldDifferentNumbersOfTokens) {
  FakeStore store({kSmall, kSmall, kSmall}), other({kSmall, kSmall, kSmall});
  store.fill(0, {TokenRange{0, 0, 64}, TokenRange{}, TokenRange{0, 0, 192}}, 8);
  restore_bytes(other, 0, saved(store));
  EXPECT_EQ(other.sequences[0], store.sequences[0]);
}

TEST(SaveFormat, RefusesASequenceThatIsNotThereBeforeItReadsOrWrites) {
  FakeStore store({kSmall});
  std::stringstream stream;
  expect_error([&] { save(store, 1, stream); }, {"sequence (1)"});
  EXPECT_EQ(stream.str(), "");
  stream << saved(store);
  expect_error([&] { restore(store, 1, stream); }, {"sequence (1)"});
  EXPECT_EQ(stream.tellg(), 0);
}

TEST(SaveFormat, NamesTheStorageAndTheFieldInWhichASavedSequenceDoesNotFit) {
  const TileFormat format{Storage::int8, Storage::bf16, 2, 64, 32};
  FakeStore cache({kSmall, format});
  const std::vector<float> scales(2 * 64, 2.0f), other_scales(2 * 64, 3.0f);
  cache.transforms[1] = {scales.data(), true};
  cache.fill(0, {0, 0, 100}, 9);
  const auto before = cache.sequences;

  std::vector<std::pair<FakeStore, std::vector<std::string>>> misfits;
  const auto with = [&](auto change, std::vector<std::string> parts) {
    FakeStore store = cache;
    change(store);
    store.fill(0, {0, 0, 70}, 10);
    misfits.push_back({store, parts});
  };
  with([](FakeStore& s) { s.formats[1].key_storage = Storage::int4; },
       {"storage type of keys (int4)", "storage 1", "int8"});
  with([](FakeStore& s) { s.formats[1].value_storage = Storage::f16; }, {"storage type of values (f16)", "bf16"});
  with([](FakeStore& s) { s.formats[0].num_kv_heads = 4; }, {"num_kv_heads (4)", "storage 0", "must be 1"});
  with([](FakeStore& s) { s.formats[1].value_dim = 48; }, {"value_dim (48)", "storage 1", "must be 32"});
  with([](FakeStore& s) { s.formats[0].head_dim = 16; }, {"head_dim (16)", "storage 0", "must be 8"});
  with([](FakeStore& s) { s.transforms[1].hadamard = false; }, {"Hadamard", "storage 1"});
  with([](FakeStore& s) { s.transforms[1].channel_scales = nullptr; }, {"having channel scales", "storage 1"});
  with([&](FakeStore& s) { s.transforms[1].channel_scales = other_scales.data(); }, {"hash of the channel scales"});
  with([](FakeStore& s) { s = FakeStore({kSmall}); }, {"layers", "(1)", "must be 2"});
  with([&](FakeStore& s) { s = FakeStore({kSmall, format, format}); }, {"layers", "(3)", "must be 2"});
  for (const auto& [store, parts] : misfits) {
    const std::string message = error_of([&] { restore_bytes(cache, 0, saved(store)); });
    for (const std::string& part : parts) EXPECT_NE(message.find(part), std::string::npos) << message << ": " << part;
    EXPECT_EQ(cache.sequences, before);
  }
}

TEST(SaveFormat, NamesTheLayerOfTheModelWhereLayersShare) {
  struct Sharing : FakeStore {
    using FakeStore::FakeStore;
    KvSharing sharing() const { return KvSharing::every(4, 2); }
  };
  Sharing cache({kSmall, kSmall});
  FakeStore store({kSmall, {Storage::bf16, Storage::bf16, 1, 8, 32}});
  expect_error([&] { restore_bytes(cache, 0, saved(store)); }, {"value_dim (32)", "layer 2", "must be 16"});
}

TEST(SaveFormat, LeavesTheCacheAsItIsWhereItHasNoRoom) {
  FakeStore store({kSmall}), cache({kSmall});
  store.fill(0, {0, 0, 65}, 11);
  cache.fill(0, {0, 0, 20}, 12);
  cache.max_tokens = 64;
  const auto before = cache.sequences;
  EXPECT_THROW(restore_bytes(cache, 0, saved(store)), std::invalid_argument);
  EXPECT_EQ(cache.sequences, before);
}

}  // namespace
}  // namespace headwise::testing
