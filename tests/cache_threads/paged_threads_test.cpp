// SPDX-License-Identifier: MIT
// Threads that work on sequences of their own in one pool.
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "headwise/headwise.hpp"

namespace headwise {
namespace {

const Heads<> kHeads{4, 2, 8};
constexpr Index kRow = 2 * 8;

std::vector<float> rows(Index tokens, unsigned seed) {
  std::vector<float> result(static_cast<std::size_t>(tokens * kRow));
  for (std::size_t i = 0; i < result.size(); ++i)
    result[i] = static_cast<float>(static_cast<int>((i * 2654435761u + seed * 40503u) >> 7 & 255) - 128) / 64;
  return result;
}
View<const float> view(const std::vector<float>& rows) { return {rows.data(), std::ssize(rows) / kRow, 2, 8}; }

template <class Source>
std::vector<float> attend(const Source& source) {
  const std::vector<float> q(static_cast<std::size_t>(source.num_sequences() * 4 * 8), 0.25f);
  std::vector<float> out(q.size());
  const Attention<> attention(kHeads);
  attention(View<const float>(q.data(), source.num_sequences(), 1, 4, 8), source,
            View<float>(out.data(), source.num_sequences(), 1, 4, 8));
  return out;
}

/// What one thread does with sequences that it alone knows, each beside a KvCache with the same tokens.
class Worker {
 public:
  Worker(PagedCache<float>& cache, unsigned seed) : cache_(cache), random_(seed) {}

  void run(int operations) {
    for (int i = 0; i < operations; ++i) {
      try {
        step();
      } catch (const OutOfPages&) {
        ++out_of_pages;  // of which every sequence comes away unharmed
        release(below(std::ssize(own_)));
      } catch (const OutOfSequences&) {
        release(below(std::ssize(own_)));
      }
    }
    while (!own_.empty()) release(0);
  }

  Index differences = 0, out_of_pages = 0, compared = 0, found = 0;

 private:
  struct Own {
    SequenceId id;
    KvCache<float> twin;
    std::vector<std::int32_t> text;
  };

  Index below(Index n) { return n == 0 ? 0 : static_cast<Index>(random_() % static_cast<std::uint64_t>(n)); }
  static KvCache<float> empty() { return KvCache<float>(kHeads, 64, {.growing = true}); }

  /// Texts of different threads begin alike.
  void append(Own& own, Index tokens) {
    const Index stored = cache_.num_tokens(0, own.id);
    for (Index t = 0; t < tokens; ++t) {
      const auto text = static_cast<std::int32_t>((stored + t) / 64);
      const auto row = rows(1, static_cast<unsigned>(text));
      cache_.append(0, own.id, view(row), view(row));
      own.twin.append(view(row), view(row));
      own.text.push_back(text);
    }
  }
  void release(Index i) {
    if (own_.empty()) return;
    cache_.release(own_[static_cast<std::size_t>(i)].id);
    own_.erase(own_.begin() + i);
  }
  void compare(const Own& own) {
    if (cache_.num_tokens(0, own.id) == 0) return;
    const auto paged = attend(cache_.layer(0, std::span(&own.id, 1))), flat = attend(own.twin.layer());
    differences += std::memcmp(paged.data(), flat.data(), flat.size() * sizeof(float)) != 0;
    ++compared;
  }
  void step() {
    const Index kind = below(12);
    if (own_.empty() || kind == 0) {
      own_.push_back({cache_.create(), empty(), {}});
      return;
    }
    if (kind == 1) {
      const std::vector<std::int32_t> text = [&] {
        std::vector<std::int32_t> all;
        for (std::int32_t t = 0; t < 200; ++t) all.push_back(t / 64);
        return all;
      }();
      Own own{cache_.match_prefix(text), empty(), {}};
      const Index tokens = cache_.num_tokens(0, own.id);
      found += tokens > 0;
      for (Index t = 0; t < tokens; ++t) {
        const auto row = rows(1, static_cast<unsigned>(t / 64));
        own.twin.append(view(row), view(row));
        own.text.push_back(static_cast<std::int32_t>(t / 64));
      }
      compare(own);
      own_.push_back(std::move(own));
      return;
    }
    Own& own = own_[static_cast<std::size_t>(below(std::ssize(own_)))];
    if (kind <= 6) {
      append(own, below(40));
    } else if (kind == 7) {
      own_.push_back({cache_.fork(own.id), own.twin.copy(), own.text});
    } else if (kind == 8) {
      const Index tokens = below(cache_.num_tokens(0, own.id) + 1);
      cache_.truncate(own.id, tokens);
      own.twin.truncate(tokens);
      own.text.resize(static_cast<std::size_t>(tokens));
    } else if (kind == 9) {
      cache_.register_prefix(own.id, own.text);
    } else if (kind == 10) {
      release(&own - own_.data());
      return;
    }
    compare(own_.back());
  }

