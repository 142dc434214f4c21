// SPDX-License-Identifier: MIT
#include <algorithm>
#include <list>
#include <stdexcept>

#include "tests/fuzz/attention/sources.hpp"

namespace headwise::fuzz {

namespace {

Array make_queries(Call& call) {
  Array q(call.queries, call.ragged ? 1 : call.num_sequences(), call.query_tokens(), call.num_heads, call.head_dim,
          call.query_layout);
  for (Index b = 0; b < call.num_sequences(); ++b) {
    const std::pair<Index, Index> place = call.queries_of(b);
    Sequence& s = call.sequence(b);
    store(s.q, s.queries, call.num_heads, call.num_heads, call.head_dim, q,
          [&](Index t) { return std::pair(place.first, place.second + t); });
  }
  if (call.wrong_argument == 1) q.claim(call.wrong_size, call.wrong_by);
  return q;
}

/// Arrays for what a call is asked for, as they are before it.
Results blank(const Call& call) {
  const Index sequences = call.ragged ? 1 : call.num_sequences(), tokens = call.query_tokens();
  Results results{Array(call.outputs, sequences, tokens, call.num_heads, call.value_dim, call.output_layout),
                  Array(Storage::f32, sequences, tokens, call.num_heads, 1, call.output_layout), Array(), Array()};
  const auto keys = [&](Index room) { return std::max<Index>(0, call.longest_keys() + room); };
  if (call.scores)
    results.scores =
        Array(Storage::f32, sequences, tokens, call.num_heads, keys(call.scores->room), call.scores->layout);
  if (const auto& mass = call.mass) {
    results.mass = Array(Storage::f32, call.num_sequences(), keys(mass->room), mass->heads, 1, mass->layout);
    for (Index b = 0; b < call.num_sequences() && mass->add; ++b)
      for (Index t = 0; t < keys(mass->room); ++t)
        for (Index h = 0; h < mass->heads; ++h) results.mass.set(b, t, h, 0, AskedMass::kBefore);
  }
  Array* const arrays[] = {&results.output, &results.lse, &results.scores, &results.mass};
  if (call.wrong_argument >= 2) arrays[call.wrong_argument - 2]->claim(call.wrong_size, call.wrong_by);
  return results;
}

Outputs outputs_of(const Call& call, Results& results) {
  Outputs outputs = with_type(call.outputs, [&]<class O>() {
    return call.lse ? Outputs(results.output.view<O>(), results.lse.view<float>()) : Outputs(results.output.view<O>());
  });
  if (call.scores) outputs.scores = {results.scores.view<float>(), call.scores->stage};
  if (call.mass) outputs.mass = {results.mass.view<float>(), call.mass->add, call.mass->last_queries};
  return outputs;
}

/// Options whose spans do not outlive this.
class BriefOptions {
 public:
  explicit BriefOptions(const Options& options) : options_(options) {
    std::span<const Index>* const numbers[] = {
        &options_.key_lengths,   &options_.key_starts,      &options_.prefix_lengths,  &options_.query_lengths,
        &options_.query_offsets, &options_.query_positions, &options_.group_boundaries};
    std::span<const float>* const floats[] = {&options_.alibi_slopes, &options_.sink_logits};
    for (auto* const span : numbers) *span = numbers_.emplace_back(span->begin(), span->end());
    for (auto* const span : floats) *span = floats_.emplace_back(span->begin(), span->end());
    if (options.head_map) options_.head_map = &map_.emplace_back(*options.head_map);
  }
  const Options& operator*() const { return options_; }

 private:
  Options options_;
  std::list<std::vector<Index>> numbers_;
  std::list<std::vector<float>> floats_;
  std::list<HeadMap> map_;
};

template <class S>
void attend(const Call& call, const S& source, Array& q, const Outputs& outputs, bool planned, ExecutorRef executor) {
  const Heads<> heads =
      call.other_heads.value_or(Heads<>(call.num_heads, call.num_kv_heads, call.head_dim, call.value_dim));
  const Attention<> attention = call.map ? Attention<>(heads, *call.map) : Attention<>(heads);
  with_type(call.queries, [&]<class Q>() {
    const View<const Q> queries = q.view<const Q>();
    if (!planned) return attention(queries, source, outputs, call.options, executor);
    Options options = call.options;
    if (call.norm_of_layer) options.query_norm = nullptr;
    const AttentionPlan plan =
        attention.plan(call.query_tokens() + call.planned_tokens, source, *BriefOptions(options), executor);
    attention(plan, LayerOptions{call.norm_of_layer ? call.options.query_norm : nullptr}, queries, source, outputs,
              executor);
  });
}

ExecutorRef executor_of(bool threads) {
  static ThreadPool pool(3);
  static const Serial serial;
  return threads ? ExecutorRef(pool) : ExecutorRef(serial);
}

template <class S>
Results run_over(const Call& call, const S& source, Array& q, bool planned, bool threads) {
  Results results = blank(call);
  try {
    attend(call, source, q, outputs_of(call, results), planned, executor_of(threads));
  } catch (const std::invalid_argument&) {
    expect(results == blank(call), "a call that was refused wrote something");
    throw;
  }
  expect(results.output.gaps_untouched(), "a call wrote beside its outputs");
  expect(call.lse ? results.lse.gaps_untouched() : results.lse.untouched(), "a call wrote beside its lse");
  expect(results.scores.gaps_untouched(), "a call wrote beside its scores");
  expect(results.mass.gaps_untouched(), "a call wrote beside its masses");
  return results;
}

/// The mask of a call, of keys before a number or from it on alone.
struct SeesHalf {
  const Call* call;
  Index at;
  bool early;
  bool operator()(Index sequence, Index head, Index query, Index key) const {
    return (key < at) == early && (!call->function_sees || call->function_sees(sequence, head, query, key));
  }
};

/// The call as two of fewer keys each, in f32, merged.
template <class S>
Results run_halves(Call& call, const S& source, Array& q) {
  const Index sequences = call.ragged ? 1 : call.num_sequences(), tokens = call.query_tokens();
  const Options own = call.options;
  std::vector<Results> halves;
  std::vector<PartialResult> parts;
  halves.reserve(2);
  for (const bool early : {true, false}) {
    const SeesHalf sees{&call, *call.merge_at, early};
    call.options.mask_function.emplace(sees);
    if (!early) call.options.sink_logits = {};  // of one part alone
    Results& half = halves.emplace_back(
        Array(Storage::f32, sequences, tokens, call.num_heads, call.value_dim, call.key_layout),
        Array(Storage::f32, sequences, tokens, call.num_heads, 1, call.value_layout), Array(), Array());
    const auto output = half.output.view<float>(), lse = half.lse.view<float>();
    attend(call, source, q, {output, lse}, false, executor_of(false));
    parts.emplace_back(output, lse);
    call.options = own;
  }
  Results merged = blank(call);
  Outputs outputs = outputs_of(call, merged);
  outputs.scores.reset();
  outputs.mass.reset();
  merge_results(parts, outputs, executor_of(call.threads));
  expect(merged.output.gaps_untouched(), "merging wrote beside its outputs");
  return merged;
}

}  // namespace

AllResults run(Call& call) {
  set_isa(call.isa);
  return with_source(call, [&](const auto& source) {
    Array q = make_queries(call);
    AllResults results{run_over(call, source, q, call.planned, call.threads), {}};
    if (call.planned || call.threads)
      expect(results.whole == run_over(call, source, q, false, false), "other bits with a plan, or on threads");
    if (call.merge_at) results.merged = run_halves(call, source, q);
    return results;
  });
}

}  // namespace headwise::fuzz
