// SPDX-License-Identifier: MIT
// An encoder-decoder with shared key/value heads: an encoder that sees everything, a decoder that attends to its own
// tokens and to the encoder's output, T5's relative position bias, and beam search that reorders the cache.
//   09_encoder_decoder/model.hpp    the layers
//   09_encoder_decoder/search.hpp   greedy and beam search

#include <cstdio>
#include <string>

#include "09_encoder_decoder/search.hpp"

namespace ed = encoder_decoder;
using headwise::Index;

/// Decodes a text by beam search; whether all that is promised about it holds.
bool show(const char* name, const ed::Shape& shape) {
  constexpr Index kWidth = 4, kMaxTokens = 24;
  const ed::EncoderDecoder model(shape);
  std::vector<Index> source;
  for (Index t = 0; t < 50; ++t) source.push_back(2 + (t * t + 3 * t) % (shape.vocabulary - 2));
  const ed::Matrix memory = model.encode(source);

  std::printf("%s: encoder %td:%td, decoder %td:%td heads, %td KV bytes per decoded token\n", name, shape.num_heads,
              shape.encoder_kv_heads, shape.num_heads, shape.decoder_kv_heads,
              shape.num_layers * model.decoder[0].self.kv_bytes_per_token(headwise::Storage::f32));
  bool good = true;
  for (const ed::Hypothesis& text : ed::beam_search(model, memory, kWidth, kMaxTokens)) {
    const double alone = ed::log_probability(model, memory, text.tokens);
    good = good && alone == text.log_probability;
    std::string tokens;
    for (const Index token : text.tokens) tokens.append(" ").append(std::to_string(token));
    std::printf("  log-probability %9.5f, alone %9.5f: %s\n", text.log_probability, alone, tokens.c_str());
  }
  const ed::Hypothesis greedy = ed::greedy(model, memory, kMaxTokens);
  const std::vector<ed::Hypothesis> one = ed::beam_search(model, memory, 1, kMaxTokens);
  const bool same =
      one.size() == 1 && one[0].tokens == greedy.tokens && one[0].log_probability == greedy.log_probability;
  std::printf("  greedy %9.5f; a beam of one is %s; every beam has the bits of its text alone: %s\n\n",
              greedy.log_probability, same ? "the same" : "DIFFERENT", good ? "yes" : "NO");
  return good && same;
}

int main() {
  const bool t5 = show("T5 with grouped queries in the decoder", {.encoder_kv_heads = 8, .decoder_kv_heads = 2});
  const bool mqa = show("Shazeer's multi-query attention", {.encoder_kv_heads = 1, .decoder_kv_heads = 1});
  return t5 && mqa ? 0 : 1;
}
