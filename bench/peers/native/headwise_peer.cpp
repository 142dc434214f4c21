// SPDX-License-Identifier: MIT
#include "headwise_peer.h"

#include <algorithm>
#include <exception>
#include <headwise/headwise.hpp>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../../compare/figures.hpp"
#include "../../compare/roofline.hpp"

namespace {

using headwise::ExecutorRef;
using headwise::Index;
using headwise::Storage;
using headwise::View;

thread_local std::string last_error;

/// Runs f; what it throws becomes `failed`.
template <class R, class F>
R guarded(R failed, F&& f) {
  try {
    return f();
  } catch (const std::exception& e) {
    last_error = e.what();
    return failed;
  }
}

ExecutorRef executor(Index threads) {
  static const headwise::Serial serial;
  static std::map<Index, std::unique_ptr<headwise::ThreadPool>> pools;
  if (threads == 1) return ExecutorRef(serial);
  auto& pool = pools[threads];
  if (!pool) pool = std::make_unique<headwise::ThreadPool>(threads);
  return ExecutorRef(*pool);
}

Storage storage_of(Index code) {
  headwise::require(code >= 0 && code < headwise::kStorages, "storage (", code,
                    ") must be 0 (f32), 1 (f16) or 2 (bf16)");
  return static_cast<Storage>(code);
}

struct Shape : HeadwisePeerShape {
  std::vector<Index> lengths;
  explicit Shape(const HeadwisePeerShape& shape)
      : HeadwisePeerShape(shape), lengths(shape.key_lengths, shape.key_lengths + shape.sequences) {
    for (const Index length : lengths)
      headwise::require(length >= new_tokens && length <= max_tokens, "key_lengths (", length, ") must be new_tokens (",
                        new_tokens, ") to max_tokens (", max_tokens, ")");
  }
  Index values_per_token() const { return num_kv_heads * head_dim; }
  Index values_per_layer() const { return sequences * max_tokens * values_per_token(); }
  View<const float> queries(const float* data) const {
    return View<const float>(data, sequences, new_tokens, num_heads, head_dim);
  }
  View<float> output(float* data) const { return View<float>(data, sequences, new_tokens, num_heads, head_dim); }
};

/// The layers of one shape and storage type.
class Peer {
 public:
  virtual ~Peer() = default;
  virtual Index count() const = 0;
  virtual void prepare(bool appends) = 0;
  virtual void append(Index layer) = 0;
  virtual void attend(Index layer, const float* queries, float* output) = 0;
};

template <class T>
std::vector<T> converted(const float* data, Index count) {
  std::vector<T> result(static_cast<std::size_t>(count));
  std::transform(data, data + count, result.begin(), [](float x) { return T(x); });
  return result;
}

template <class T>
class CachePeer : public Peer {
 public:
  CachePeer(const Shape& shape, const float* keys, const float* values)
      : shape_(shape),
        attention_(headwise::Heads<>(shape.num_heads, shape.num_kv_heads, shape.head_dim)),
        keys_(converted<T>(keys, shape.values_per_layer())),
        values_(converted<T>(values, shape.values_per_layer())),
        cache_(std::vector<headwise::LayerShape>(static_cast<std::size_t>(shape.layers),
                                                 {shape.num_kv_heads, shape.head_dim}),
               shape.max_tokens, {.num_sequences = shape.sequences}) {
    prepare(false);
  }

  Index count() const override { return shape_.layers; }

  void prepare(bool appends) override {
    if (appends) drop_new_tokens();
    for (Index layer = 0; layer < shape_.layers; ++layer)
      for (Index b = 0; b < shape_.sequences; ++b) fill(layer, b, appends ? past(b) : length(b));
  }

  void append(Index layer) override {
    if (layer == 0) drop_new_tokens();  // of all layers at once: a number per sequence, and a few slots to clear
    for (Index b = 0; b < shape_.sequences; ++b) fill(layer, b, length(b));
  }

  void attend(Index layer, const float* queries, float* output) override {
    attention_(shape_.queries(queries), cache_.layer(layer), shape_.output(output), {}, executor(shape_.threads));
  }

 private:
  Index length(Index b) const { return shape_.lengths[static_cast<std::size_t>(b)]; }
  Index past(Index b) const { return length(b) - shape_.new_tokens; }

  void drop_new_tokens() {
    for (Index b = 0; b < shape_.sequences; ++b) {
      Index most = 0;
      for (Index layer = 0; layer < shape_.layers; ++layer) most = std::max(most, cache_.num_tokens(layer, b));
      if (most > past(b)) cache_.truncate(b, past(b));
    }
  }

  void fill(Index layer, Index b, Index tokens) {
    const Index stored = cache_.num_tokens(layer, b);
    if (stored == tokens) return;
    const auto rows = [&](const std::vector<T>& data) {
      return View<const T>(data.data() + (b * shape_.max_tokens + stored) * shape_.values_per_token(), tokens - stored,
                           shape_.num_kv_heads, shape_.head_dim);
    };
    cache_.append(layer, b, rows(keys_), rows(values_));
  }