  PagedCache<float>& cache_;
  std::mt19937 random_;
  std::vector<Own> own_;
};

TEST(PagedThreads, EachWorksOnItsOwnSequencesOfOnePoolThatIsNearlyFull) {
  PagedCache<float> cache(kHeads, 14, {.max_sequences = 20});
  std::vector<Worker> workers;
  for (unsigned i = 0; i < 4; ++i) workers.emplace_back(cache, i + 1);
  std::vector<std::thread> threads;
  for (Worker& worker : workers) threads.emplace_back([&worker] { worker.run(1500); });
  for (std::thread& thread : threads) thread.join();
  Index compared = 0, out_of_pages = 0, found = 0;
  for (const Worker& worker : workers) {
    EXPECT_EQ(worker.differences, 0);
    compared += worker.compared;
    out_of_pages += worker.out_of_pages;
    found += worker.found;
  }
  EXPECT_GT(compared, 0);
  EXPECT_GT(out_of_pages, 0);
  EXPECT_GT(found, 0);
  EXPECT_EQ(cache.num_sequences(), 0);
  EXPECT_EQ(cache.pages().used, 0);
  cache.clear_prefixes();
  EXPECT_EQ(cache.pages().free, 14);
}

TEST(PagedThreads, ForksOfOneSequenceGoTheirOwnWaysAtTheSameTime) {
  for (unsigned round = 0; round < 20; ++round) {
    PagedCache<float> cache(kHeads, 30);
    const SequenceId parent = cache.create();
    const auto prompt = rows(100, round);
    cache.append(0, parent, view(prompt), view(prompt));
    std::vector<SequenceId> forks;
    for (int i = 0; i < 4; ++i) forks.push_back(cache.fork(parent));
    std::atomic<int> ready{0}, wrong{0};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < 4; ++i)
      threads.emplace_back([&, i] {
        ++ready;
        while (ready < 4) std::this_thread::yield();
        const auto rest = rows(5 + i, 100 + i);
        cache.append(0, forks[i], view(rest), view(rest));  // each but the last to come copies the page
        KvCache<float> twin(kHeads, 200);
        twin.append(view(prompt), view(prompt));
        twin.append(view(rest), view(rest));
        wrong += attend(cache.layer(0, std::span(&forks[i], 1))) != attend(twin.layer());
      });
    cache.release(parent);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_EQ(cache.pages().shared, 1);
  }
}

TEST(PagedThreads, OneSequenceIsReadByManyThreads) {
  PagedCache<float> cache(kHeads, 30);
  const SequenceId id = cache.create();
  const auto prompt = rows(1000, 1);
  cache.append(0, id, view(prompt), view(prompt));
  const auto expected = attend(cache.layer(0, std::span(&id, 1)));
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i)
    threads.emplace_back([&] {
      for (int n = 0; n < 20; ++n) {
        wrong += attend(cache.layer(0, std::span(&id, 1))) != expected;
        const SequenceId fork = cache.fork(id);
        const auto one = rows(1, 3);
        cache.append(0, fork, view(one), view(one));
        cache.release(fork);
        std::vector<float> key(8);
        cache.read_key(0, id, 999, 1, key);
        wrong += !std::equal(key.begin(), key.end(), prompt.end() - 8);
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(cache.pages().used, 16);
}

}  // namespace
}  // namespace headwise
