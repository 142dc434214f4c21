// SPDX-License-Identifier: MIT
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "tests/cache/fake_store.hpp"
#include "tests/cache/saved_bytes.hpp"

namespace headwise::testing {
namespace {

constexpr TileFormat kSmall{Storage::int4, Storage::e4m3, 1, 8, 16};

/// Two storages of 65 and of 0 tokens: 5 KB.
FakeStore small_store(unsigned seed = 1) {
  FakeStore store({kSmall, kSmall});
  store.fill(0, {TokenRange{0, 0, 65}, TokenRange{}}, seed);
  return store;
}

/// A cache that holds other tokens, and must go on to.
class SaveDamage : public ::testing::Test {
 protected:
  SaveDamage() : cache_(small_store(2)), before_(cache_.sequences) {}

  /// Restoring these bytes throws CacheFileError and changes nothing.
  CacheFileError expect_refused(const std::string& bytes, std::initializer_list<std::string_view> parts = {}) {
    const CacheFileError error = expect_file_error([&] { restore_bytes(cache_, 0, bytes); }, parts);
    EXPECT_EQ(cache_.sequences, before_);
    return error;
  }

  FakeStore cache_;
  std::vector<FakeStore::Sequence> before_;
  std::string whole_ = saved(small_store());
};

TEST_F(SaveDamage, IsNoticedWhereverAFileIsCut) {
  for (std::size_t length = 0; length < whole_.size(); ++length) {
    const CacheFileError error = expect_refused(whole_.substr(0, length), {"stream", "ends after"});
    ASSERT_EQ(error.offset(), static_cast<Index>(length));
  }
  restore_bytes(cache_, 0, whole_);
  EXPECT_NE(cache_.sequences, before_);
}

TEST_F(SaveDamage, IsNoticedWhicheverBitOfAFileIsFlipped) {
  std::string bytes = whole_;
  for (std::size_t i = 0; i < bytes.size(); ++i)
    for (int bit = 0; bit < 8; ++bit) {
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      expect_refused(bytes);
      ASSERT_FALSE(HasFailure()) << "byte " << i << ", bit " << bit;
      bytes[i] = whole_[i];
    }
}

TEST_F(SaveDamage, IsNoticedWhereBytesOfTilesAreExchangedOrCleared) {
  std::string bytes = whole_;
  const Index tiles = 40 + 2 * 56 + 8, size = kSmall.bytes();
  std::swap_ranges(bytes.begin() + tiles, bytes.begin() + tiles + size, bytes.begin() + tiles + size);
  expect_refused(bytes, {"damaged", "tiles", "checksum"});
  bytes = whole_;
  std::fill_n(bytes.begin() + tiles + 32, 512, '\0');
  expect_refused(bytes, {"damaged", "tiles", "checksum"});
}

TEST_F(SaveDamage, IsNoticedWhereTheHeaderOfOneFileMeetsTheTilesOfAnother) {
  FakeStore other = small_store(), twice = small_store();
  twice.sequences[0].kept[0].end = 66;  // as many tiles
  std::string bytes = whole_;
  const std::string header = saved(twice).substr(0, 40 + 2 * 56 + 8);
  expect_refused(bytes.replace(0, header.size(), header), {"damaged", "tiles"});
}

TEST_F(SaveDamage, NamesWhatIsNoSavedCacheAnotherVersionAndTheOtherByteOrder) {
  expect_refused("hello", {"not a saved cache"});
  expect_refused(std::string(5000, '\0'), {"not a saved cache"});
  std::string bytes = whole_;
  put_at(bytes, 12, std::uint32_t{2});
  sign_header(bytes);
  EXPECT_EQ(expect_refused(bytes, {"version (2)", "must be 1"}).offset(), 12);
  bytes = whole_;
  std::reverse(bytes.begin() + 8, bytes.begin() + 12);
  EXPECT_EQ(expect_refused(bytes, {"other byte order"}).offset(), 8);
}

TEST_F(SaveDamage, IsNoticedInFieldsThatNoWriterWrites) {
  const struct {
    std::size_t offset;
    std::uint32_t value;
    std::string_view name;
  } fields[] = {{40, 7, "storage type of keys (7)"},
                {44, 255, "storage type of values (255)"},
                {48, 0, "num_kv_heads (0)"},
                {48, 1 << 21, "num_kv_heads (2097152)"},
                {52, 0, "head_dim (0)"},
                {52, 577, "head_dim (577)"},
                {56, 0, "value_dim (0)"},
                {56, 0xffffffffu, "value_dim (4294967295)"},
                {60, 8, "transform of keys (8)"}};
  for (const auto& field : fields) {
    std::string bytes = whole_;
    put_at(bytes, field.offset, field.value);
    sign_header(bytes);
    EXPECT_EQ(expect_refused(bytes, {field.name, "storage 0"}).offset(), static_cast<Index>(field.offset));
  }
  const std::int64_t ranges[][3] = {
      {-1, 0, 65}, {5, 4, 65}, {0, 66, 65}, {0, 0, -1}, {0, 0, (std::int64_t{1} << 48) + 1}};
  for (const auto& range : ranges) {
    std::string bytes = whole_;
    for (std::size_t i = 0; i < 3; ++i) put_at(bytes, 72 + 8 * i, range[i]);
    sign_header(bytes);
    expect_refused(bytes, {"tokens of storage 0", std::to_string(range[2])});
  }
}

TEST_F(SaveDamage, TakesNoMemoryForLengthsThatTheBytesDoNotBear) {
  // A header that says 2^47 tokens, rightly signed, and no such tiles: 2^53 bytes are not to be had.
  std::string bytes = whole_;
  const std::int64_t tokens = std::int64_t{1} << 47;
  put_at(bytes, 88, tokens);
  put_at(bytes, 24, std::int64_t{tokens / kTileTokens * kSmall.bytes()});
  sign_header(bytes);
  expect_refused(bytes, {"ends after"});
  const TemporaryPath temporary;
  const std::string& path = temporary.string();
  std::ofstream(path, std::ios::binary) << bytes;
  expect_file_error([&] { restore(cache_, 0, path); }, {path, "must be", ", as its header says"});
  EXPECT_EQ(cache_.sequences, before_);

  bytes = whole_;
  put_at(bytes, 32, std::int64_t{1} << 60);
  expect_refused(bytes, {"number of storages"});
  bytes = whole_;
  put_at(bytes, 16, std::int64_t{1} << 60);
  expect_refused(bytes, {"bytes of the header"});
  bytes = whole_;
  put_at(bytes, 24, std::int64_t{1} << 60);
  sign_header(bytes);
  expect_refused(bytes, {"bytes of the tiles"});
}

TEST_F(SaveDamage, TakesNoMemoryWhereTheBytesOfAllTilesDoNotFitInANumber) {
  std::string bytes = whole_;
  const std::int64_t tokens = std::int64_t{1} << 48;
  for (const std::size_t storage : {40u, 96u}) {
    put_at(bytes, storage + 8, std::uint32_t{1 << 20});
    put_at(bytes, storage + 48, tokens);
  }
  for (const std::int64_t size : {std::int64_t{0}, std::int64_t{-1}, std::numeric_limits<std::int64_t>::max()}) {
    put_at(bytes, 24, size);
    sign_header(bytes);
    expect_refused(bytes, {"bytes of the tiles"});
  }
}

TEST_F(SaveDamage, IsNoticedInAFileThatIsCutOrGoesOn) {
  const TemporaryPath temporary;
  const std::string& path = temporary.string();
  for (const std::string& bytes : {whole_.substr(0, 20), whole_.substr(0, 100), whole_.substr(0, whole_.size() - 1),
                                   whole_ + '\0', whole_ + whole_}) {
    std::ofstream(path, std::ios::binary) << bytes;
    const CacheFileError error = expect_file_error([&] { restore(cache_, 0, path); }, {"\"" + path + "\""});
    EXPECT_EQ(error.offset(), static_cast<Index>(std::min(bytes.size(), whole_.size())));
    EXPECT_EQ(cache_.sequences, before_);
  }
}

TEST_F(SaveDamage, OfAStreamIsToldFromAnEnd) {
  std::istringstream stream(whole_);
  stream.setstate(std::ios::failbit);
  expect_file_error([&] { restore(cache_, 0, stream); }, {"stream", "cannot be read"});
  stream.clear(std::ios::badbit);
  expect_file_error([&] { restore(cache_, 0, stream); }, {"stream", "cannot be read"});
  EXPECT_EQ(cache_.sequences, before_);
}

TEST_F(SaveDamage, IsSeenWhenAStreamTakesNoMore) {
  FakeStore large({kSmall});
  large.fill(0, {0, 0, 64 * 64}, 3);
  for (const FakeStore& store : {small_store(), large}) {
    std::ofstream full("/dev/full", std::ios::binary);
    if (!full) GTEST_SKIP() << "no /dev/full";
    expect_file_error([&] { save(store, 0, full); }, {"stream", "cannot be written"});
  }
}

}  // namespace
}  // namespace headwise::testing
