// SPDX-License-Identifier: MIT
// Continuous batching gives every prompt the text it has alone.
#include "serve/server.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "headwise/parallel/thread_pool.hpp"
#include "tests/llama/loaded_model.hpp"
#include "tests/support/errors.hpp"

namespace serve {
namespace {

using headwise::Serial;
using headwise::testing::expect_error;
using llama_test::Loaded;
using llama_test::some_tokens;
using llama_test::TinyModel;
using Texts = std::vector<std::vector<TokenId>>;

/// What follows a prompt that is read alone with a KvCache, all at once.
std::vector<TokenId> alone(const llama::Model& model, const Request& request, const ServerOptions& options) {
  const Index context = options.context == 0 ? model.shape().context_length : options.context;
  auto cache = model.make_cache<float>(context);
  llama::Model::Scratch scratch;
  Serial serial;
  generate::Sampler sampler(options.sampling);
  std::vector<TokenId> tokens;
  std::vector<TokenId> next = request.prompt;
  while (std::ssize(tokens) < request.max_tokens && cache.num_tokens() + std::ssize(next) <= context) {
    const llama::Vector logits = model.logits(model.read(std::span(next), cache, scratch, serial), serial);
    tokens.push_back(static_cast<TokenId>(sampler({logits.data(), static_cast<std::size_t>(logits.size())})));
    if (options.ends_text && options.ends_text(tokens.back())) break;
    next = {tokens.back()};
  }
  return tokens;
}

class Serving : public testing::Test {
 protected:
  Serving() {
    const auto shared = some_tokens(140, 3);
    const auto prompt = [&](std::size_t beginning, std::size_t rest, std::size_t first) {
      std::vector<TokenId> tokens(shared.begin(), shared.begin() + static_cast<Index>(beginning));
      for (const TokenId token : some_tokens(rest, first)) tokens.push_back(token);
      return tokens;
    };
    requests = {{prompt(140, 5, 1), 20}, {prompt(140, 9, 2), 40}, {prompt(0, 1, 8), 90},  {prompt(70, 60, 4), 7},
                {prompt(0, 64, 6), 1},   {prompt(140, 5, 1), 30}, {prompt(128, 0, 0), 3}, {prompt(0, 70, 9), 0}};
    for (const Request& request : requests) expected.push_back(alone(loaded.model, request, options));
  }

  struct Outcome {
    Texts texts;
    Figures figures;
    headwise::PageCounts pages;
  };
  template <class E = const Serial&>
  Outcome run(const ServerOptions& how, Index num_pages, E&& executor = Serial{}, Index page_tokens = 64) const {
    auto cache = loaded.model.make_paged_cache<float>(num_pages, {.page_tokens = page_tokens, .max_sequences = 8});
    Server server(loaded.model, cache, how, executor);
    for (const Request& request : requests) server.add(request);
    while (server.step()) {
      EXPECT_LE(server.num_running(), how.max_batch);
      EXPECT_EQ(cache.num_sequences(), server.num_running());
    }
    Outcome outcome{{}, server.figures(), cache.pages()};
    for (Index i = 0; i < server.num_requests(); ++i) {
      EXPECT_TRUE(server.is_finished(i));
      outcome.texts.emplace_back(server.generated(i).begin(), server.generated(i).end());
    }
    return outcome;
  }

