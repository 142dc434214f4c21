// SPDX-License-Identifier: MIT
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "headwise/cache/page_table.hpp"
#include "headwise/core/checked.hpp"
#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

namespace headwise {

/// All sequences that a PagedCache can have are in use. Nothing has changed.
class OutOfSequences : public std::runtime_error {
 public:
  explicit OutOfSequences(Index total) : std::runtime_error(text(total)) {}

 private:
  static std::string text(Index total) {
    std::ostringstream result;
    result << "headwise: sequences in use (" << total << ") must be fewer than max_sequences (" << total
           << "): release one";
    return result.str();
  }
};

struct SequenceIdAccess {
  static SequenceId make(const void* cache, std::uint32_t generation, Index number) {
    SequenceId id;
    id.cache_ = cache;
    id.generation_ = generation;
    id.number_ = static_cast<std::int32_t>(number);
    return id;
  }
  static const void* cache(const SequenceId& id) { return id.cache_; }
  static std::uint32_t generation(const SequenceId& id) { return id.generation_; }
};

namespace detail {

/// The sequences of a PagedCache: a fixed number of slots, so that nothing moves under other threads. Each has a
/// generation, odd while it is in use, so that a name of a released sequence is noticed.
///
/// add, remove and all may be called from several threads; a table belongs to whoever its sequence belongs to.
class SequenceSlots {
 public:
  SequenceSlots(Index max_sequences, Index num_storages)
      : size_(max_sequences), slots_(std::make_unique<Slot[]>(static_cast<std::size_t>(max_sequences))) {
    for (Index i = max_sequences; i-- > 0;) {
      slot(i).table.tokens.resize(static_cast<std::size_t>(num_storages));
      unused_.push_back(i);
    }
  }

  Index size() const { return size_; }
  Index in_use() const {
    const std::lock_guard lock(mutex_);
    return size_ - std::ssize(unused_);
  }

  /// A new sequence, empty. Throws OutOfSequences.
  SequenceId add() {
    const std::lock_guard lock(mutex_);
    if (unused_.empty()) throw OutOfSequences(size_);
    const Index number = unused_.back();
    unused_.pop_back();
    return id_of(number, slot(number).generation.fetch_add(1, std::memory_order_relaxed) + 1);
  }
  /// Its table must hold no pages.
  void remove(const SequenceId& id) noexcept(!kChecked) {
    PageTable& table = slot(id.number()).table;
    std::fill(table.tokens.begin(), table.tokens.end(), Index{0});
    table.intact = PageTable{}.intact;
    const std::lock_guard lock(mutex_);
    slot(id.number()).generation.fetch_add(1, std::memory_order_relaxed);
    unused_.push_back(id.number());  // there was room for it before
  }

  /// Throws std::invalid_argument unless `id` names a sequence in use.
  void check(const SequenceId& id) const {
    const void* const cache = SequenceIdAccess::cache(id);
    require(cache != nullptr, "sequence (none) must be one that create, fork or match_prefix gave");
    require(cache == this, "sequence ", id.number(), " (of another cache) must be one of this PagedCache");
    require(slot(id.number()).generation.load(std::memory_order_relaxed) == SequenceIdAccess::generation(id),
            "sequence ", id.number(), " (released) must be one in use");
  }
  bool contains(const SequenceId& id) const {
    return SequenceIdAccess::cache(id) == this &&
           slot(id.number()).generation.load(std::memory_order_relaxed) == SequenceIdAccess::generation(id);
  }
  /// The pages of a sequence; checked.
  PageTable& at(const SequenceId& id) {
    check(id);
    return slot(id.number()).table;
  }
  const PageTable& at(const SequenceId& id) const {
    check(id);
    return slot(id.number()).table;
  }
  /// The same, checked before.
  PageTable& table(const SequenceId& id) {
    check_use(id);
    return slot(id.number()).table;
  }
  const PageTable& table(const SequenceId& id) const {
    check_use(id);
    return slot(id.number()).table;
  }

  /// Checks that ids are sequences in use, none of them twice.
  void check_distinct(std::span<const SequenceId> ids) {
    for (const SequenceId& id : ids) check(id);
    std::size_t twice = ids.size();
    for (std::size_t i = 0; i < ids.size() && twice == ids.size(); ++i)
      if (std::exchange(slot(ids[i].number()).marked, true)) twice = i;
    for (const SequenceId& id : ids) slot(id.number()).marked = false;
    require(twice == ids.size(), "sequences[", twice, "] (", twice < ids.size() ? ids[twice].number() : 0,
            ") must not be there twice");
  }

  /// The sequences in use, by number.
  std::vector<SequenceId> all() const {
    std::vector<SequenceId> result;
    result.reserve(static_cast<std::size_t>(size_));
    const std::lock_guard lock(mutex_);
    for (Index i = 0; i < size_; ++i) {
      const std::uint32_t generation = slot(i).generation.load(std::memory_order_relaxed);
      if (generation % 2 == 1) result.push_back(id_of(i, generation));
    }
    return result;
  }

 private:
  struct Slot {
    std::atomic<std::uint32_t> generation{0};
    bool marked = false;
    PageTable table;
  };

  Slot& slot(Index number) {
    return slots_[static_cast<std::size_t>(checked_index(number, size_, "number of a sequence"))];
  }
  const Slot& slot(Index number) const {
    return slots_[static_cast<std::size_t>(checked_index(number, size_, "number of a sequence"))];
  }
  /// In checked mode: the same as check().
  void check_use(const SequenceId& id) const {
    if constexpr (kChecked)
      require_index(contains(id), "sequence ", id.number(), " must be one of this PagedCache that is in use");
  }
  SequenceId id_of(Index number, std::uint32_t generation) const {
    return SequenceIdAccess::make(this, generation, number);
  }

  Index size_;
  std::unique_ptr<Slot[]> slots_;
  mutable std::mutex mutex_;
  std::vector<Index> unused_;
};

}  // namespace detail

}  // namespace headwise
