// SPDX-License-Identifier: MIT
// Values that are the first dimensions of the keys (multi-head latent attention in its absorbed form), stored once: the
// same results as if they were stored twice, by the definition, with nothing hidden getting through.
#include <algorithm>

#include "tests/attention/oracle.hpp"

namespace headwise {
namespace {

using namespace testing;

/// Inputs whose values are the first dimensions of their keys.
Inputs latent_inputs(const Heads<>& heads, Index sequences, Index queries, Index keys, unsigned seed,
                     Precision precision = {}) {
  Inputs in(heads, sequences, queries, keys, seed, precision);
  for (Index b = 0; b < sequences; ++b)
    for (Index t = 0; t < keys; ++t)
      for (Index g = 0; g < heads.num_kv_heads(); ++g)
        std::copy_n(in.key(b, t, g), heads.value_dim(), in.value(b, t, g));
  return in;
}

/// A cache of the inputs' keys, with values in them or beside them.
KvCache<> cache_with(const Inputs& in, Storage storage, bool in_keys) {
  const Heads<>& heads = in.heads;
  const LayerShape shape{.num_kv_heads = heads.num_kv_heads(),
                         .head_dim = heads.head_dim(),
                         .value_dim = heads.value_dim(),
                         .values_in_keys = in_keys};
  KvCache<> cache(std::span(&shape, 1), std::max<Index>(1, in.key_tokens),
                  {.num_sequences = in.sequences, .key_storage = storage});
  const View<const float> k(in.k.data(), in.sequences, in.key_tokens, heads.num_kv_heads(), heads.head_dim()),
      v(in.v.data(), in.sequences, in.key_tokens, heads.num_kv_heads(), heads.value_dim());
  if (in_keys)
    cache.append(k);
  else
    cache.append(k, v);
  return cache;
}

struct Case {
  Heads<> heads;
  Index sequences, queries, keys;
};

class AttentionLatent : public EveryIsa {};

TEST_P(AttentionLatent, GivesWhatTheDefinitionSays) {
  unsigned seed = 0;
  for (const auto& [heads, sequences, queries, keys] :
       {Case{{16, 1, 576, 512}, 1, 1, 130}, Case{{128, 1, 576, 512}, 1, 1, 70}, Case{{3, 1, 576, 512}, 1, 2, 65},
        Case{{4, 2, 40, 24}, 2, 5, 100}, Case{{9, 1, 33, 33}, 1, 33, 129}, Case{{2, 1, 24, 17}, 1, 1, 1},
        Case{{2, 1, 8, 1}, 1, 3, 0}, Case{{20, 1, 96, 64}, 1, 1, 2100}}) {
    const Inputs in = latent_inputs(heads, sequences, queries, keys, ++seed);
    const Expected expected(in);
    for (const Storage storage : kAllStorages) {
      const KvCache<> cache = cache_with(in, storage, true);
      expected.check(run_over(cache.layer(), in), {.storage = storage});
      if (HasFatalFailure()) return;
    }
  }
}

// so it does not depend on threads, batch or chunking either: the tests of those hold for what is stored twice
TEST_P(AttentionLatent, GivesTheBitsOfValuesStoredBesideKeys) {
  ThreadPool pool(3);
  unsigned seed = 50;
  for (const auto& [heads, sequences, queries, keys] :
       {Case{{64, 1, 576, 512}, 1, 1, 100}, Case{{8, 1, 576, 512}, 1, 1, 70}, Case{{6, 2, 40, 24}, 3, 7, 150},
        Case{{5, 1, 72, 50}, 1, 90, 200}, Case{{2, 1, 48, 32}, 1, 3, 2500}})
    for (const Storage storage : {Storage::f32, Storage::f16, Storage::bf16, Storage::e4m3, Storage::e5m2}) {
      const Inputs in = latent_inputs(heads, sequences, queries, keys, ++seed, {.coarse = false});
      const KvCache<> once = cache_with(in, storage, true), twice = cache_with(in, storage, false);
      for (const Options& options : {Options{}, Options{.causal = false}, Options{.window = 40, .softcap = 5}}) {
        const Results expected = run_over(twice.layer(), in, options);
        EXPECT_EQ(run_over(once.layer(), in, options), expected)
            << headwise::name_of(storage) << ", dim " << heads.head_dim();
        EXPECT_EQ(run_over(once.layer(), in, options, pool), expected) << headwise::name_of(storage) << ", threads";
      }
    }
}

// int8 and int4 share scales over all of a key, so that values beside it would be other numbers: compared with f32 that
// holds what they stand for
TEST_P(AttentionLatent, OfIntegersMeetsWhatIsReadBack) {
  for (const Storage storage : {Storage::int8, Storage::int4})
    for (const Heads<>& heads : {Heads<>{16, 1, 576, 512}, Heads<>{4, 2, 40, 24}}) {
      const Inputs in = latent_inputs(heads, 1, 3, 100, 7);
      const KvCache<> cache = cache_with(in, storage, true);
      Inputs stored = in;
      for (Index g = 0; g < heads.num_kv_heads(); ++g)
        for (Index t = 0; t < 100; ++t) {
          cache.read_key(0, 0, t, g, std::span(stored.key(0, t, g), static_cast<std::size_t>(heads.head_dim())));
          cache.read_value(0, 0, t, g, std::span(stored.value(0, t, g), static_cast<std::size_t>(heads.value_dim())));
          ASSERT_TRUE(
              std::equal(stored.value(0, t, g), stored.value(0, t, g) + heads.value_dim(), stored.key(0, t, g)));
        }
      const Results actual = run_over(cache.layer(), in), expected = run(stored);
      for (std::size_t i = 0; i < expected.output.size();
           ++i)  // queries of two 7-bit digits: 2^-15 of the largest score
        ASSERT_NEAR(actual.output[i], expected.output[i], 0x1p-9) << headwise::name_of(storage) << ", element " << i;
    }
}

TEST_P(AttentionLatent, LetsNothingHiddenThrough) {
  const Heads<> heads{16, 1, 72, 64};
  const Inputs clean = latent_inputs(heads, 1, 5, 200, 8);
  Inputs poisoned = clean;
  const std::vector<Index> length{150};
  for (Index t = 150; t < 200; ++t)
    for (Index d = 0; d < 72; ++d)
      poisoned.key(0, t, 0)[d] =
          d % 2 ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  for (const Storage storage : kAllStorages) {
    const KvCache<> a = cache_with(clean, storage, true), b = cache_with(poisoned, storage, true);
    const Options options{.key_lengths = length};
    EXPECT_EQ(run_over(b.layer(), clean, options), run_over(a.layer(), clean, options)) << headwise::name_of(storage);
  }
  // between rows: the last key is seen by the last query alone
  Inputs last = clean;
  last.key(0, 199, 0)[3] = std::numeric_limits<float>::quiet_NaN();
  std::copy_n(last.key(0, 199, 0), 64, last.value(0, 199, 0));
  for (const Storage storage : kAllStorages)
    Expected(last).check(run_over(cache_with(last, storage, true).layer(), last), {.storage = storage}, "visible NaN");
}

TEST_P(AttentionLatent, MayBeTheCallersMemoryRead) {
  const Heads<> heads{32, 1, 576, 512};
  const Inputs in = latent_inputs(heads, 2, 1, 90, 9);
  const Expected expected(in);
  for (const Storage storage : kAllStorages) {
    Memory k(in.k, storage, 2, 90, 1, 576);
    with_type(storage, [&]<class T>() {
      const View<const T> keys = k.view<const T>(), values(keys.data(), 2, 90, 1, 512, keys.strides());
      expected.check(run_over(KvRows(keys, values), in), {.source = Source::packed_rows, .storage = storage});
    });
    if (HasFatalFailure()) return;
  }
}

HEADWISE_FOR_EVERY_ISA(AttentionLatent);

}  // namespace
}  // namespace headwise
