// SPDX-License-Identifier: MIT
// Every operation on every kind of cache with every storage type, against plain vectors. What has passed becomes the table
// in docs/caches.md (table.hpp).
#include <gtest/gtest.h>

#include "tests/cache_cells/checks.hpp"
#include "tests/cache_cells/table.hpp"

namespace headwise::testing {
namespace {

using enum Storage;
constexpr Types kTypes[] = {{f32, f32},   {f16, f16},   {bf16, bf16}, {e4m3, e4m3},
                            {e5m2, e5m2}, {int8, int8}, {int4, int4}, {int8, int4}};

template <class Cache>
class CacheCells : public ::testing::Test {
 protected:
  /// run(cache, model) for each storage type; what the cache then holds is compared with the model.
  template <class Run>
  void each(const char* operation, Run run) {
    for (const Types& types : kTypes) {
      SCOPED_TRACE(types.name());
      Cache cache(types);
      Model model(cache.layers());
      types_ = types;
      run(cache, model);
      if (this->HasFatalFailure() || this->HasNonfatalFailure()) return;
      expect_holds(cache, model, types);
      if (this->HasFatalFailure()) return;
      CellTable::instance().passed(operation, Cache::kName, types.name());
    }
  }

  /// Appends tokens to a sequence of a layer, and of the model.
  template <class T = float>
  static void append(Cache& cache, Model& model, Index sequence, Index layer, Index count) {
    if (!cache.makes(layer)) return;
    const Tokens tokens = model.fresh(layer, count);
    const Packed<T> packed(tokens, model.shape(layer));
    cache.append(layer, sequence, packed.k, packed.v);
    Tokens& held = model.at(sequence, layer);
    held.insert(held.end(), tokens.begin(), tokens.end());
  }
  /// Gives every sequence tokens, so many that rings forget: 410, 307 and 204.
  static void fill(Cache& cache, Model& model) {
    for (Index b = 0; b < kSequences; ++b)
      for (Index l = 0; l < kLayers; ++l)
        for (const Index count : {200 - b, 1 + b, 203 - 100 * b, 6 - b}) append(cache, model, b, l, count);
  }

  Types types_{f32, f32};
};

using Kinds = ::testing::Types<Contiguous, Growing, Ring, Shared, Latent, Paged, LatentPaged>;
struct KindNames {
  template <class T>
  static std::string GetName(int) {
    return T::kName;
  }
};
TYPED_TEST_SUITE(CacheCells, Kinds, KindNames);

TYPED_TEST(CacheCells, AppendOneToken) {
  this->each("append one token", [&](auto& cache, Model& model) {
    for (Index t = 0; t < 130; ++t)
      for (Index l = 0; l < kLayers; ++l) this->append(cache, model, t % kSequences, l, 1);
  });
}

TYPED_TEST(CacheCells, AppendMany) {
  this->each("append many", [&](auto& cache, Model& model) { this->fill(cache, model); });
}

TYPED_TEST(CacheCells, AppendRagged) {
  this->each("append to several sequences, ragged", [&](auto& cache, Model& model) {
    for (const auto& offsets : {std::vector<Index>{0, 70, 70, 71}, std::vector<Index>{0, 1, 65, 130}})
      for (Index l = 0; l < kLayers; ++l) {
        if (!cache.makes(l)) continue;
        const Tokens tokens = model.fresh(l, offsets.back());
        const Packed<float> packed(tokens, model.shape(l));
        cache.append_ragged(l, offsets, packed.k, packed.v);
        for (Index b = 0; b < kSequences; ++b)
          model.at(b, l).insert(model.at(b, l).end(), tokens.begin() + offsets[Model::index(b)],
                                tokens.begin() + offsets[Model::index(b) + 1]);
      }
  });
}

TYPED_TEST(CacheCells, AppendWithRope) {
  this->each("append with RoPE", [&](auto& cache, Model& model) {
    for (const Index count : {70, 1, 60})
      for (Index l = 0; l < kLayers; ++l) {
        if (!cache.makes(l)) continue;
        Tokens tokens = model.fresh(l, count);
        const Packed<float> packed(tokens, model.shape(l));
        cache.append(l, 1, packed.k, packed.v, rope_of(model.shape(l)));
        for (Token& t : tokens) {
          turn(t, model.shape(l), std::ssize(model.at(1, l)));
          t.key_slack = 1;
          model.at(1, l).push_back(t);
        }
      }
  });
}

TYPED_TEST(CacheCells, AppendFromHalves) {
  this->each("append f16 and bf16", [&](auto& cache, Model& model) {
    for (Index l = 0; l < kLayers; ++l) {
      if (!cache.makes(l)) continue;
      for (int round = 0; round < 2; ++round) {
        Tokens tokens = model.fresh(l, 67);
        const auto give = [&]<class T>(T) {
          const Packed<T> packed(tokens, model.shape(l));
          cache.append(l, 2, packed.k, packed.v);
          for (Token& t : tokens) {
            for (float& x : t.key) x = static_cast<float>(T(x));
            for (float& x : t.value) x = static_cast<float>(T(x));
          }
        };
        round == 0 ? give(headwise::f16()) : give(headwise::bf16());
        model.at(2, l).insert(model.at(2, l).end(), tokens.begin(), tokens.end());
      }
    }
  });
}

TYPED_TEST(CacheCells, Truncate) {
  this->each("truncate, roll back", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    for (const Index less : {1, 30, 64, 100}) {
      const Index tokens = std::ssize(model.at(0, 0)) - less;
      cache.truncate(0, tokens);
      for (Index l = 0; l < kLayers; ++l)
        if (cache.makes(l)) model.at(0, l).resize(Model::index(tokens));
      for (Index l = 0; l < kLayers; ++l) this->append(cache, model, 0, l, 3);
    }
  });
}

TYPED_TEST(CacheCells, Clear) {
  this->each("clear", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    cache.clear(1);
    for (Index l = 0; l < kLayers; ++l) {
      model.at(1, l).clear();
      this->append(cache, model, 1, l, 5);
    }
  });
}

