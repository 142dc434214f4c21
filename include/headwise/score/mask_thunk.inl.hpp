// SPDX-License-Identifier: MIT
// The loop of a MaskFunction over one row of a tile, included once per ISA inside its region and namespace: the user's
// code is inlined into it and takes the region's instructions.

template <class F>
std::uint64_t see_row(const void* self, const MaskTile& tile) {
  const F& function = *static_cast<const F*>(self);
  if constexpr (SeesByWord<F>) {
    return function(tile);
  } else {
    const MaskTile at = tile;  // a copy: nothing that a function does can change it
    const auto sees = [&](Index j) -> std::uint8_t {
      if constexpr (SeesByHead<F>)
        return static_cast<bool>(function(at.sequence, at.head, at.query, at.first_key + j));
      else
        return static_cast<bool>(function(at.sequence, at.query, at.first_key + j));
    };
    // bytes first: compilers make vectors of the loop
    alignas(kTileAlignment) std::uint8_t seen[kTileTokens];
    if (at.keys == kTileTokens) {
      for (Index j = 0; j < kTileTokens; ++j) seen[j] = sees(j);
    } else {
      for (Index j = 0; j < kTileTokens; ++j) seen[j] = 0;
      for (Index j = 0; j < at.keys; ++j) seen[j] = sees(j);
    }
    return word_of_bytes(seen);
  }
}
