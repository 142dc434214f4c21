// SPDX-License-Identifier: MIT
// Any bytes as a saved sequence: a cache is what they say, and saves as much again, or it refuses them by name and is as
// it was.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "tests/fuzz/bytes.hpp"
#include "tests/fuzz/restore/caches.hpp"
#include "tests/fuzz/restore/file.hpp"

namespace headwise::fuzz {
namespace {

template <class C, class Id>
std::string saved(C& cache, const Id& id) {
  std::ostringstream stream;
  save(cache, id, stream);
  return std::move(stream).str();
}

/// A file in memory, whose size is known before it is read.
std::string as_file(const std::string& bytes) {
  static const int file = ::memfd_create("saved", 0);
  expect(file >= 0 && ::ftruncate(file, 0) == 0 && ::pwrite(file, bytes.data(), bytes.size(), 0) == std::ssize(bytes),
         "no file in memory");
  return "/proc/self/fd/" + std::to_string(file);
}

template <class C, class Id>
void restore_bytes(C& cache, const Id& id, const std::string& bytes, bool as_stream) {
  if (!as_stream) return restore(cache, id, as_file(bytes));
  std::istringstream stream(bytes);
  restore(cache, id, stream);
}

template <class F>
bool refused(F f) {
  try {
    f();
    return false;
  } catch (const CacheFileError& error) {
    expect(std::string_view(error.what()).starts_with("headwise: "), "an error without a name");
  } catch (const OutOfPages& error) {
    expect(std::string_view(error.what()).starts_with("headwise: "), "an error without a name");
  } catch (const std::invalid_argument& error) {
    expect(std::string_view(error.what()).starts_with("headwise: "), "an error without a name");
  }
  return true;
}

/// Attention of one query over a layer of a sequence: whatever is stored, it neither fails nor reads what is not there.
template <class Layer>
void attend(const Layer& layer, const LayerShape& shape, Index sequences) {
  const Heads<> heads(2 * shape.num_kv_heads, shape.num_kv_heads, shape.head_dim, shape.value_dim);
  const std::vector<float> q(static_cast<std::size_t>(sequences * heads.num_heads() * heads.head_dim()), 0.5f);
  std::vector<float> out(static_cast<std::size_t>(sequences * heads.num_heads() * heads.value_dim()));
  Options options;
  if (shape.window > 0) {
    options.window = shape.window;
    options.num_sink_tokens = shape.num_sink_tokens;
  }
  Attention<>{heads}(View<const float>(q.data(), sequences, 1, heads.num_heads(), heads.head_dim()), layer,
                     View<float>(out.data(), sequences, 1, heads.num_heads(), heads.value_dim()), options);
}
void attend_all(const KvCache<>& cache, std::span<const Index> sequences) {
  for (Index layer = 0; layer < cache.num_layers(); ++layer) {
    const CacheLayer tiles = cache.layer(layer);
    bool whole = true;  // otherwise it may hold too little for its window, or, without one, for any query
    for (const Index b : sequences) whole &= tiles.kept(b).begin <= tiles.kept(b).sinks;
    const bool was_refused = refused([&] { attend(tiles, cache.layer_shape(layer), std::ssize(sequences)); });
    expect(!whole || !was_refused, "attention over a whole sequence was refused");
  }
}
void attend_all(const PagedCache<>& cache, std::span<const SequenceId> ids) {
  for (Index layer = 0; layer < cache.num_layers(); ++layer)
    attend(cache.layer(layer, ids), cache.layer_shape(layer), std::ssize(ids));
}

/// Norms are the sums of what is read back.
void check_norms(const KvCache<>& cache, Index sequence) {
  const LayerShape shape = cache.layer_shape(0);
  for (Index g = 0; g < shape.num_kv_heads; ++g) {
    const Index tokens = cache.num_tokens(0, sequence);
    std::vector<float> keys(static_cast<std::size_t>(tokens * shape.head_dim));
    cache.read_keys(0, sequence, 0, tokens, g, keys);
    double sum = 0;
    for (const float x : keys) sum += static_cast<double>(x) * static_cast<double>(x);
    const double norm = cache.key_norm_squares(0, sequence, g);
    expect(!std::isfinite(sum) ? !std::isfinite(norm) : std::abs(norm - sum) <= 1e-9 * sum,
           "key norms are not those of the keys");
  }
}

/// A cache with something in both sequences. Made once and used again until a restored sequence has changed it.
template <class C, class Id>
struct Filled {
  C cache;
  std::vector<Id> ids;
  std::string before, other;

  Filled(C made, const std::vector<Id>& names) : cache(std::move(made)), ids(names) {
    append_tokens(cache, ids[0], 3, 1.0f);
    append_tokens(cache, ids[1], 66, -1.0f);
    before = saved(cache, ids[0]);
    other = saved(cache, ids[1]);
  }
};

/// What a cache that has taken the bytes must be able to do.
template <class C, class Id>
void check_restored(const CacheKind& kind, Filled<C, Id>& filled, const std::string& now) {
  C& cache = filled.cache;
  const Id& id = filled.ids[0];
  with_cache(kind, [&](auto copy, const auto& copy_ids) {
    Filled again(std::move(copy), copy_ids);
    expect(!refused([&] { restore_bytes(again.cache, again.ids[0], now, true); }), "what was saved is refused");
    expect(saved(again.cache, again.ids[0]) == now, "what was saved is restored as something else");
  });
  attend_all(cache, filled.ids);
  if constexpr (std::is_same_v<C, KvCache<>>)
    if (kind.key_norms) check_norms(cache, id);
  refused([&] { append_tokens(cache, id, 1, 2.0f); });  // where there is room
  attend_all(cache, filled.ids);
  cache.clear(id);
  append_tokens(cache, id, 3, 1.0f);
  expect(saved(cache, id) == filled.before, "a cleared sequence is not as new");
}

/// Whether the cache is as it was.
template <class C, class Id>
bool restore_into(const CacheKind& kind, Filled<C, Id>& filled, const std::string& bytes, bool as_stream) {
  const bool was_refused = refused([&] { restore_bytes(filled.cache, filled.ids[0], bytes, as_stream); });
  const std::string now = saved(filled.cache, filled.ids[0]);
  expect(!was_refused || now == filled.before, "a cache that refused a file has changed");
  if (!was_refused) check_restored(kind, filled, now);
  expect(saved(filled.cache, filled.ids[1]) == filled.other, "another sequence has changed");
  return was_refused;
}

template <class C, class Id>
void restore_into_new(int number, const std::string& bytes, bool as_stream) {
  static std::unique_ptr<Filled<C, Id>> all[kCaches];
  auto& filled = all[number];
  const CacheKind kind = cache_kind(number);
  if (!filled)
    with_cache(kind, [&](auto cache, const auto& ids) {
      if constexpr (std::is_same_v<decltype(cache), C>) filled = std::make_unique<Filled<C, Id>>(std::move(cache), ids);
    });
  if (!restore_into(kind, *filled, bytes, as_stream)) filled.reset();
}

}  // namespace
}  // namespace headwise::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace headwise;
  using namespace headwise::fuzz;
  constexpr int kAsStream = 16;
  Bytes input({data, size});
  const int number = input.byte() % kCaches, flags = input.byte();
  const MendedFile file(input.rest(), flags);
  const bool as_stream = (flags & kAsStream) != 0;
  if (cache_kind(number).paged)
    restore_into_new<PagedCache<>, SequenceId>(number, file.bytes(), as_stream);
  else
    restore_into_new<KvCache<>, Index>(number, file.bytes(), as_stream);
  return 0;
}
