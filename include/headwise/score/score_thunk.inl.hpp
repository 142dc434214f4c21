// SPDX-License-Identifier: MIT
// The loop of a ScoreFunction over one row of a tile, included once per ISA inside its region and namespace: the user's
// code is inlined into it and takes the region's instructions.

template <class F>
void change_row(const void* self, float* scores, Index sequence, Index head, Index query, Index first_key) {
  const auto run = [&](const F& function) {
    if constexpr (ChangesOneScore<F>)
      for (Index j = 0; j < kTileTokens; ++j) scores[j] = function(scores[j], sequence, head, query, first_key + j);
    else
      function(std::span<float, kTileTokens>(scores, kTileTokens), sequence, head, query, first_key);
  };
  if constexpr (HasNoState<F>)
    run(F{});
  else
    run(*static_cast<const F*>(self));
}
