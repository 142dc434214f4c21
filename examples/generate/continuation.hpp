// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <cstdio>
#include <string_view>

#include "command_line.hpp"
#include "llama/model/model.hpp"
#include "llama/text/tokenizer.hpp"
#include "llama/text/utf8.hpp"
#include "progress.hpp"
#include "prompt_lookup.hpp"
#include "status_line.hpp"
#include "stopwatch.hpp"

namespace generate {

inline void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

inline void print_rate(const char* what, Index tokens, double seconds) {
  std::fprintf(stderr, "%s: %td tokens in %.2f s, %.1f tokens/s\n", what, tokens, seconds,
               static_cast<double>(tokens) / std::max(seconds, 1e-9));
}

/// What came of the drafts of speculative decoding.
struct DraftFigures {
  Index steps = 0;  // calls of the model that read a generated token
  Index drafts = 0, drafted = 0, accepted = 0;

  void print() const {
    const auto per = [](Index a, Index b) {
      return static_cast<double>(a) / static_cast<double>(std::max(b, Index{1}));
    };
    std::fprintf(stderr,
                 "drafts: %td of %td drafted tokens accepted, %.2f of a draft's %.2f; %.2f tokens per step of %td\n",
                 accepted, drafted, per(accepted, drafts), per(drafted, drafts), per(steps + accepted, steps), steps);
  }
};

/// One text being continued.
class Continuation {
 public:
  Continuation(const llama::Model& model, Index max_tokens, const CommandLine& line, headwise::ExecutorRef executor)
      : model_(model),
        executor_(executor),
        cache_(model.make_cache(max_tokens, {.key_storage = line.cache, .value_storage = line.cache_values})) {}

  /// Reads the prompt `chunk` tokens at a time (0: all at once).
  void read_prompt(std::span<const TokenId> prompt, Index chunk) {
    const Stopwatch time;
    const Index count = std::ssize(prompt), step = chunk == 0 ? count : chunk;
    StatusLine status;
    Progress progress(count, model_.shape().num_layers, status.interval());
    for (Index begin = 0; begin < count; begin += step) {
      const Index length = std::min(step, count - begin);
      const auto after_layer = [&] {
        if (const auto line = progress.step(length, time.seconds())) status.show(*line);
      };
      hidden_ = model_
                    .read(prompt.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(length)), cache_,
                          scratch_, executor_, {.after_layer = after_layer})
                    .transpose();
    }
    text_.assign(prompt.begin(), prompt.end());
    status.end();
    print_rate("prompt", count, time.seconds());
  }

  /// Continues the text, shows it, and returns its tokens. Each step reads the newest token and a draft of those that
  /// may follow it, in one call; the tokens are then drawn one after another as without a draft, for which the model has
  /// answered already as long as they are the drafted ones. So they are the same tokens, greedy or at random.
  std::vector<TokenId> continue_text(const llama::Tokenizer& tokenizer, const CommandLine& line, Sampler& sampler) {
    const Stopwatch time;
    llama::Utf8Stream stream;
    DraftFigures figures;
    std::vector<TokenId> tokens, draft;
    bool full = false, ended = line.tokens == 0;
    while (!ended && !full) {
      const llama::Matrix logits = model_.logits(hidden_, executor_);
      Index accepted = 0;
      for (bool in_draft = true; in_draft && !ended;) {
        const TokenId token = draw(logits, accepted, line, sampler);
        tokens.push_back(token);
        text_.push_back(token);
        if (line.special || !tokenizer.is_control(token)) print(stream.push(tokenizer.bytes(token)));
        ended = (tokenizer.ends_text(token) && !line.ignore_eos) || std::ssize(tokens) == line.tokens;
        in_draft = accepted < std::ssize(draft) && draft[static_cast<std::size_t>(accepted)] == token;
        if (in_draft) ++accepted;
      }
      figures.accepted += accepted;
      cache_.truncate(cache_.num_tokens() - (std::ssize(draft) - accepted));
      if (ended) break;  // nobody asks what follows
      full = cache_.num_tokens() == cache_.max_tokens();
      if (!full) draft = read_ahead(line.tokens - std::ssize(tokens), line, figures);
    }
    print(stream.finish() + "\n");
    print_rate("generation", std::ssize(tokens), time.seconds());
    if (line.draft > 0) figures.print();
    if (full) std::fprintf(stderr, "stopped: the context of %td tokens is full\n", cache_.max_tokens());
    return tokens;
  }

  Index kv_bytes_per_token() const { return cache_.bytes_per_token(); }

 private:
  static TokenId draw(const llama::Matrix& logits, Index row, const CommandLine& line, Sampler& sampler) {
    const std::span<const float> values(logits.row(row).data(), static_cast<std::size_t>(logits.cols()));
    return static_cast<TokenId>(line.greedy ? largest_logit(values) : sampler(values));
  }

  /// Reads the newest token and a draft of what follows it, as long as there is room for it and `wanted`, the tokens that
  /// are still to come, need it; returns the draft.
  std::vector<TokenId> read_ahead(Index wanted, const CommandLine& line, DraftFigures& figures) {
    const Index room = cache_.max_tokens() - cache_.num_tokens();
    auto draft = look_up_draft(text_, line.ngram, std::min({line.draft, room - 1, wanted - 1}));
    std::vector<TokenId> step = {text_.back()};
    step.insert(step.end(), draft.begin(), draft.end());
    hidden_ = model_.read_all(step, cache_, scratch_, executor_);
    ++figures.steps;
    figures.drafts += draft.empty() ? 0 : 1;
    figures.drafted += std::ssize(draft);
    return draft;
  }

  const llama::Model& model_;
  headwise::ExecutorRef executor_;
  headwise::KvCache<> cache_;
  llama::Model::Scratch scratch_;
  llama::Matrix hidden_;       // final states of the last call's tokens that are still of use
  std::vector<TokenId> text_;  // the prompt and what follows it
};

}  // namespace generate