  Shape shape_;
  headwise::Attention<headwise::Heads<>> attention_;
  std::vector<T> keys_, values_;
  headwise::KvCache<T> cache_;
};

template <class T>
class RowsPeer : public Peer {
 public:
  RowsPeer(const Shape& shape, const float* keys, const float* values)
      : shape_(shape), attention_(headwise::Heads<>(shape.num_heads, shape.num_kv_heads, shape.head_dim)) {
    const Index size = shape.values_per_layer();
    const std::vector<T> one_keys = converted<T>(keys, size), one_values = converted<T>(values, size);
    for (Index layer = 0; layer < shape.layers; ++layer) {
      keys_.push_back(one_keys);
      values_.push_back(one_values);
    }
  }

  Index count() const override { return shape_.layers; }
  void prepare(bool) override {}
  void append(Index) override {}  // the new tokens' rows are the caller's to write
  void attend(Index layer, const float* queries, float* output) override {
    const auto view = [&](const std::vector<std::vector<T>>& data) {
      return View<const T>(data[static_cast<std::size_t>(layer)].data(), shape_.sequences, shape_.max_tokens,
                           shape_.num_kv_heads, shape_.head_dim);
    };
    attention_(shape_.queries(queries), headwise::KvRows(view(keys_), view(values_)), shape_.output(output),
               {.key_lengths = shape_.lengths}, executor(shape_.threads));
  }

 private:
  Shape shape_;
  headwise::Attention<headwise::Heads<>> attention_;
  std::vector<std::vector<T>> keys_, values_;  // of each layer
};

template <class T>
std::unique_ptr<Peer> make_peer(const Shape& shape, const float* keys, const float* values) {
  if (shape.rows) return std::make_unique<RowsPeer<T>>(shape, keys, values);
  return std::make_unique<CachePeer<T>>(shape, keys, values);
}

/// The probes of one run; grows to the largest memory asked for.
compare::Roofline& roofline(Index cold_bytes) {
  static std::unique_ptr<compare::Roofline> probes;
  static Index size = 0;
  if (!probes || cold_bytes > size) {
    probes.reset();
    probes = std::make_unique<compare::Roofline>(cold_bytes);
    size = cold_bytes;
  }
  return *probes;
}

}  // namespace

const char* headwise_peer_error() { return last_error.c_str(); }
const char* headwise_peer_version() {
  static const std::string version = compare::version_text();
  return version.c_str();
}
const char* headwise_peer_isa() {
  static const std::string name(headwise::name_of(headwise::current_isa()));
  return name.c_str();
}

void* headwise_peer_open(const HeadwisePeerShape* shape, const float* keys, const float* values) {
  return guarded<void*>(nullptr, [&]() -> void* {
    const Shape checked(*shape);
    switch (storage_of(shape->storage)) {
      case Storage::f16:
        return make_peer<headwise::f16>(checked, keys, values).release();
      case Storage::bf16:
        return make_peer<headwise::bf16>(checked, keys, values).release();
      default:
        return make_peer<float>(checked, keys, values).release();
    }
  });
}
void headwise_peer_close(void* peer) { delete static_cast<Peer*>(peer); }

int headwise_peer_prepare(void* peer, int appends) {
  return guarded(1, [&] { return static_cast<Peer*>(peer)->prepare(appends != 0), 0; });
}
int headwise_peer_attend(void* peer, int64_t first, int64_t count, const float* queries, float* output) {
  return guarded(1, [&] {
    auto& layers = *static_cast<Peer*>(peer);
    for (Index i = first; i < first + count; ++i) layers.attend(i % layers.count(), queries, output);
    return 0;
  });
}
int headwise_peer_append_and_attend(void* peer, int64_t first, int64_t count, const float* queries, float* output) {
  return guarded(1, [&] {
    auto& layers = *static_cast<Peer*>(peer);
    for (Index i = first; i < first + count; ++i) {
      layers.append(i % layers.count());
      layers.attend(i % layers.count(), queries, output);
    }
    return 0;
  });
}

double headwise_peer_cold_bandwidth(int64_t threads, int64_t cold_bytes) {
  return guarded(-1.0, [&] { return roofline(cold_bytes).cold_bandwidth(executor(threads)); });
}
double headwise_peer_warm_bandwidth(int64_t threads, int64_t footprint) {
  return guarded(-1.0, [&] { return roofline(footprint).warm_bandwidth(executor(threads), footprint); });
}
double headwise_peer_peak_flops(int64_t threads, int64_t storage) {
  return guarded(-1.0, [&] { return roofline(0).peak_flops(executor(threads), storage_of(storage)); });
}
