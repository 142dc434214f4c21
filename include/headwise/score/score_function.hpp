// SPDX-License-Identifier: MIT
#pragma once

#include <concepts>
#include <span>
#include <type_traits>

#include "headwise/core/index.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/simd/region.hpp"

namespace headwise {

/// Consecutive scores of a query, those of the keys of a tile.
using ScoreRow = std::span<float, kTileTokens>;

namespace detail {

template <class F>
concept ChangesOneScore = std::is_invocable_r_v<float, const F&, float, Index, Index, Index, Index>;
template <class F>
concept ChangesARow = !ChangesOneScore<F> && std::is_invocable_v<const F&, ScoreRow, Index, Index, Index, Index>;
template <class F>
concept HasNoState = std::is_empty_v<F> && std::is_default_constructible_v<F>;

using ScoreThunk = void (*)(const void* self, float* scores, Index sequence, Index head, Index query, Index first_key);

#if defined(__x86_64__) && !defined(HEADWISE_NATIVE_ONLY)
#define HEADWISE_SCORE_THUNKS
namespace scores_sse2 {
#include "headwise/score/score_thunk.inl.hpp"
}
HEADWISE_REGION_BEGIN("avx2,fma")
namespace scores_avx2 {
#include "headwise/score/score_thunk.inl.hpp"
}
HEADWISE_REGION_END
HEADWISE_REGION_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
namespace scores_avx512 {
#include "headwise/score/score_thunk.inl.hpp"
}
HEADWISE_REGION_END
#else
namespace scores_native {
#include "headwise/score/score_thunk.inl.hpp"
}
#endif

}  // namespace detail

/// The user's own change of scores, compiled into the user's program: no more than one call through a pointer per row of 64
/// scores, the loop over these is inlined and compiled for every ISA that the kernels have. Refers to a callable, which
/// must be const-callable from several threads at once, must not throw, and is one of
///   float f(float score, Index sequence, Index head, Index query, Index key)
///   void f(ScoreRow scores, Index sequence, Index head, Index query, Index first_key)    in place; key first_key + j
/// `head` is a query head; `query` and `key` are positions in their sequence, as in Options. Scores are those of
/// Options up to here (scaled, capped, biased), in natural units: the weight of a key is exp(score) over their sum.
/// A key whose score becomes −∞ counts as hidden; a NaN of a visible key propagates. The result must depend on the
/// arguments alone for results to be independent of threads and of how a prompt is cut. f is also called for keys that the
/// query does not see, with any score and positions beyond the last key: what it gives there is dropped.
/// Where a loop over f is to be vectorised, f must be free of calls that the compiler cannot inline (std::tanh).
class ScoreFunction {
 public:
  /// None.
  ScoreFunction() = default;

  /// Refers to `function`, which must live as long as this. One without state, as a lambda that captures nothing, may be a
  /// temporary.
  template <class F>
    requires(!std::same_as<std::remove_cvref_t<F>, ScoreFunction> &&
             (detail::ChangesOneScore<std::remove_cvref_t<F>> || detail::ChangesARow<std::remove_cvref_t<F>>))
  ScoreFunction(F&& function) : self_(&function) {  // NOLINT: converts on purpose
    using Function = std::remove_cvref_t<F>;
    static_assert(std::is_lvalue_reference_v<F> || detail::HasNoState<Function>,
                  "a function with state is referred to: give it a name that outlives the call");
#if defined(HEADWISE_SCORE_THUNKS)
    of_4_lanes_ = detail::scores_sse2::change_row<Function>;
    of_8_lanes_ = detail::scores_avx2::change_row<Function>;
    of_16_lanes_ = detail::scores_avx512::change_row<Function>;
#else
    of_4_lanes_ = of_8_lanes_ = of_16_lanes_ = detail::scores_native::change_row<Function>;
#endif
  }

  explicit operator bool() const { return of_4_lanes_ != nullptr; }
  /// Whether both refer to the same object.
  friend bool operator==(const ScoreFunction&, const ScoreFunction&) = default;

  /// Changes 64 scores, with the instructions of an ISA of so many lanes of f32: 4, 8 or 16.
  void operator()(int lanes, float* scores, Index sequence, Index head, Index query, Index first_key) const {
    const detail::ScoreThunk run = lanes == 16 ? of_16_lanes_ : lanes == 8 ? of_8_lanes_ : of_4_lanes_;
    run(self_, scores, sequence, head, query, first_key);
  }

 private:
  const void* self_ = nullptr;
  detail::ScoreThunk of_4_lanes_ = nullptr, of_8_lanes_ = nullptr, of_16_lanes_ = nullptr;
};

}  // namespace headwise
