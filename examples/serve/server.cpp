// SPDX-License-Identifier: MIT
#include "server.hpp"

#include <algorithm>

namespace serve {

Server::Server(const llama::Model& model, headwise::AnyPagedCache& cache, ServerOptions options,
               headwise::ExecutorRef executor)
    : model_(model), cache_(cache), options_(std::move(options)), executor_(executor) {
  const Index trained = model.shape().context_length;
  headwise::require(options_.max_batch >= 1 && options_.max_batch <= cache.max_sequences(), "max_batch (",
                    options_.max_batch, ") must be 1 to the sequences of the cache (", cache.max_sequences(), ")");
  headwise::require(options_.chunk >= 1, "chunk (", options_.chunk, ") must be at least 1");
  headwise::require(options_.context >= 0 && options_.context <= trained, "context (", options_.context,
                    ") must be at most ", trained, ", what the model was trained for");
  if (options_.context == 0) options_.context = trained;
  generate::Sampler check(options_.sampling);
}

Index Server::add(const Request& request) {
  const Index number = num_requests(), length = std::ssize(request.prompt);
  headwise::require(length >= 1 && length <= options_.context, "prompt ", number, " (", length,
                    " tokens) must have 1 to ", options_.context, " tokens, the context");
  headwise::require(request.max_tokens >= 0, "max_tokens of prompt ", number, " (", request.max_tokens,
                    ") must be at least 0");
  // the last token that is generated is not read
  const Index most =
      request.max_tokens > options_.context - length ? options_.context : length + request.max_tokens - 1;
  headwise::require(pages_of(most) <= cache_.num_pages(), "prompt ", number, " (", length, " tokens and up to ",
                    request.max_tokens, " to generate) must fit in the ", cache_.num_pages(), " pages of ",
                    cache_.page_tokens(), " tokens: it needs ", pages_of(most));
  Sequence sequence(number, request, options_.sampling);
  sequence.finished = request.max_tokens == 0;
  figures_.finished += sequence.finished ? 1 : 0;
  if (!sequence.finished) waiting_.push_back(number);
  all_.push_back(std::move(sequence));
  return number;
}

bool Server::step() {
  if (waiting_.empty() && running_.empty()) return false;
  admit();
  plan();
  reserve();
  read();
  return true;
}

/// Lets waiting sequences run, oldest first, as long as there is room for their tokens.
void Server::admit() {
  for (std::size_t i = 0; i < waiting_.size() && num_running() < options_.max_batch;) {
    Sequence& sequence = at(waiting_[i]);
    if (is_being_read(sequence)) {  // soon in the prefix cache
      ++i;
      continue;
    }
    begin(sequence);
    if (!running_.empty() && !has_room(sequence)) return leave(sequence);
    figures_.prefix_tokens += sequence.held;
    running_.insert(std::ranges::upper_bound(running_, sequence.number), sequence.number);
    waiting_.erase(waiting_.begin() + static_cast<Index>(i));
  }
}

/// One token of each sequence that is generating, and a chunk of prompts, oldest first.
void Server::plan() {
  Index chunk = options_.chunk;
  for (const Index number : running_) {
    Sequence& sequence = at(number);
    sequence.planned = 1;
    if (sequence.unread() == 1) continue;
    sequence.planned = std::min(sequence.unread(), chunk);
    chunk -= sequence.planned;
  }
}

/// Gets the pages that the step writes; where there are too few, the youngest sequences wait again.
void Server::reserve() {
  for (std::size_t i = 0; i < running_.size();) try {
      const Sequence& sequence = at(running_[i]);
      cache_.reserve(sequence.id, sequence.planned);
      ++i;
    } catch (const headwise::OutOfPages&) {
      if (running_.size() == 1) throw;  // others use the cache
      preempt_youngest();
    }
}

void Server::read() {
  std::vector<llama::SequenceTokens> parts;
  std::vector<Sequence*> sequences;
  for (const Index number : running_)
    if (Sequence& sequence = at(number); sequence.planned > 0) {
      parts.push_back({sequence.id, sequence.next()});
      sequences.push_back(&sequence);
    }
  const llama::Matrix last = model_.read(parts, cache_, scratch_, executor_);
  ++figures_.steps;
  figures_.parts += std::ssize(parts);

  llama::Matrix states(last.rows(), last.cols());  // of the sequences that were read to their end
  std::vector<Sequence*> drawing;
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = *sequences[i];
    figures_.read += sequence.planned;
    figures_.read_again += std::clamp(sequence.most_held - sequence.held, Index{0}, sequence.planned);
    sequence.held += sequence.planned;
    sequence.most_held = std::max(sequence.most_held, sequence.held);
    if (options_.prefix_cache && sequence.held - sequence.registered >= cache_.page_tokens())
      sequence.registered = cache_.register_prefix(sequence.id, sequence.first(sequence.held));
    if (sequence.unread() > 0) continue;
    states.row(std::ssize(drawing)) = last.row(static_cast<Index>(i));
    drawing.push_back(&sequence);
  }
  const llama::Matrix logits = model_.logits(llama::Matrix(states.topRows(std::ssize(drawing))), executor_);
  for (Index row = 0; row < logits.rows(); ++row)
    draw(*drawing[static_cast<std::size_t>(row)], {logits.row(row).data(), static_cast<std::size_t>(logits.cols())});
}

void Server::begin(Sequence& sequence) {
  sequence.id = options_.prefix_cache ? cache_.match_prefix(sequence.tokens) : cache_.create();
  sequence.held = sequence.registered = cache_.num_tokens(0, sequence.id);
}

void Server::leave(Sequence& sequence) {
  cache_.release(sequence.id);
  sequence.id = {};
  sequence.held = sequence.registered = sequence.planned = 0;
}

bool Server::is_being_read(const Sequence& sequence) const {
  const Index page = cache_.page_tokens();
  return options_.prefix_cache && std::ranges::any_of(running_, [&](Index number) {
           const Sequence& other = at(number);
           const Index common = std::min(sequence.common_tokens(other), std::ssize(sequence.tokens) - 1);
           return other.unread() > 1 && common / page > other.held / page;
         });
}

bool Server::has_room(const Sequence& sequence) const {
  const auto wanted = [&](const Sequence& one) { return pages_of(std::ssize(one.tokens)) - pages_of(one.held); };
  const headwise::PageCounts pages = cache_.pages();
  Index left = pages.free + pages.cached - wanted(sequence);
  for (const Index number : running_) left -= wanted(at(number));
  return left >= 0;
}

void Server::preempt_youngest() {
  const Index number = running_.back();
  running_.pop_back();
  leave(at(number));
  waiting_.insert(std::ranges::upper_bound(waiting_, number), number);
  ++figures_.preemptions;
}

void Server::draw(Sequence& sequence, std::span<const float> logits) {
  const auto token = static_cast<TokenId>(sequence.sampler(logits));
  sequence.tokens.push_back(token);
  ++figures_.generated;
  const bool ends = options_.ends_text && options_.ends_text(token);
  const bool enough = std::ssize(sequence.generated()) == sequence.max_tokens;
  if (!ends && !enough && sequence.held < options_.context) return;
  leave(sequence);
  std::erase(running_, sequence.number);
  sequence.finished = true;
  ++figures_.finished;
}

}  // namespace serve
