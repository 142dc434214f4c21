// SPDX-License-Identifier: MIT
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "llama/model/model.hpp"
#include "sequence.hpp"

namespace serve {

struct ServerOptions {
  Index max_batch = 16;  // sequences at once; 1 to the sequences of the cache
  Index chunk = 256;     // prompt tokens read in a step; at least 1
  Index context = 0;     // tokens of a sequence at most; 0: what the model was trained for
  bool prefix_cache = true;
  generate::SamplerOptions sampling{.temperature = 0};  // of each sequence, from the seed on
  std::function<bool(TokenId)> ends_text{};             // unset: nothing does
};

/// What was done so far.
struct Figures {
  Index steps = 0;
  Index parts = 0;          // sequences read, summed over the steps
  Index read = 0;           // tokens, of prompts and generated ones
  Index read_again = 0;     // of these, tokens that had been read before a preemption
  Index prefix_tokens = 0;  // tokens that were found in the prefix cache instead
  Index generated = 0;
  Index preemptions = 0;
  Index finished = 0;  // requests
};

/// Continuous batching (Yu et al. 2022, Orca) on a paged cache: each step admits what there is room for, reads the next
/// piece of some prompts and the newest token of every sequence that is generating, all in one call, and lets go of those
/// that are done. When pages run out, the youngest sequence gives back its own and is read again later. Every text is the
/// one that its prompt gives alone, bit for bit.
class Server {
 public:
  /// Refers to the model and to the cache, which is its own. Throws std::invalid_argument on options out of range.
  Server(const llama::Model& model, headwise::AnyPagedCache& cache, ServerOptions options,
         headwise::ExecutorRef executor);

  /// A request more, behind all others; returns its number: 0, 1, …. Throws std::invalid_argument if it could not run even
  /// alone: an empty prompt, one longer than the context, or more tokens than all pages hold.
  Index add(const Request& request);

  /// Admits, reads once and draws a token of each sequence that has been read to its end. False if there was nothing to do.
  /// Throws what the model throws, with every sequence as it was, and std::runtime_error on logits that are NaN.
  bool step();

  Index num_requests() const { return std::ssize(all_); }
  Index num_running() const { return std::ssize(running_); }
  bool is_finished(Index number) const { return at(number).finished; }
  /// Tokens of a request so far, without its prompt.
  std::span<const TokenId> generated(Index number) const { return at(number).generated(); }
  const Figures& figures() const { return figures_; }

 private:
  Sequence& at(Index number) { return all_[static_cast<std::size_t>(number)]; }
  const Sequence& at(Index number) const { return all_[static_cast<std::size_t>(number)]; }
  Index pages_of(Index tokens) const { return headwise::ceil_div(tokens, cache_.page_tokens()); }

  // the steps of a step
  void admit();
  void plan();
  void reserve();
  void read();

  /// Gives a sequence a name in the cache, with what the prefix cache holds of it; and takes it.
  void begin(Sequence& sequence);
  void leave(Sequence& sequence);
  /// Whether a running sequence will soon have read a page of this one that it has not read yet.
  bool is_being_read(const Sequence& sequence) const;
  /// Whether there are pages for all tokens of this one and of those that run.
  bool has_room(const Sequence& sequence) const;
  void preempt_youngest();
  void draw(Sequence& sequence, std::span<const float> logits);

  const llama::Model& model_;
  headwise::AnyPagedCache& cache_;
  ServerOptions options_;
  headwise::ExecutorRef executor_;
  llama::Model::Scratch scratch_;
  std::vector<Sequence> all_;             // [request]
  std::vector<Index> waiting_, running_;  // numbers of requests, oldest first
  Figures figures_;
};

}  // namespace serve
