// SPDX-License-Identifier: MIT
// 10^5 operations in random order on each kind of KvCache, beside vectors of token numbers that anyone can read. (The same
// for a PagedCache: paged_random_test.cpp.)
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <iostream>
#include <map>
#include <random>
#include <sstream>

#include "headwise/headwise.hpp"

namespace headwise {
namespace {

constexpr Index kSequences = 3, kLayers = 2, kDim = 8, kOperations = 100000, kMost = 460, kLongestAppend = 48;

/// Element d of the key of the token with a number; small integers, which every type holds well.
float element(Index number, Index d) { return static_cast<float>((number * 7 + d * 5) % 63 - 31); }

struct Kind {
  const char* name;
  bool growing;
  std::array<LayerShape, 2> layers;
  Storage keys, values;
};
constexpr Kind kKinds[] = {
    {"contiguous", false, {LayerShape{1, kDim, kDim}, LayerShape{2, kDim, kDim}}, Storage::f32, Storage::f16},
    {"growing", true, {LayerShape{1, kDim, kDim}, LayerShape{2, kDim, kDim}}, Storage::bf16, Storage::int8},
    {"ring", true, {LayerShape{1, kDim, kDim, 40, 3}, LayerShape{2, kDim, kDim, 130, 0}}, Storage::int4, Storage::e4m3},
};

/// A cache and what it should hold.
class Twins {
 public:
  explicit Twins(const Kind& kind)
      : kind_(kind),
        cache_(kind.layers, kind.growing ? 1 : kMost,
               {.num_sequences = kSequences,
                .growing = kind.growing,
                .max_append = 200,
                .key_storage = kind.keys,
                .value_storage = kind.values}) {}

  KvCache<>& cache() { return cache_; }
  std::vector<Index>& tokens(Index b) { return tokens_[static_cast<std::size_t>(b)]; }
  Index count(Index b) { return std::ssize(tokens(b)); }
  std::array<std::vector<Index>, kSequences>& all() { return tokens_; }

  void append(Index b, Index count) {
    const Index first = next_;
    next_ += count;
    for (Index l = 0; l < kLayers; ++l) {
      const Index heads = kind_.layers[static_cast<std::size_t>(l)].num_kv_heads;
      std::vector<float> k, v;
      for (Index t = 0; t < count; ++t)
        for (Index i = 0; i < heads * kDim; ++i) {
          k.push_back(element(first + t, i + l));
          v.push_back(element(first + t, i + l + 2));
        }
      if (count == 0) k.resize(1), v.resize(1);
      cache_.append(l, b, View<const float>(k.data(), count, heads, kDim),
                    View<const float>(v.data(), count, heads, kDim));
    }
    for (Index t = 0; t < count; ++t) tokens(b).push_back(first + t);
  }

  void check_token(Index b, Index l, Index t) {
    const TokenRange kept = cache_.layer(l).kept(b);
    if (t >= kept.sinks && t < kept.begin) return;
    const Index heads = kind_.layers[static_cast<std::size_t>(l)].num_kv_heads;
    std::array<float, kDim> key, value;
    for (Index g = 0; g < heads; ++g) {
      cache_.read_key(l, b, t, g, key);
      cache_.read_value(l, b, t, g, value);
      for (Index d = 0; d < kDim; ++d) {
        const Index number = tokens(b)[static_cast<std::size_t>(t)], i = g * kDim + d + l;
        ASSERT_NEAR(key[static_cast<std::size_t>(d)], element(number, i), 31 * epsilon_of(kind_.keys))
            << kind_.name << ", sequence " << b << ", layer " << l << ", token " << t;
        ASSERT_NEAR(value[static_cast<std::size_t>(d)], element(number, i + 2), 31 * epsilon_of(kind_.values))
            << kind_.name << ", sequence " << b << ", layer " << l << ", token " << t;
      }
    }
  }
  /// Every length, and every token or a few of each sequence.
  template <class Random>
  void check(bool every, Random& random) {
    for (Index b = 0; b < kSequences; ++b)
      for (Index l = 0; l < kLayers; ++l) {
        ASSERT_EQ(cache_.num_tokens(l, b), count(b)) << kind_.name << ", sequence " << b << ", layer " << l;
        for (Index i = 0; i < (every ? count(b) : std::min<Index>(2, count(b))); ++i) {
          check_token(b, l, every ? i : static_cast<Index>(random() % static_cast<unsigned>(count(b))));
          if (::testing::Test::HasFatalFailure()) return;
        }
        // what a ring must keep
        const LayerShape& s = kind_.layers[static_cast<std::size_t>(l)];
        const TokenRange kept = cache_.layer(l).kept(b);
        ASSERT_EQ(kept.end, count(b));
        if (s.window == 0) {
          ASSERT_LE(kept.begin, kept.sinks);
        } else {
          ASSERT_LE(kept.begin, std::max<Index>(kept.sinks, count(b) - s.window));
        }
      }
  }

