// SPDX-License-Identifier: MIT
#pragma once

#include <istream>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "headwise/cache/save/byte_stream.hpp"
#include "headwise/cache/save/cache_file_error.hpp"
#include "headwise/cache/save/posix_file.hpp"
#include "headwise/cache/save/saved_sequence.hpp"
#include "headwise/cache/token_store.hpp"

// One sequence of a cache, all layers, to a stream or file and back (cache/save/file_format.hpp). What any kind of cache
// saved, any other restores whose layers have the same heads, dimensions, storage types and KeyTransform, bit for bit:
// max_tokens, pages, growing and the number of sequences may differ. A ring keeps what it can of a longer sequence; what a
// ring had forgotten is missing from there on: a ring that keeps more refuses the rest, as do pages and caches with key
// norms, which hold all tokens.

namespace headwise {

namespace detail {

template <TokenStore C>
void save_to(const C& cache, Index sequence, ByteSink& sink) {
  SavedHeader header{layout_of(cache), {}, 0};
  for (Index s = 0; s < cache.num_storages(); ++s) header.kept.push_back(saved_range(cache.kept(s, sequence)));
  const std::vector<TokenRange> kept = header.kept;
  SequenceWriter writer(std::move(header), sink);
  for (Index s = 0; s < cache.num_storages(); ++s)
    for (Index g = 0; g < cache.storage_format(s).num_kv_heads; ++g)
      for_each_tile(kept[static_cast<std::size_t>(s)],
                    [&](Index i) { writer.tile(s, i, cache.stored_tile(s, sequence, g, i)); });
  writer.finish();
}

template <TokenStore C>
void restore_from(C& cache, Index sequence, ByteSource& source) {
  static_cast<void>(cache.kept(0, sequence));  // there is such a sequence: known before anything is read
  const SavedSequence saved = read_saved(source, layout_of(cache));
  cache.restore_sequence(sequence, saved.kept(),
                         [&](Index storage, Index kv_head, Index index, std::byte* tile) noexcept {
                           saved.copy_tile(storage, kv_head, index, tile);
                         });
}

/// A cache whose sequences have names of their own, such as PagedCache and SequenceId.
template <class C, class Id>
concept NamesSequences =
    requires(C& cache, std::span<const Id> ids) { requires TokenStore<decltype(cache.store(ids))>; };

}  // namespace detail

/// Writes a sequence behind what the stream holds; others may follow in the same stream. Equal contents give equal bytes.
/// Throws CacheFileError where the stream fails (what was written of it is left there), std::invalid_argument where there is
/// no such sequence.
template <TokenStore C>
void save(const C& cache, Index sequence, std::ostream& stream) {
  detail::StreamSink sink(stream);
  detail::save_to(cache, sequence, sink);
  sink.flush();
}

/// Writes a sequence to a file of its own, replacing one that is there. Whatever happens, also to the process or the machine,
/// `path` names either the old file or the new one, whole: it is written to a temporary file in the same folder
/// (.headwise-<process>-<number>.tmp, which only a killed process leaves), synced to disk and renamed. Throws CacheFileError
/// that names the path and the system's reason, std::invalid_argument where there is no such sequence.
template <TokenStore C>
void save(const C& cache, Index sequence, const std::string& path) {
  detail::ReplacementFile file(path);
  detail::save_to(cache, sequence, file);
  file.commit();
}

/// Makes `sequence`, whatever it held, the saved one that comes next in the stream, and reads no further. All of it is read
/// and verified before the cache changes, which takes as many bytes of memory as were saved, and half of that again while
/// they arrive. Throws CacheFileError where bytes are damaged or missing or the stream fails, std::invalid_argument where
/// the saved sequence does not fit this cache, and what the cache throws where there is no room; it is as it was then. A
/// growing cache grows for at most 65536 tokens that a ring has forgotten.
template <TokenStore C>
void restore(C& cache, Index sequence, std::istream& stream) {
  detail::StreamSource source(stream);
  detail::restore_from(cache, sequence, source);
}

/// The same from a file, which must hold that and nothing else. Takes as many bytes of memory as the file has.
template <TokenStore C>
void restore(C& cache, Index sequence, const std::string& path) {
  detail::InputFile source(path);
  detail::restore_from(cache, sequence, source);
}

// The same for a PagedCache, whose sequences have names. It must have such a sequence to restore into, from create().

template <class C, class Id>
  requires detail::NamesSequences<C, Id>
void save(C& cache, const Id& id, std::ostream& stream) {
  save(cache.store(std::span(&id, 1)), 0, stream);
}
template <class C, class Id>
  requires detail::NamesSequences<C, Id>
void save(C& cache, const Id& id, const std::string& path) {
  save(cache.store(std::span(&id, 1)), 0, path);
}
template <class C, class Id>
  requires detail::NamesSequences<C, Id>
void restore(C& cache, const Id& id, std::istream& stream) {
  auto sequences = cache.store(std::span(&id, 1));
  restore(sequences, 0, stream);
}
template <class C, class Id>
  requires detail::NamesSequences<C, Id>
void restore(C& cache, const Id& id, const std::string& path) {
  auto sequences = cache.store(std::span(&id, 1));
  restore(sequences, 0, path);
}

}  // namespace headwise
