// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "headwise/attention/problem.hpp"
#include "headwise/attention/work_item.hpp"
#include "headwise/attention/workspace.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/kernel/table.hpp"
#include "headwise/parallel/executor.hpp"

namespace headwise::detail {

/// Where the masses of a sequence are made.
enum class MassPlace : std::uint8_t {
  none,   // nothing is paid
  array,  // in the caller's array: keys lie side by side, and each mass is complete with one work item
  rows,   // in rows of keys, f32: keys lie apart, and a line of the array would be met once for every head
  sums,   // in rows of keys, integers: several work items pay to one mass
};

/// The memory of masses in the making. Outlives calls, so that they allocate nothing after the first of a size.
struct MassMemory {
  struct Sequence {
    MassPlace place;
    Index at;  // rows of this sequence in `rows`, in bytes
  };
  std::vector<Sequence> sequences;
  Buffer rows;
  std::array<std::mutex, 64> locks;
};

/// The masses of a call under way, and what they become in the caller's array.
class MassStore {
 public:
  MassStore(const Problem& call, const TileKernels& kernels, MassMemory& memory)
      : call_(call), kernels_(kernels), output_(*call.outputs.mass), array_(output_.values), memory_(memory) {}

  bool by_query_head() const { return array_.heads != call_.groups.num_kv_heads(); }

  /// Of a call in which `for_each_finished(f)` calls f for the work items that finish rows that pay.
  template <class F>
  void open(F for_each_finished) {
    auto& sequences = memory_.sequences;
    sequences.assign(static_cast<std::size_t>(call_.num_sequences()), {MassPlace::none, 0});
    const MassPlace whole = array_.strides.token == 1 ? MassPlace::array : MassPlace::rows;
    for_each_finished([&](const WorkItem& item) {
      const bool all =
          item.rows == call_.groups.of(item.sequence, item.kv_head).size() * call_.num_queries(item.sequence);
      MassPlace& place = sequences[static_cast<std::size_t>(item.sequence)].place;
      if (place != MassPlace::sums) place = all ? whole : MassPlace::sums;
    });
    Index bytes = 0;
    for (Index b = 0; b < call_.num_sequences(); ++b) {
      MassMemory::Sequence& sequence = sequences[static_cast<std::size_t>(b)];
      sequence.at = bytes;
      bytes += row_bytes(sequence.place) * padded_keys(b) * array_.heads;
    }
    memory_.rows.reserve(bytes);
    for (Index b = 0; b < call_.num_sequences(); ++b) clear(b);
  }

  MassPlace place(Index sequence) const { return memory_.sequences[static_cast<std::size_t>(sequence)].place; }
  /// What a finished work item does to the masses of its keys.
  MassTo to(Index sequence) const {
    if (place(sequence) == MassPlace::sums) return MassTo::sum;
    return place(sequence) == MassPlace::array && output_.add ? MassTo::add : MassTo::set;
  }
  /// The masses of a head, key by key: [keys], or as many as whole tiles hold outside the array.
  char* of(Index sequence, Index head) const {
    check_range(0, call_.num_keys(sequence), array_.tokens, "keys of the mass");
    if (place(sequence) == MassPlace::array) return static_cast<char*>(array_.row(sequence, 0, head));
    const MassMemory::Sequence& rows = memory_.sequences[static_cast<std::size_t>(sequence)];
    return static_cast<char*>(memory_.rows.reserve(0)) + rows.at + row_bytes(rows.place) * padded_keys(sequence) * head;
  }
  /// What must be held while a tile's sums of a group's heads are added to.
  std::mutex& lock_of(Index kv_head, Index tile) const {
    return memory_.locks[static_cast<std::size_t>(kv_head * 7 + tile) % memory_.locks.size()];
  }
  /// The mass of a key becomes NaN.
  void pay_nan(Index sequence, Index head, Index key) const {
    if (place(sequence) == MassPlace::sums) {
      reinterpret_cast<std::uint64_t*>(of(sequence, head))[key] |= kNan;
      return;
    }
    store_element(of(sequence, head), Storage::f32, key, std::numeric_limits<float>::quiet_NaN());
  }

