// SPDX-License-Identifier: MIT
#include "tests/attention/run.hpp"

namespace headwise::testing {

HEADWISE_RUN_WITH(, KvCache<float>);
HEADWISE_RUN_WITH(, KvCache<f16>);
HEADWISE_RUN_WITH(, KvCache<bf16>);
HEADWISE_RUN_WITH(, KvRows);
HEADWISE_RUN_WITH(, CacheLayer);
HEADWISE_RUN_WITH(, KvBlocks);

Results run_with(ExecutorRef executor, const Inputs& in, const Route& route, const Options& options,
                 const HeadMap* map) {
  return with_source(in, route,
                     [&](const auto& source) { return run_with(executor, source, in, options, route, map); });
}

}  // namespace headwise::testing