  TinyModel tiny;
  Loaded loaded{tiny};
  ServerOptions options{};
  std::vector<Request> requests;
  Texts expected;
};

TEST_F(Serving, GivesEachPromptTheTextItHasAlone) {
  headwise::ThreadPool pool(2);
  for (const Index pages : {3, 4, 5, 9, 40})
    for (const Index chunk : {1, 7, 64, 100, 1000})
      for (const Index batch : {1, 3, 8})
        for (const bool prefix_cache : {true, false}) {
          const ServerOptions how{.max_batch = batch, .chunk = chunk, .prefix_cache = prefix_cache};
          SCOPED_TRACE(testing::Message() << pages << " pages, chunk " << chunk << ", batch " << batch
                                          << (prefix_cache ? ", prefix cache" : ""));
          const Outcome outcome = chunk % 2 == 0 ? run(how, pages, pool) : run(how, pages);
          ASSERT_EQ(outcome.texts, expected);
          EXPECT_EQ(outcome.pages.used, 0);
          EXPECT_EQ(outcome.figures.finished, std::ssize(requests));
        }
}

TEST_F(Serving, PreemptsTheYoungestWherePagesRunOut) {
  const Outcome tight = run({.max_batch = 8, .prefix_cache = false}, 4);
  EXPECT_GT(tight.figures.preemptions, 0);
  EXPECT_GT(tight.figures.read_again, 0);
  EXPECT_EQ(tight.pages.peak, 4);
  const Outcome roomy = run({.max_batch = 8, .prefix_cache = false}, 40);
  EXPECT_EQ(roomy.figures.preemptions, 0);
  EXPECT_EQ(roomy.figures.read_again, 0);
  // every token but the last of each text is read once
  Index tokens = 0;
  for (std::size_t i = 0; i < requests.size(); ++i)
    if (!expected[i].empty()) tokens += std::ssize(requests[i].prompt) + std::ssize(expected[i]) - 1;
  EXPECT_EQ(roomy.figures.read, tokens);
  EXPECT_EQ(tight.figures.read, tokens + tight.figures.read_again);
}

TEST_F(Serving, ReadsASharedBeginningOnce) {
  const Outcome with = run({.max_batch = 8, .chunk = 64}, 40),
                without = run({.max_batch = 8, .prefix_cache = false}, 40);
  // two pages of three prompts and one of another, the prompt of exactly two pages but its last token: one page
  EXPECT_EQ(with.figures.prefix_tokens, 64 * (2 + 1 + 2 + 1));
  EXPECT_EQ(with.figures.read + with.figures.prefix_tokens, without.figures.read);
  EXPECT_EQ(without.figures.prefix_tokens, 0);
  EXPECT_LT(with.pages.peak, without.pages.peak);
}

TEST_F(Serving, BatchesWhatGeneratesTogether) {
  const Outcome one = run({.max_batch = 1}, 40), many = run({.max_batch = 8}, 40);
  EXPECT_EQ(one.figures.parts, one.figures.steps);
  EXPECT_LT(many.figures.steps, one.figures.steps * 3 / 4);
  EXPECT_EQ(many.figures.generated, one.figures.generated);
}

TEST_F(Serving, TakesAnyPageSize) {
  EXPECT_EQ(run({.max_batch = 4}, 3, Serial{}, 128).texts, expected);
  EXPECT_EQ(run({.max_batch = 4}, 2, Serial{}, 192).texts, expected);
}

TEST_F(Serving, StopsAtTheEndOfATextAndOfTheContext) {
  ServerOptions how{.max_batch = 3, .chunk = 50};
  how.context = 150;
  how.ends_text = [](TokenId token) { return token % 4 == 1; };
  Texts wanted;
  for (const Request& request : requests) wanted.push_back(alone(loaded.model, request, how));
  EXPECT_NE(wanted, expected);
  EXPECT_EQ(run(how, 5).texts, wanted);
}

TEST_F(Serving, DrawsAtRandomWhatEachPromptDrawsAlone) {
  ServerOptions how{.max_batch = 8, .chunk = 30, .prefix_cache = false};
  how.sampling = {.temperature = 3, .top_p = 0.99, .seed = 11};
  Texts wanted;
  for (const Request& request : requests) wanted.push_back(alone(loaded.model, request, how));
  EXPECT_NE(wanted, expected);
  const Outcome outcome = run(how, 4);  // also where a sequence is read again
  EXPECT_GT(outcome.figures.preemptions, 0);
  EXPECT_EQ(outcome.texts, wanted);
}

TEST_F(Serving, TakesRequestsBetweenSteps) {
  auto cache = loaded.model.make_paged_cache<float>(6);
  Serial serial;
  Server server(loaded.model, cache, {.max_batch = 3, .chunk = 40}, serial);
  EXPECT_FALSE(server.step());
  for (const Request& request : requests) {
    server.add(request);
    server.step();
    server.step();
  }
  while (server.step()) {
  }
  for (std::size_t i = 0; i < requests.size(); ++i)
    EXPECT_THAT(server.generated(static_cast<Index>(i)), testing::ElementsAreArray(expected[i])) << i;
}

TEST_F(Serving, RefusesWhatCouldNeverRun) {
  auto cache = loaded.model.make_paged_cache<float>(2, {.max_sequences = 4});
  Serial serial;
  const auto server = [&](const ServerOptions& how) { Server(loaded.model, cache, how, serial); };
  expect_error([&] { server({.max_batch = 0}); }, {"max_batch (0)"});
  expect_error([&] { server({.max_batch = 5}); }, {"max_batch (5)", "sequences of the cache (4)"});
  expect_error([&] { server({.max_batch = 1, .chunk = 0}); }, {"chunk (0)", "at least 1"});
  expect_error([&] { server({.max_batch = 1, .context = 301}); }, {"context (301)", "at most 300"});
  Server one(loaded.model, cache, {.max_batch = 1, .context = 200}, serial);
  expect_error([&] { one.add({{}, 5}); }, {"prompt 0 (0 tokens)", "1 to 200"});
  expect_error([&] { one.add({some_tokens(201), 5}); }, {"prompt 0 (201 tokens)"});
  expect_error([&] { one.add({{1}, -1}); }, {"max_tokens", "(-1)"});
  expect_error([&] { one.add({some_tokens(100), 30}); }, {"prompt 0 (100 tokens", "2 pages of 64", "needs 3"});
  EXPECT_EQ(one.num_requests(), 0);
  one.add({some_tokens(100), 29});  // the last of them is never read
  while (one.step()) {
  }
  EXPECT_EQ(std::ssize(one.generated(0)), 29);
}

}  // namespace
}  // namespace serve
