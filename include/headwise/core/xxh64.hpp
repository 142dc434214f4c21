// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace headwise {

/// The checksum XXH64 (Yann Collet, xxHash fast digest algorithm, specification 0.1.1, 64-bit variant) of bytes that come
/// in pieces of any lengths. It finds damage, of which it misses one in 2^64; it is no proof against forgers.
class Xxh64 {
 public:
  explicit Xxh64(std::uint64_t seed = 0)
      : seed_(seed), lanes_{seed + kPrimes[0] + kPrimes[1], seed + kPrimes[1], seed, seed - kPrimes[0]} {}

  void update(std::span<const std::byte> bytes) {
    const std::byte* at = bytes.data();
    std::size_t left = bytes.size();
    if (left == 0) return;  // there may be no memory to point into
    const std::size_t waiting = length_ % kStripe;
    length_ += left;
    if (waiting > 0) {
      const std::size_t count = std::min(left, kStripe - waiting);
      std::memcpy(stripe_ + waiting, at, count);
      if (waiting + count < kStripe) return;
      add_stripes(stripe_, 1);
      at += count;
      left -= count;
    }
    add_stripes(at, left / kStripe);
    if (left % kStripe > 0) std::memcpy(stripe_, at + left / kStripe * kStripe, left % kStripe);
  }

  /// Of all bytes so far.
  std::uint64_t digest() const {
    std::uint64_t hash = seed_ + kPrimes[4];
    if (length_ >= kStripe) {
      hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
      for (const std::uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * kPrimes[0] + kPrimes[3];
    }
    hash += length_;
    const std::byte *at = stripe_, *const end = stripe_ + length_ % kStripe;
    for (; end - at >= 8; at += 8)
      hash = std::rotl(hash ^ round(0, load<std::uint64_t>(at)), 27) * kPrimes[0] + kPrimes[3];
    if (end - at >= 4) {
      hash = std::rotl(hash ^ load<std::uint32_t>(at) * kPrimes[0], 23) * kPrimes[1] + kPrimes[2];
      at += 4;
    }
    for (; at != end; ++at) hash = std::rotl(hash ^ std::to_integer<std::uint64_t>(*at) * kPrimes[4], 11) * kPrimes[0];
    hash = (hash ^ (hash >> 33)) * kPrimes[1];
    hash = (hash ^ (hash >> 29)) * kPrimes[2];
    return hash ^ (hash >> 32);
  }

  static std::uint64_t of(std::span<const std::byte> bytes, std::uint64_t seed = 0) {
    Xxh64 sum(seed);
    sum.update(bytes);
    return sum.digest();
  }

 private:
  static_assert(std::endian::native == std::endian::little, "words of XXH64 are little-endian");
  static constexpr std::size_t kStripe = 32;
  static constexpr std::uint64_t kPrimes[5] = {0x9e3779b185ebca87u, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u,
                                               0x85ebca77c2b2ae63u, 0x27d4eb2f165667c5u};

  template <class Word>
  static std::uint64_t load(const std::byte* at) {
    Word word;
    std::memcpy(&word, at, sizeof word);
    return word;
  }
  static std::uint64_t round(std::uint64_t lane, std::uint64_t word) {
    return std::rotl(lane + word * kPrimes[1], 31) * kPrimes[0];
  }
  void add_stripes(const std::byte* at, std::size_t count) {
    std::uint64_t a = lanes_[0], b = lanes_[1], c = lanes_[2], d = lanes_[3];  // in registers: four chains at once
    for (const std::byte* const end = at + count * kStripe; at != end; at += kStripe) {
      a = round(a, load<std::uint64_t>(at));
      b = round(b, load<std::uint64_t>(at + 8));
      c = round(c, load<std::uint64_t>(at + 16));
      d = round(d, load<std::uint64_t>(at + 24));
    }
    lanes_[0] = a, lanes_[1] = b, lanes_[2] = c, lanes_[3] = d;
  }

  std::uint64_t seed_, length_ = 0;
  std::uint64_t lanes_[4];
  std::byte stripe_[kStripe] = {};
};

}  // namespace headwise