TYPED_TEST(CacheCells, Fork) {
  this->each("fork", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    cache.fork(0, 2);
    model.sequence(2) = model.sequence(0);
    for (Index l = 0; l < kLayers; ++l) {  // each goes its own way
      this->append(cache, model, 0, l, 3);
      this->append(cache, model, 2, l, 5);
    }
  });
}

TYPED_TEST(CacheCells, CopyRange) {
  this->each("copy a range", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    const Index tokens = std::ssize(model.at(0, 0)), first = tokens - 66, last = tokens - 1;
    cache.copy_range(0, first, last, 1);
    for (Index l = 0; l < kLayers; ++l)
      if (cache.makes(l))
        model.at(1, l).insert(model.at(1, l).end(), model.at(0, l).begin() + first, model.at(0, l).begin() + last);
  });
}

TYPED_TEST(CacheCells, ReorderBeams) {
  this->each("reorder beams", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    for (const auto& parents : {std::vector<Index>{1, 1, 0}, std::vector<Index>{2, 0, 2}}) {
      cache.reorder(parents);
      const Model before = model;
      for (Index b = 0; b < kSequences; ++b)
        for (Index l = 0; l < kLayers; ++l) model.at(b, l) = before.at(parents[Model::index(b)], l);
      for (Index b = 0; b < kSequences; ++b)
        for (Index l = 0; l < kLayers; ++l) this->append(cache, model, b, l, 1 + b);
    }
  });
}

TYPED_TEST(CacheCells, Evict) {
  this->each("evict", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    const Index tokens = std::ssize(model.at(0, 0));
    cache.evict(0, tokens - 50, tokens - 20, {});
    for (Index l = 0; l < kLayers; ++l)
      if (cache.makes(l)) model.at(0, l).erase(model.at(0, l).end() - 50, model.at(0, l).end() - 20);
  });
}

TYPED_TEST(CacheCells, ShiftContext) {
  this->each("evict and turn keys (context shift)", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    std::vector<Rope> ropes;
    for (Index l = 0; l < kLayers; ++l) ropes.push_back(rope_of(model.shape(l)));
    const Index tokens = std::ssize(model.at(0, 0));
    cache.evict(0, tokens - 60, tokens - 23, ropes);
    for (Index l = 0; l < kLayers; ++l) {
      if (!cache.makes(l)) continue;
      Tokens& held = model.at(0, l);
      held.erase(held.end() - 60, held.end() - 23);
      for (auto t = held.end() - 23; t != held.end(); ++t) {
        turn(*t, model.shape(l), -37);
        t->key_slack = 1;
      }
    }
  });
}

