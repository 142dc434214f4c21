// SPDX-License-Identifier: MIT
// Tokens in and out of tiles, of every storage type.
#include "headwise/cache/tile_codec.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/cache/cache_contents.hpp"

namespace headwise {
namespace {

using testing::random_numbers;

constexpr Storage kAll[] = {Storage::f32,  Storage::f16,  Storage::bf16, Storage::e4m3,
                            Storage::e5m2, Storage::int8, Storage::int4};
class TileCodec : public ::testing::TestWithParam<Storage> {};
INSTANTIATE_TEST_SUITE_P(Storages, TileCodec, ::testing::ValuesIn(kAll),
                         [](const auto& of) { return std::string(name_of(of.param)); });

/// One tile of one head, filled with 0xff bytes: NaN, or codes and scales that are no numbers.
struct Tile {
  TileFormat format;
  std::vector<std::byte> bytes;
  explicit Tile(const TileFormat& of) : format(of), bytes(static_cast<std::size_t>(of.bytes()), std::byte{0xff}) {}
  std::byte* data() { return bytes.data(); }

  std::vector<float> key(Index slot) {
    std::vector<float> row(static_cast<std::size_t>(format.head_dim));
    detail::read_stored_key(format, data(), slot, row.data());
    return row;
  }
  std::vector<float> value(Index slot) {
    std::vector<float> row(static_cast<std::size_t>(format.value_dim));
    detail::read_stored_value(format, data(), slot, row.data());
    return row;
  }
  /// Appends rows [count][dim] behind `stored` ones.
  void write(Index stored, Index count, const std::vector<float>& k, const std::vector<float>& v,
             const Rope* rope = nullptr, const KeyTransform& transform = {}) {
    detail::write_tokens(
        format, [&](Index, Index) { return data(); }, stored,
        View<const float>(k.data(), count, 1, format.head_dim).array(),
        View<const float>(v.data(), count, 1, format.value_dim).array(), 0, {.rope = rope}, transform,
        [](Index, const std::byte*, Index, Index) {});
  }
};

TileFormat format_of(Storage keys, Index head_dim = 20, Index value_dim = 70) {
  // values of each of the other types in turn
  return {keys, static_cast<Storage>((static_cast<int>(keys) + 2) % kStorages), 1, head_dim, value_dim};
}
/// Row t of [row][dim].
std::vector<float> row_of(const std::vector<float>& rows, Index t, Index dim) {
  return {rows.begin() + t * dim, rows.begin() + (t + 1) * dim};
}

/// Largest error of a number of a row, whatever its group, by epsilon_of.
double bound(Storage storage, const std::vector<float>& row, float x) {
  double largest = 0;
  for (const float y : row) largest = std::max(largest, std::abs(static_cast<double>(y)));
  // an 8-bit float may be subnormal: half of the smallest is 2^-10 or 2^-17
  if (storage == Storage::e4m3 || storage == Storage::e5m2)
    return epsilon_of(storage) * std::abs(static_cast<double>(x)) + (storage == Storage::e4m3 ? 0x1p-10 : 0x1p-17);
  return epsilon_of(storage) * (has_scales(storage) ? largest : std::abs(static_cast<double>(x))) + 0x1p-25;
}

TEST_P(TileCodec, ReadsWhatWasWrittenWithinTheStatedError) {
  for (const auto& [head_dim, value_dim] : {std::pair<Index, Index>{1, 1}, {20, 70}, {64, 33}, {96, 128}, {31, 512}}) {
    const TileFormat format = format_of(GetParam(), head_dim, value_dim);
    Tile tile(format);
    const auto k = random_numbers(64 * head_dim, 1), v = random_numbers(64 * value_dim, 2);
    tile.write(0, 64, k, v);
    for (Index t = 0; t < 64; ++t) {
      const auto key = row_of(k, t, head_dim), value = row_of(v, t, value_dim);
      const auto have_key = tile.key(t), have_value = tile.value(t);
      for (std::size_t d = 0; d < key.size(); ++d)
        ASSERT_NEAR(have_key[d], key[d], bound(format.key_storage, key, key[d])) << head_dim << " " << t;
      for (std::size_t d = 0; d < value.size(); ++d)
        ASSERT_NEAR(have_value[d], value[d], bound(format.value_storage, value, value[d])) << value_dim << " " << t;
    }
  }
}

TEST_P(TileCodec, AnElementLiesWhereTheLayoutSays) {
  const Storage storage = GetParam();
  const TileFormat format{storage, storage, 1, 46, 50};
  Tile tile(format);
  std::vector<float> k, v;
  for (Index t = 0; t < 64; ++t) {
    for (Index d = 0; d < 46; ++d) k.push_back(static_cast<float>((t * 7 + d * 3) % 15 - 7));
    for (Index d = 0; d < 50; ++d) v.push_back(static_cast<float>((t * 5 + d * 11) % 15 - 7));
  }
  tile.write(0, 64, k, v);
  const auto element = [&](const std::byte* data, Index i) -> float {
    const auto* codes = reinterpret_cast<const std::uint8_t*>(data);
    switch (storage) {
      case Storage::e4m3:
        return from_e4m3_bits(codes[i]);
      case Storage::e5m2:
        return from_e5m2_bits(codes[i]);
      case Storage::int8:
        return static_cast<float>(codes[i] - kInt8Zero);
      case Storage::int4: {  // byte j of a lane: element j low, j + 4 high
        const std::uint8_t byte = codes[i / 8 * 4 + i % 4];
        return static_cast<float>((i % 8 < 4 ? byte & 15 : byte >> 4) - kInt4Zero);
      }
      default:
        return load_element(data, storage, i);
    }
  };
  const auto scale = [&](const std::byte* data, Index code_bytes, Index t, Index d) {
    if (!has_scales(storage)) return 1.0f;
    std::uint16_t bits;
    std::memcpy(&bits, data + code_bytes + 2 * scale_index(storage, t, d), 2);
    return from_bf16_bits(bits);
  };
  const std::byte* values = tile.data() + format.key_bytes();
  for (Index t = 0; t < 64; ++t) {
    const auto key = tile.key(t), value = tile.value(t);
    for (Index d = 0; d < 46; ++d)
      ASSERT_EQ(
          element(tile.data(), key_index(storage, 46, t, d)) * scale(tile.data(), key_code_bytes(storage, 46), t, d),
          key[static_cast<std::size_t>(d)]);
    for (Index d = 0; d < 50; ++d)
      ASSERT_EQ(element(values, value_index(storage, 50, t, d)) * scale(values, value_code_bytes(storage, 50), t, d),
                value[static_cast<std::size_t>(d)]);
  }
}

TEST_P(TileCodec, UnwrittenSlotsOfABegunTileAreZero) {
  const TileFormat format = format_of(GetParam());
  for (const Index count : {1, 3, 15, 16, 17, 33, 63}) {
    Tile tile(format);
    const auto k = random_numbers(count * 20, 1), v = random_numbers(count * 70, 2);
    tile.write(0, count, k, v);
    for (Index t = count; t < 64; ++t) {
      EXPECT_EQ(tile.key(t), std::vector<float>(20, 0.0f));
      EXPECT_EQ(tile.value(t), std::vector<float>(70, 0.0f));
    }
  }
}

TEST_P(TileCodec, WritingOneTokenAtATimeGivesTheSameBytes) {
  const TileFormat format = format_of(GetParam());
  Tile together(format), apart(format);
  const auto k = random_numbers(60 * 20, 3), v = random_numbers(60 * 70, 4);
  together.write(0, 60, k, v);
  for (Index t = 0; t < 60; ++t) apart.write(t, 1, row_of(k, t, 20), row_of(v, t, 70));
  EXPECT_EQ(together.bytes, apart.bytes);
}

TEST_P(TileCodec, MovesTokensToAnySlotToTheBitAndNoOthers) {
  const TileFormat format = format_of(GetParam());
  Tile from(format), to(format);
  from.write(0, 64, random_numbers(64 * 20, 5), random_numbers(64 * 70, 6));
  for (const auto& [a, b, count] : {std::tuple<Index, Index, Index>{0, 0, 64},
                                    {1, 0, 63},
                                    {0, 1, 63},
                                    {3, 17, 40},
                                    {17, 3, 40},
                                    {15, 33, 1},
                                    {63, 0, 1},
                                    {30, 31, 3},
                                    {5, 5, 0}}) {
    to.write(0, 64, random_numbers(64 * 20, 7), random_numbers(64 * 70, 8));
    Tile before = to;
    detail::move_slots(format, 0, from.data(), a, to.data(), b, count, nullptr, nullptr, {});
    for (Index t = 0; t < 64; ++t) {
      const bool moved = t >= b && t < b + count;
      Tile& source = moved ? from : before;
      const Index slot = moved ? t - b + a : t;
      ASSERT_EQ(to.key(t), source.key(slot)) << a << " " << b << " " << t;
      ASSERT_EQ(to.value(t), source.value(slot)) << a << " " << b << " " << t;
    }
  }
  // and down within one tile
  for (const auto& [a, b, count] : {std::tuple<Index, Index, Index>{1, 0, 63}, {17, 3, 40}, {2, 1, 20}, {8, 8, 50}}) {
    Tile tile = from;
    detail::move_slots(format, 0, tile.data(), a, tile.data(), b, count, nullptr, nullptr, {});
    for (Index t = b; t < b + count; ++t) {
      ASSERT_EQ(tile.key(t), from.key(t - b + a));
      ASSERT_EQ(tile.value(t), from.value(t - b + a));
    }
  }
}

TEST_P(TileCodec, TurnsKeysAsItMovesThem) {
  const TileFormat format = format_of(GetParam());
  const Rope rope(20, {.base = 100, .rotary_dim = 16});
  std::vector<float> scales;
  for (int d = 0; d < 20; ++d) scales.push_back(0.5f + 0.1f * static_cast<float>(d));
  const KeyTransform transform{scales.data(), true};
  for (const KeyTransform& used : {KeyTransform{}, transform}) {
    Tile from(format), to(format), expected(format);
    from.write(0, 64, random_numbers(64 * 20, 5), random_numbers(64 * 70, 6), nullptr, used);
    to.write(0, 64, random_numbers(64 * 20, 7), random_numbers(64 * 70, 8));
    const RopeTurn turn = rope.turn_between(-13);
    detail::move_slots(format, 0, from.data(), 20, to.data(), 7, 30, &rope, &turn, used);
    for (Index t = 0; t < 30; ++t) {
      auto key = from.key(20 + t);
      used.from_key(0, 20, key.data());
      rope.apply(turn, key.data());
      expected.write(0, 1, key, std::vector<float>(70, 0.0f), nullptr, used);
      ASSERT_EQ(to.key(7 + t), expected.key(0));
      ASSERT_EQ(to.value(7 + t), from.value(20 + t));
    }
  }
}

TEST_P(TileCodec, ClearsTheSlotsItIsToldEvenOfNan) {
  const TileFormat format = format_of(GetParam());
  Tile full(format);
  full.write(0, 64, random_numbers(64 * 20, 5), random_numbers(64 * 70, 6));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Tile bad(format);
  bad.write(0, 64, std::vector<float>(64 * 20, nan), std::vector<float>(64 * 70, nan));
  for (const auto& [from, to] :
       {std::pair<Index, Index>{0, 64}, {1, 64}, {0, 63}, {15, 17}, {33, 34}, {20, 20}, {3, 50}}) {
    Tile tile = full;
    detail::move_slots(format, 0, bad.data(), from, tile.data(), from, to - from, nullptr, nullptr, {});
    detail::clear_slots(format, tile.data(), from, to);
    for (Index t = 0; t < 64; ++t) {
      const bool cleared = t >= from && t < to;
      ASSERT_EQ(tile.key(t), cleared ? std::vector<float>(20, 0.0f) : full.key(t)) << from << " " << to << " " << t;
      ASSERT_EQ(tile.value(t), cleared ? std::vector<float>(70, 0.0f) : full.value(t)) << from << " " << to << " " << t;
    }
  }
}

}  // namespace
}  // namespace headwise