 private:
  const Kind& kind_;
  KvCache<> cache_;
  std::array<std::vector<Index>, kSequences> tokens_;
  Index next_ = 1;
};

class RandomOperations : public ::testing::TestWithParam<Kind> {};

TEST_P(RandomOperations, AHundredThousandLeaveWhatVectorsHold) {
  Twins twins(GetParam());
  KvCache<>& cache = twins.cache();
  std::mt19937 random(29);
  const auto below = [&](Index n) { return n <= 0 ? 0 : static_cast<Index>(random() % static_cast<unsigned>(n)); };
  std::map<std::string, Index> done, refused;
  Index total = 0;
  // an operation that a ring can no longer serve is refused, and changes nothing
  const auto attempt = [&](const char* name, auto on_cache, auto on_vectors) {
    try {
      on_cache();
    } catch (const std::invalid_argument&) {
      ++refused[name];
      return;
    }
    on_vectors();
    ++done[name];
    ++total;
  };
  for (Index step = 0; total < kOperations; ++step) {
    const Index b = below(kSequences), other = below(kSequences), count = twins.count(b);
    auto& mine = twins.tokens(b);
    switch (below(16)) {
      case 0: {
        const Index keep = count - below(std::min<Index>(count, 90) + 1);
        attempt(
            "truncate", [&] { cache.truncate(b, keep); }, [&] { mine.resize(static_cast<std::size_t>(keep)); });
        break;
      }
      case 1: {
        const Index last = count - below(std::min<Index>(count, 60) + 1),
                    first = last - below(std::min<Index>(last, 70) + 1);
        attempt(
            "evict", [&] { cache.evict(b, first, last); },
            [&] { mine.erase(mine.begin() + first, mine.begin() + last); });
        break;
      }
      case 2:
        if (below(8) == 0)
          attempt(
              "clear", [&] { cache.clear(b); }, [&] { mine.clear(); });
        break;
      case 3:
        if (b != other)
          attempt(
              "fork", [&] { cache.fork(b, other); }, [&] { twins.tokens(other) = mine; });
        break;
      case 4: {
        const Index last = count - below(std::min<Index>(count, 30) + 1),
                    first = last - below(std::min<Index>(last, 40) + 1);
        if (b == other || twins.count(other) + last - first > kMost) break;
        attempt(
            "copy_range", [&] { cache.copy_range(b, first, last, other); },
            [&] {
              const std::vector<Index> range(mine.begin() + first, mine.begin() + last);
              twins.tokens(other).insert(twins.tokens(other).end(), range.begin(), range.end());
            });
        break;
      }
      case 5: {
        const std::array<Index, kSequences> parents{below(kSequences), below(kSequences), below(kSequences)};
        attempt(
            "reorder", [&] { cache.reorder(parents); },
            [&] {
              const auto before = twins.all();
              for (std::size_t i = 0; i < parents.size(); ++i)
                twins.all()[i] = before[static_cast<std::size_t>(parents[i])];
            });
        break;
      }
      case 6: {
        if (below(8) != 0) break;
        std::stringstream file;
        save(cache, b, file);
        attempt(
            "restore", [&] { restore(cache, other, file); }, [&] { twins.tokens(other) = mine; });
        break;
      }
      default: {
        const Index more = below(kLongestAppend + 1);
        if (count + more > kMost) {
          attempt(
              "truncate", [&] { cache.truncate(b, count - 20); },
              [&] { mine.resize(static_cast<std::size_t>(count) - 20); });
          break;
        }
        attempt(
            "append", [&] { twins.append(b, more); }, [] {});
      }
    }
    ASSERT_NO_FATAL_FAILURE(twins.check(step % 997 == 0, random)) << "operation " << step;
  }
  std::cout << GetParam().name << ":";
  for (const auto& [name, times] : done) {
    std::cout << " " << name << " " << times << " (" << refused[name] << " refused)";
    EXPECT_GT(times, 100) << name;
    if (GetParam().layers[0].window == 0) {
      EXPECT_EQ(refused[name], 0) << name << " makes sense whatever is held";
    }
  }
  std::cout << "\n";
  EXPECT_EQ(done.size(), 8u) << "every operation was met";
}

INSTANTIATE_TEST_SUITE_P(Kinds, RandomOperations, ::testing::ValuesIn(kKinds),
                         [](const auto& kind) { return std::string(kind.param.name); });

}  // namespace
}  // namespace headwise
