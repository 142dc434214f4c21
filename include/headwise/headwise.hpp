// SPDX-License-Identifier: MIT
#pragma once

// headwise: attention for CPUs in which query heads share key/value heads. This header is all of it but the parts that
// need Eigen (headwise/nn.hpp); it needs the standard library and threads. In reading order:

#include "headwise/version.hpp"

// what an attention layer is made of
#include "headwise/core/error.hpp"
#include "headwise/core/head_map.hpp"
#include "headwise/core/heads.hpp"
#include "headwise/core/index.hpp"
#include "headwise/core/kv_sharing.hpp"
#include "headwise/core/quantize.hpp"
#include "headwise/core/storage.hpp"
#include "headwise/core/tile_layout.hpp"
#include "headwise/core/view.hpp"

// where tokens stand
#include "headwise/position/qk_norm.hpp"
#include "headwise/position/rope.hpp"
#include "headwise/position/rope_scaling.hpp"

// where keys and values come from
#include "headwise/cache/append_options.hpp"
#include "headwise/cache/channel_scales.hpp"
#include "headwise/cache/eviction.hpp"
#include "headwise/cache/key_transform.hpp"
#include "headwise/cache/kv_blocks.hpp"
#include "headwise/cache/kv_cache.hpp"
#include "headwise/cache/kv_rows.hpp"
#include "headwise/cache/paged_cache.hpp"
#include "headwise/cache/save.hpp"
#include "headwise/cache/tile_source.hpp"

// how scores are made and what a query sees
#include "headwise/score/alibi.hpp"
#include "headwise/score/interval.hpp"
#include "headwise/score/mask.hpp"
#include "headwise/score/mask_function.hpp"
#include "headwise/score/options.hpp"
#include "headwise/score/relative_bias.hpp"
#include "headwise/score/score_function.hpp"
#include "headwise/score/tile_set.hpp"
#include "headwise/score/tree_mask.hpp"

// which instructions run, on which threads
#include "headwise/kernel/dispatch.hpp"
#include "headwise/parallel/adapters.hpp"
#include "headwise/parallel/executor.hpp"
#include "headwise/parallel/serial.hpp"
#include "headwise/parallel/thread_pool.hpp"

// attention itself
#include "headwise/attention/attention.hpp"
#include "headwise/attention/select_tiles.hpp"
#include "headwise/attention/tile_bounds.hpp"
#include "headwise/attention/merge_results.hpp"
#include "headwise/attention/differential.hpp"
