// SPDX-License-Identifier: MIT
// A source that transforms keys before it stores them says so, and queries are transformed to meet them.
#include <algorithm>
#include <cmath>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/attention/run.hpp"

namespace headwise {
namespace {

using namespace testing;

/// Tiles of another source, with keys that went through a transform.
struct TransformedLayer {
  CacheLayer layer;
  KeyTransform transform;

  TileFormat format() const { return layer.format(); }
  Index num_sequences() const { return layer.num_sequences(); }
  Index num_tokens(Index sequence) const { return layer.num_tokens(sequence); }
  TilePointers tile(Index sequence, Index kv_head, Index index) const { return layer.tile(sequence, kv_head, index); }
  KeyTransform key_transform() const { return transform; }
};
static_assert(TileSource<TransformedLayer>);

/// Unequal factors, different for every KV head.
std::vector<float> factors(const Heads<>& heads) {
  std::vector<float> result;
  for (Index i = 0; i < heads.num_kv_heads() * heads.head_dim(); ++i)
    result.push_back(std::exp2(static_cast<float>(i * 7 % 11) / 4 - 1));
  return result;
}

class KeyTransforms : public EveryIsa {};

TEST_P(KeyTransforms, LeaveResultsWhatTheyWere) {
  for (const Heads<> heads : {Heads<>{4, 2, 64}, Heads<>{3, 3, 24, 40}, Heads<>{6, 1, 13}})
    for (const Index queries : {1, 40})
      for (const bool hadamard : {false, true})
        for (const bool scaled : {false, true}) {
          const Inputs in(heads, 2, queries, 100, 12);
          const std::vector<float> scales = factors(heads);
          const KeyTransform transform{scaled ? scales.data() : nullptr, hadamard};
          Inputs changed = in;
          for (Index b = 0; b < 2; ++b)
            for (Index t = 0; t < 100; ++t)
              for (Index g = 0; g < heads.num_kv_heads(); ++g)
                transform.to_key(g, heads.head_dim(), changed.key(b, t, g));
          const KvCache<float> plain = cache_of<float>(in), cache = cache_of<float>(changed);
          const TransformedLayer layer{cache.layer(), transform};
          for (const Storage storage : kAllStorages)
            for (const Layout layout : {Layout::packed, Layout::odd_byte, Layout::scattered}) {
              const Route route{.queries = storage, .query_layout = layout};
              const Results want = run_over(plain.layer(), in, {}, Serial{}, route);
              ThreadPool pool(2);
              const Results got = run_over(layer, in, {}, pool, route);
              // each of the head_dim terms of a score below 64 is rounded a few times more, and scores shift weights of
              // values below 4
              for (std::size_t i = 0; i < want.output.size(); ++i) ASSERT_NEAR(got.output[i], want.output[i], 2e-4);
              for (std::size_t i = 0; i < want.lse.size(); ++i) ASSERT_NEAR(got.lse[i], want.lse[i], 5e-5);
              if (scaled || (hadamard && heads.head_dim() % 2 == 0)) {
                EXPECT_FALSE(run_over(cache.layer(), in, {}, Serial{}, route) == want) << "the transform does nothing";
              }
            }
        }
}

HEADWISE_FOR_EVERY_ISA(KeyTransforms);

}  // namespace
}  // namespace headwise
