// SPDX-License-Identifier: MIT
#pragma once

#include <stdint.h>

// What peers/rivals/headwise.py calls through ctypes. Functions that can fail return null, a negative number or
// nonzero, and leave the reason in headwise_peer_error().

#pragma GCC visibility push(default)
extern "C" {

/// Attention over `layers` copies of the same keys and values, each in memory of its own.
struct HeadwisePeerShape {
  int64_t sequences, num_heads, num_kv_heads, head_dim;
  int64_t new_tokens;          // queries of each sequence, the last of its tokens
  int64_t max_tokens;          // of the longest sequence
  const int64_t* key_lengths;  // [sequence]
  int64_t layers, threads;
  int64_t storage;  // 0 f32, 1 f16, 2 bf16
  int64_t rows;     // 0: a KvCache; 1: row-major memory behind KvRows
};

const char* headwise_peer_error();
const char* headwise_peer_version();
const char* headwise_peer_isa();

/// keys and values: [sequence][max_tokens][kv_head][head_dim] of numbers exact in the storage type.
void* headwise_peer_open(const HeadwisePeerShape* shape, const float* keys, const float* values);
void headwise_peer_close(void* peer);

/// Untimed, before a run of attend or append_and_attend: gives every layer the tokens that it expects.
int headwise_peer_prepare(void* peer, int appends);

/// queries, output: [sequence][new_tokens][head][head_dim]; layers first … first + count − 1, modulo `layers`.
int headwise_peer_attend(void* peer, int64_t first, int64_t count, const float* queries, float* output);
/// The same, each layer first storing the keys and values of the new tokens. Layers must be taken in turn.
int headwise_peer_append_and_attend(void* peer, int64_t first, int64_t count, const float* queries, float* output);

/// Limits of the machine at this moment (compare/roofline.hpp): bytes/s of memory; bytes/s of reading `footprint` bytes
/// again and again; FLOP/s of the best multiply-add for a storage type.
double headwise_peer_cold_bandwidth(int64_t threads, int64_t cold_bytes);
double headwise_peer_warm_bandwidth(int64_t threads, int64_t footprint);
double headwise_peer_peak_flops(int64_t threads, int64_t storage);

}  // extern "C"
#pragma GCC visibility pop