  /// What is not in the array yet goes there.
  void close(const ExecutorRef& executor) const {
    constexpr Index kKeys = 1024;  // at a time
    for (Index b = 0; b < call_.num_sequences(); ++b) {
      if (place(b) != MassPlace::rows && place(b) != MassPlace::sums) continue;
      executor.parallel_for(ceil_div(call_.num_keys(b), kKeys), [&](Index i) {
        const Index end = std::min((i + 1) * kKeys, call_.num_keys(b));
        for (Index first = i * kKeys; first < end; first += kTileTokens)
          put(b, first, std::min(kTileTokens, end - first));
      });
    }
  }

 private:
  static constexpr std::uint64_t kNan = std::uint64_t{1} << 63;  // beyond any sum
  static constexpr Index kHeads = 32;                            // at a time

  static Index row_bytes(MassPlace place) { return place == MassPlace::rows ? 4 : place == MassPlace::sums ? 8 : 0; }
  static float in_weights(std::uint64_t sum) {
    return sum & kNan ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(sum) * kMassUnit;
  }
  /// Whole tiles, and a line: rows a power of two apart would share a few sets of the caches.
  Index padded_keys(Index sequence) const { return round_up(call_.num_keys(sequence), kTileTokens) + 16; }

  /// What nothing is paid to: keys that do not exist, heads of no queries, sequences without queries. Sums begin at 0.
  void clear(Index b) const {
    const Index keys = call_.num_keys(b);
    if (!output_.add) clear_array(b, place(b) == MassPlace::none ? 0 : keys);
    if (place(b) == MassPlace::none) return;
    if (place(b) == MassPlace::sums) {
      std::memset(of(b, 0), 0, static_cast<std::size_t>(8 * padded_keys(b) * array_.heads));
      return;
    }
    if (by_query_head() || to(b) == MassTo::add) return;
    for (Index h = 0; h < array_.heads; ++h)
      if (call_.groups.of(b, h).size() == 0) std::memset(of(b, h), 0, static_cast<std::size_t>(4 * keys));
  }
  void clear_array(Index b, Index first_key) const {
    if (first_key == array_.tokens) return;
    if (array_.strides.token == 1) {
      for (Index h = 0; h < array_.heads; ++h)
        std::memset(array_.row(b, first_key, h), 0, static_cast<std::size_t>(4 * (array_.tokens - first_key)));
      return;
    }
    for (Index t = first_key; t < array_.tokens; ++t) {
      void* const row = array_.row(b, t, 0);
      if (array_.strides.head == 1)
        std::memset(row, 0, static_cast<std::size_t>(4 * array_.heads));
      else
        for (Index h = 0; h < array_.heads; ++h) store_element(row, Storage::f32, h * array_.strides.head, 0.0f);
    }
  }

  /// `keys` masses of all heads from key `first` on to the array.
  void put(Index b, Index first, Index keys) const {
    alignas(64) float of_sums[kHeads * kTileTokens];
    for (Index head = 0; head < array_.heads; head += kHeads) {
      const Index heads = std::min(kHeads, array_.heads - head);
      if (place(b) == MassPlace::rows) {
        put(b, first, head, reinterpret_cast<const float*>(of(b, head)) + first, padded_keys(b), heads, keys);
        continue;
      }
      for (Index h = 0; h < heads; ++h) {
        const auto* const sums = reinterpret_cast<const std::uint64_t*>(of(b, head + h)) + first;
        for (Index t = 0; t < keys; ++t) of_sums[h * kTileTokens + t] = in_weights(sums[t]);
      }
      put(b, first, head, of_sums, kTileTokens, heads, keys);
    }
  }
  void put(Index b, Index first, Index head, const float* masses, Index stride, Index heads, Index keys) const {
    const Strides& strides = array_.strides;
    if (strides.head == 1)
      return kernels_.transpose(masses, stride, heads, keys, array_.row(b, first, head), strides.token, output_.add);
    for (Index h = 0; h < heads; ++h) {
      void* const to = array_.row(b, first, head + h);
      for (Index t = 0; t < keys; ++t) {
        const float held = output_.add ? load_element(to, Storage::f32, t * strides.token) : 0.0f;
        store_element(to, Storage::f32, t * strides.token, held + masses[h * stride + t]);
      }
    }
  }

  const Problem& call_;
  const TileKernels& kernels_;
  const MassOutput& output_;
  const Array& array_;
  MassMemory& memory_;
};

}  // namespace headwise::detail
