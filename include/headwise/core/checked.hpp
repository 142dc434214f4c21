// SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <stdexcept>

#include "headwise/core/error.hpp"
#include "headwise/core/index.hpp"

// Checked mode: with HEADWISE_CHECKED every index that the library forms or takes on the way of an attention call or of a
// cache's operation is validated before memory is touched, and one that is not there throws std::out_of_range with its
// name and value. Beside the checks of arguments, which hold in both modes (std::invalid_argument, nothing changed), these
// see what changes after it was checked (a block table, lengths, masks' sizes), what a TileSource of the user's gives, and
// faults of the library itself. A call that throws so may have written part of its outputs. Results have the same bits.
//
// The mode is the whole program's: inline functions differ, so files compiled with it and without do not link.

namespace headwise {

/// Whether this program validates every index (HEADWISE_CHECKED).
#if defined(HEADWISE_CHECKED)
inline constexpr bool kChecked = true;
#else
inline constexpr bool kChecked = false;
#endif

namespace detail {

#if defined(__ELF__)
// Each mode defines one strong symbol in a section group of its own name: files of one mode share the group, files of both
// define the symbol twice. In a function, where link-time optimisation does not look for symbols; several of these may meet
// in one assembly then, hence `.ifndef`.
#if defined(HEADWISE_CHECKED)
#define HEADWISE_MODE "headwise_mode_checked"
[[gnu::used]] inline void mark_mode_checked() {
#else
#define HEADWISE_MODE "headwise_mode_unchecked"
[[gnu::used]] inline void mark_mode_unchecked() {
#endif
#define HEADWISE_SYMBOL "HEADWISE_CHECKED_must_be_defined_for_all_files_of_a_program_or_for_none"
  __asm__ volatile(".ifndef " HEADWISE_MODE "\n.set " HEADWISE_MODE
                   ", 1\n"
                   ".pushsection .rodata." HEADWISE_MODE ",\"aG\",%%progbits," HEADWISE_MODE
                   "_group,comdat\n"
                   ".globl " HEADWISE_SYMBOL "\n.hidden " HEADWISE_SYMBOL "\n" HEADWISE_SYMBOL
                   ":\n.byte 1\n"
                   ".popsection\n.endif" ::);
}
#undef HEADWISE_SYMBOL
#undef HEADWISE_MODE
#endif

/// In checked mode: throws std::out_of_range with the text "headwise: <parts...>" unless `condition` holds.
template <class... Parts>
constexpr void require_index(bool condition, const Parts&... parts) {
  if constexpr (kChecked)
    if (!condition) [[unlikely]]
      fail_with<std::out_of_range>(parts...);
}

/// `index`; in checked mode it must be 0 … size − 1.
template <class Name>
constexpr Index checked_index(Index index, Index size, const Name& name) {
  require_index(index >= 0 && index < size, name, " (", index, ") must be at least 0 and below ", size);
  return index;
}

/// In checked mode: [first, first + count) must lie within [0, size); neither is negative.
template <class Name>
constexpr void check_range(Index first, Index count, Index size, const Name& name) {
  require_index(first >= 0 && count >= 0 && first <= size && count <= size - first, name, " (from ", first, " on, ",
                count, " of them) must lie between 0 and ", size);
}

/// In checked mode: what is at this address must be there, and aligned.
template <class... Parts>
void check_address(const void* address, Index alignment, const Parts&... name) {
  require_index(address != nullptr, name..., " (null) must point to memory");
  require_index(reinterpret_cast<std::uintptr_t>(address) % static_cast<std::uintptr_t>(alignment) == 0, name..., " (",
                address, ") must be aligned to ", alignment, " bytes");
}

/// Element i of a span or vector.
template <class Array, class Name>
constexpr decltype(auto) checked_at(Array&& array, Index i, const Name& name) {
  return array[static_cast<decltype(array.size())>(checked_index(i, static_cast<Index>(array.size()), name))];
}

}  // namespace detail

}  // namespace headwise
