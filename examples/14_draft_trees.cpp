// SPDX-License-Identifier: MIT
// Speculative decoding with a tree of drafts (Miao et al., SpecInfer, 2023, arXiv 2305.09781): several guesses of what comes
// next are verified by one call, each seeing only its own branch; what the model would have said itself is kept. One step:
//   guess a tree → append its nodes → attend with Options::tree_mask → walk down the right guesses → truncate and evict
// A model of one layer, decoded greedily, so that its text is the same with and without drafts.

#include <headwise/headwise.hpp>

#include <algorithm>
#include <cstdio>
#include <random>
#include <span>
#include <vector>

namespace hw = headwise;
using hw::Index;

namespace {

constexpr Index kHeads = 4, kKvHeads = 2, kDim = 32, kHidden = kHeads * kDim, kWords = 48, kLength = 160;

std::size_t at(Index i) { return static_cast<std::size_t>(i); }

/// Embeddings, one attention layer, and the nearest embedding as the next word.
class Model {
 public:
  /// Appends words that stand at `positions`, and says what comes after each.
  std::vector<Index> read(std::span<const Index> words, std::span<const Index> positions, hw::Options options = {}) {
    const Index count = std::ssize(words);
    const std::vector<float> q = project(queries_, words, kHeads), k = project(keys_, words, kKvHeads),
                             v = project(values_, words, kKvHeads);
    std::vector<float> out(q.size());
    cache.append(hw::View(k.data(), count, kKvHeads, kDim), hw::View(v.data(), count, kKvHeads, kDim),
                 hw::AppendOptions{.rope = &rope_, .positions = positions});
    options.query_rope = &rope_;
    options.query_positions = positions;
    attend_(hw::View(q.data(), count, kHeads, kDim), cache, hw::View(out.data(), count, kHeads, kDim), options);
    ++calls;
    std::vector<Index> next;
    for (Index i = 0; i < count; ++i) next.push_back(nearest_word(out.data() + i * kHidden));
    return next;
  }

  hw::KvCache<float> cache{hw::Heads<>(kHeads, kKvHeads, kDim), kLength + 64};
  int calls = 0;

 private:
  std::vector<float> random_numbers(Index count) {
    std::normal_distribution<float> normal(0.0f, 0.3f);
    std::vector<float> result(at(count));
    for (float& x : result) x = normal(generator_);
    return result;
  }
  /// [word][head][dim]
  std::vector<float> project(const std::vector<float>& weight, std::span<const Index> words, Index heads) const {
    std::vector<float> result;
    for (const Index word : words)
      for (Index row = 0; row < heads * kDim; ++row)
        result.push_back(dot(&weight[at(row * kHidden)], &embeddings_[at(word * kHidden)]));
    return result;
  }
  Index nearest_word(const float* x) const {
    std::vector<float> logits;
    for (Index word = 0; word < kWords; ++word) logits.push_back(dot(x, &embeddings_[at(word * kHidden)]));
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
  }
  static float dot(const float* a, const float* b) {
    float sum = 0;
    for (Index i = 0; i < kHidden; ++i) sum += a[i] * b[i];
    return sum;
  }

  std::mt19937 generator_{4};
  std::vector<float> embeddings_ = random_numbers(kWords * kHidden), queries_ = random_numbers(kHeads * kDim * kHidden),
                     keys_ = random_numbers(kKvHeads * kDim * kHidden),
                     values_ = random_numbers(kKvHeads * kDim * kHidden);
  hw::Rope rope_{kDim};
  hw::Gqa<kHeads, kKvHeads, kDim> attend_;
};

/// Guesses that a word is followed by what followed it the last two times.
class Drafter {
 public:
  void learn(Index word, Index next) {
    std::vector<Index>& after = after_[at(word)];
    std::erase(after, next);
    after.insert(after.begin(), next);
    after.resize(std::min<std::size_t>(after.size(), 2));
  }
  struct Tree {
    std::vector<Index> words, parents;
  };
  /// `word` and what may follow it, `depth` words on.
  Tree grow(Index word, int depth) const {
    Tree tree{{word}, {-1}};
    for (std::size_t begin = 0; depth > 0; --depth) {
      const std::size_t end = tree.words.size();
      for (; begin < end; ++begin)
        for (const Index next : after_[at(tree.words[begin])]) {
          tree.words.push_back(next);
          tree.parents.push_back(static_cast<Index>(begin));
        }
    }
    return tree;
  }

 private:
  std::vector<std::vector<Index>> after_ = std::vector<std::vector<Index>>(at(kWords));
};

/// One call, whose tokens are in the cache already but for the last of them: gives at least one more.
void speculate(Model& model, Drafter& drafter, std::vector<Index>& text) {
  const Drafter::Tree drafts = drafter.grow(text.back(), 4);
  const hw::DraftTree tree = hw::DraftTree::from_parents(drafts.parents);
  const Index before = model.cache.num_tokens();
  std::vector<Index> positions;  // a node stands where it would in the text, whatever its place in the cache
  for (const Index depth : tree.depths()) positions.push_back(before + depth);
  const std::vector<Index> next = model.read(drafts.words, positions, {.tree_mask = tree.mask()});

  std::vector<Index> path;  // the nodes that the model agrees with, from the root on
  for (Index node = 0; node >= 0;) {
    path.push_back(node);
    const Index word = next[at(node)];
    drafter.learn(text.back(), word);
    text.push_back(word);
    Index child = -1;
    for (Index i = node + 1; i < std::ssize(next); ++i)
      if (drafts.parents[at(i)] == node && drafts.words[at(i)] == word) child = i;
    node = child;
  }

  // what is not on the path goes, from the back; keys move down to where they were turned to stand
  model.cache.truncate(before + path.back() + 1);
  for (std::size_t i = path.size() - 1; i > 0; --i)
    if (path[i] - path[i - 1] > 1) model.cache.evict(0, before + path[i - 1] + 1, before + path[i]);
}

}  // namespace

int main() {
  Model plain, drafted;
  std::vector<Index> expected{7}, text{7};
  while (std::ssize(expected) < kLength) {
    const Index position[] = {plain.cache.num_tokens()};
    expected.push_back(plain.read(std::span(expected).last(1), position).front());
  }
  Drafter drafter;
  while (std::ssize(text) < kLength) speculate(drafted, drafter, text);
  text.resize(at(kLength));
  std::printf("%td words in %d calls instead of %d; the same words: %s\n", kLength - 1, drafted.calls, plain.calls,
              text == expected ? "yes" : "NO");

  // and the cache holds what it would have held
  bool same_keys = true;
  for (Index head = 0; head < kKvHeads; ++head) {
    std::vector<float> a(at((kLength - 1) * kDim)), b(a.size());
    plain.cache.read_keys(0, 0, 0, kLength - 1, head, a);
    drafted.cache.read_keys(0, 0, 0, kLength - 1, head, b);
    same_keys &= a == b;
  }
  std::printf("the same keys in the cache, bit for bit: %s\n", same_keys ? "yes" : "NO");
  return text == expected && same_keys && drafted.calls < plain.calls ? 0 : 1;
}
