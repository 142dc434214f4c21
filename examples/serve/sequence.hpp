// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "generate/sampler.hpp"
#include "headwise/cache/page_table.hpp"
#include "llama/text/byte_pairs.hpp"

namespace serve {

using headwise::Index;
using llama::TokenId;

/// What to continue, and for how long.
struct Request {
  std::vector<TokenId> prompt;
  Index max_tokens = 0;  // to generate
};

/// A request and how far it has come.
struct Sequence {
  Sequence(Index request_number, const Request& request, const generate::SamplerOptions& sampling)
      : number(request_number),
        tokens(request.prompt),
        prompt_tokens(std::ssize(request.prompt)),
        max_tokens(request.max_tokens),
        sampler(sampling) {}

  Index number;                 // of the request: the smaller, the older
  std::vector<TokenId> tokens;  // the prompt and what was generated
  Index prompt_tokens, max_tokens;
  generate::Sampler sampler;
  headwise::SequenceId id{};  // while it runs
  Index held = 0;             // tokens in the cache
  Index most_held = 0;        // before any preemption
  Index registered = 0;       // of these, in the prefix cache
  Index planned = 0;          // tokens that this step reads
  bool finished = false;

  Index unread() const { return std::ssize(tokens) - held; }
  std::span<const TokenId> generated() const {
    return std::span(tokens).subspan(static_cast<std::size_t>(prompt_tokens));
  }
  std::span<const TokenId> first(Index count) const { return std::span(tokens).first(static_cast<std::size_t>(count)); }
  std::span<const TokenId> next() const {
    return std::span(tokens).subspan(static_cast<std::size_t>(held), static_cast<std::size_t>(planned));
  }
  /// Tokens at the beginning of both.
  Index common_tokens(const Sequence& other) const {
    return std::ranges::mismatch(tokens, other.tokens).in1 - tokens.begin();
  }
};

}  // namespace serve