TYPED_TEST(CacheCells, KeepSinks) {
  constexpr const char* kName = "forget all but sinks and a window";
  if constexpr (std::is_same_v<TypeParam, Ring>) {
    this->each(kName, [&](auto& cache, Model& model) {
      this->fill(cache, model);
      const Index bytes = cache.bytes();
      this->append(cache, model, 0, 0, 300);
      EXPECT_EQ(cache.bytes(), bytes);
      EXPECT_FALSE(cache.keeps(0, 0, 100)) << "between the tile of the sinks and the window";
      for (const Index t : {0, 1, 2, 640, 709}) EXPECT_TRUE(cache.keeps(0, 0, t)) << t;
      // the other layer takes its tokens too
      this->append(cache, model, 0, 1, 300);
    });
  } else {
    this->each(kName, [&](auto& cache, Model& model) {
      this->fill(cache, model);
      std::vector<Rope> ropes;
      for (Index l = 0; l < kLayers; ++l) ropes.push_back(rope_of(model.shape(l)));
      const Index tokens = std::ssize(model.at(0, 0)), distance = tokens - 4 - 70;
      cache.evict(0, 4, 4 + distance, ropes);
      for (Index l = 0; l < kLayers; ++l) {
        if (!cache.makes(l)) continue;
        Tokens& held = model.at(0, l);
        held.erase(held.begin() + 4, held.begin() + 4 + distance);
        for (auto t = held.begin() + 4; t != held.end(); ++t) {
          turn(*t, model.shape(l), -distance);
          t->key_slack = 1;
        }
      }
    });
  }
}

template <class C>
concept Defragments = requires(C& cache) { cache.defragment(); };

TYPED_TEST(CacheCells, Defragment) {
  constexpr const char* kName = "defragment";
  if constexpr (Defragments<TypeParam>) {
    this->each(kName, [&](auto& cache, Model& model) {
      this->fill(cache, model);
      cache.clear(0);
      for (Index l = 0; l < kLayers; ++l) model.at(0, l).clear();
      cache.fork(1, 0);
      model.sequence(0) = model.sequence(1);
      for (Index l = 0; l < kLayers; ++l) this->append(cache, model, 0, l, 100);
      cache.defragment();
      for (Index b = 0; b < kSequences; ++b)
        for (Index l = 0; l < kLayers; ++l) this->append(cache, model, b, l, 1);
    });
  } else {
    static_assert(!Defragments<KvCache<>>);
    CellTable::instance().refused(kName, TypeParam::kName,
                                  "each sequence lies in one piece: nothing to bring together");
  }
}

TYPED_TEST(CacheCells, SaveAndRestore) {
  this->each("save and restore", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    std::stringstream file;
    cache.save_to(0, file);
    cache.restore_from(2, file);
    for (Index l = 0; l < kLayers; ++l) {
      model.at(2, l) = model.at(0, l);
      this->append(cache, model, 2, l, 4);
    }
  });
}

TYPED_TEST(CacheCells, CountBytes) {
  this->each("count bytes", [&](auto& cache, Model& model) {
    EXPECT_EQ(cache.bytes_used(), 0);
    this->append(cache, model, 0, 0, 1);
    const Index one = cache.bytes_used();
    EXPECT_GT(one, 0);
    this->append(cache, model, 0, 0, 63);
    EXPECT_EQ(cache.bytes_used(), one) << "of one tile or page";
    this->append(cache, model, 0, 0, 1);
    EXPECT_EQ(cache.bytes_used(), 2 * one);
    EXPECT_LE(cache.bytes_used(), cache.bytes());
  });
}

TYPED_TEST(CacheCells, Attend) {
  this->each("attend", [&](auto& cache, Model& model) {
    this->fill(cache, model);
    expect_attends(cache, model, this->types_, true);
  });
}

TYPED_TEST(CacheCells, CrossAttend) {
  constexpr const char* kName = "cross-attend";
  if constexpr (std::is_same_v<TypeParam, Ring>)
    CellTable::instance().refused(kName, Ring::kName, "every query sees every token, also those a ring forgets");
  else
    this->each(kName, [&](auto& cache, Model& model) {
      this->fill(cache, model);
      expect_attends(cache, model, this->types_, false);
    });
}

}  // namespace
}  // namespace headwise::testing
