// SPDX-License-Identifier: MIT
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "model.hpp"

// What to say: greedily, or by beam search over the cache.

namespace encoder_decoder {

inline constexpr Index kStart = 0, kEnd = 1;  // tokens

/// A text without its start token, and its log-probability.
struct Hypothesis {
  std::vector<Index> tokens;
  double log_probability = 0;

  bool has_ended() const { return !tokens.empty() && tokens.back() == kEnd; }
};

/// The likeliest token at every step.
inline Hypothesis greedy(const EncoderDecoder& model, const Matrix& memory, Index max_tokens) {
  DecoderState state = model.start(memory, 1, max_tokens);
  Hypothesis text;
  for (Index token = kStart; std::ssize(text.tokens) < max_tokens && !text.has_ended();) {
    const Eigen::MatrixXd next = model.read({&token, 1}, state);
    text.log_probability += next.row(0).maxCoeff(&token);
    text.tokens.push_back(token);
  }
  return text;
}

/// The log-probability of a text that is read alone, all at once, into caches of its own.
inline double log_probability(const EncoderDecoder& model, const Matrix& memory, const std::vector<Index>& tokens) {
  std::vector<Index> read{kStart};
  read.insert(read.end(), tokens.begin(), tokens.end() - 1);
  DecoderState state = model.start(memory, 1, std::ssize(read));
  const Eigen::MatrixXd next = model.read(read, state);
  double sum = 0;
  for (std::size_t t = 0; t < tokens.size(); ++t) sum += next(static_cast<Index>(t), tokens[t]);
  return sum;
}

/// One way to go on: a beam and its next token.
struct Candidate {
  double log_probability;
  Index beam, token;
  friend bool operator<(const Candidate& a, const Candidate& b) {  // the better one first
    if (a.log_probability != b.log_probability) return a.log_probability > b.log_probability;
    return a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
  }
};

/// Up to `width` texts, the likeliest first: at every step the best continuations of all texts kept go on.
inline std::vector<Hypothesis> beam_search(const EncoderDecoder& model, const Matrix& memory, Index width,
                                           Index max_tokens) {
  const auto count = static_cast<std::size_t>(width);
  DecoderState state = model.start(memory, width, max_tokens);
  std::vector<Hypothesis> beams(count);
  for (std::size_t b = 1; b < count; ++b)  // all beams are the same text yet: one of them counts
    beams[b].log_probability = -std::numeric_limits<double>::infinity();
  std::vector<Index> newest(count, kStart), parents(count);

  const auto all_ended = [&] { return std::ranges::all_of(beams, [](const auto& text) { return text.has_ended(); }); };
  for (Index step = 0; step < max_tokens && !all_ended(); ++step) {
    const Eigen::MatrixXd next = model.read(newest, state);
    std::vector<Candidate> candidates;
    for (Index b = 0; b < width; ++b) {
      const Hypothesis& text = beams[static_cast<std::size_t>(b)];
      if (text.has_ended())
        candidates.push_back({text.log_probability, b, kEnd});  // stays as it is
      else
        for (Index token = 0; token < next.cols(); ++token)
          candidates.push_back({text.log_probability + next(b, token), b, token});
    }
    std::partial_sort(candidates.begin(), candidates.begin() + width, candidates.end());

    std::vector<Hypothesis> kept;
    for (std::size_t b = 0; b < count; ++b) {
      const Candidate& best = candidates[b];
      Hypothesis text = beams[static_cast<std::size_t>(best.beam)];
      if (!text.has_ended()) text.tokens.push_back(best.token);
      text.log_probability = best.log_probability;
      kept.push_back(std::move(text));
      newest[b] = best.token;
      parents[b] = best.beam;
    }
    beams = std::move(kept);
    state.self.reorder(parents);  // every beam goes on from the keys and values of the one it continues
  }
  std::erase_if(beams, [](const Hypothesis& text) { return std::isinf(text.log_probability); });
  return beams;
}

}  // namespace encoder_decoder
