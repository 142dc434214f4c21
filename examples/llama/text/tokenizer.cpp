// SPDX-License-Identifier: MIT
#include "llama/text/tokenizer.hpp"

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "llama/text/byte_alphabet.hpp"

namespace llama {

namespace {

PreTokenizer read_pre_tokenizer(const Gguf& file) {
  const std::string_view model = file.text("tokenizer.ggml.model");
  if (model != "gpt2") file.fail("tokenizer.ggml.model is " + in_quotes(model) + "; read is 'gpt2' (byte-level BPE)");
  const std::string_view name = file.text("tokenizer.ggml.pre");
  if (name == "smollm") return PreTokenizer::smollm;
  if (name == "gpt-2" || name == "gpt2") return PreTokenizer::gpt2;
  file.fail("tokenizer.ggml.pre is " + in_quotes(name) + "; read are 'smollm' and 'gpt-2'");
}

}  // namespace

Tokenizer::Tokenizer(const Gguf& file) : pre_tokenizer_(read_pre_tokenizer(file)) {
  const auto& tokens = file.texts("tokenizer.ggml.tokens");
  if (tokens.empty() || tokens.size() > static_cast<std::size_t>(std::numeric_limits<TokenId>::max()))
    file.fail("tokenizer.ggml.tokens (" + std::to_string(tokens.size()) + ") must hold 1 to 2^31 - 1 tokens");
  kinds_.assign(tokens.size(), Kind::normal);
  read_kinds(file);

  for (std::size_t id = 0; id < tokens.size(); ++id) {
    auto bytes = kinds_[id] == Kind::normal ? written_bytes(tokens[id]) : std::string(tokens[id]);
    if (!bytes)
      file.fail("token " + std::to_string(id) + " (" + in_quotes(tokens[id]) +
                ") is not written in the byte-level alphabet");
    bytes_.push_back(*std::move(bytes));
    if (kinds_[id] != Kind::normal && !bytes_[id].empty()) written_tokens_.push_back(static_cast<TokenId>(id));
  }
  std::ranges::stable_sort(written_tokens_, std::ranges::greater{}, [&](TokenId id) { return bytes(id).size(); });
  read_merges(file);

  ends_text_.assign(tokens.size(), false);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const auto id = token_id(file, key)) ends_text_[static_cast<std::size_t>(*id)] = true;
  if (file.has("tokenizer.ggml.add_bos_token") && file.boolean("tokenizer.ggml.add_bos_token")) {
    begin_of_text_ = token_id(file, "tokenizer.ggml.bos_token_id");
    if (!begin_of_text_)
      file.fail("tokenizer.ggml.add_bos_token asks for tokenizer.ggml.bos_token_id, which is missing");
  }
}

std::optional<TokenId> Tokenizer::token_id(const Gguf& file, std::string_view key) const {
  if (!file.has(key)) return std::nullopt;
  const std::int64_t id = file.integer(key);
  if (id < 0 || id >= vocabulary_size())
    file.fail(std::string(key) + " (" + std::to_string(id) + ") must be 0 to " + std::to_string(vocabulary_size() - 1));
  return static_cast<TokenId>(id);
}

void Tokenizer::read_kinds(const Gguf& file) {
  constexpr std::string_view key = "tokenizer.ggml.token_type";
  if (!file.has(key)) return;
  const auto types = file.integers(key);
  if (types.size() != kinds_.size())
    file.fail(std::string(key) + " has " + std::to_string(types.size()) +
              " elements and must have one for each of the " + std::to_string(kinds_.size()) + " tokens");
  for (std::size_t id = 0; id < types.size(); ++id) {
    // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
    if (types[id] < 1 || types[id] > 6)
      file.fail("element " + std::to_string(id) + " (" + std::to_string(types[id]) + ") of " + std::string(key) +
                " must be 1 to 6");
    if (types[id] != 1) kinds_[id] = types[id] == 4 ? Kind::user_defined : Kind::control;
  }
}

void Tokenizer::read_merges(const Gguf& file) {
  std::unordered_map<std::string_view, TokenId> id_of;
  for (TokenId id = 0; id < static_cast<TokenId>(bytes_.size()); ++id)
    if (kinds_[static_cast<std::size_t>(id)] == Kind::normal) id_of.try_emplace(bytes(id), id);  // of equals, the first

  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto found = id_of.find(std::string(1, static_cast<char>(byte)));
    byte_tokens_[byte] = found == id_of.end() ? -1 : found->second;
  }
  const auto& merges = file.texts("tokenizer.ggml.merges");
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto wrong = [&](const char* why) {
      file.fail("element " + std::to_string(rank) + " (" + in_quotes(merges[rank]) + ") of tokenizer.ggml.merges " +
                why);
    };
    const std::size_t space = merges[rank].find(' ');  // written tokens have none
    if (space == std::string_view::npos) wrong("must be two tokens with a space between");
    const auto left = written_bytes(merges[rank].substr(0, space)),
               right = written_bytes(merges[rank].substr(space + 1));
    if (!left || !right) wrong("is not written in the byte-level alphabet");
    const auto left_id = id_of.find(*left), right_id = id_of.find(*right), merged_id = id_of.find(*left + *right);
    if (left_id == id_of.end() || right_id == id_of.end() || merged_id == id_of.end())
      wrong("joins or makes a token that is not in the vocabulary");
    pairs_.add(left_id->second, right_id->second, merged_id->second);
  }
}

Tokenizer::Encoded Tokenizer::encode(std::string_view text, bool special) const {
  Encoded out;
  if (begin_of_text_) out.ids.push_back(*begin_of_text_);
  std::size_t plain = 0;  // where the text since the last written token begins
  for (std::size_t at = 0; at < text.size();) {
    const auto token = written_token(text.substr(at), special);
    if (!token) {
      ++at;
      continue;
    }
    encode_plain(text.substr(plain, at - plain), out);
    out.ids.push_back(*token);
    at += bytes(*token).size();
    plain = at;
  }
  encode_plain(text.substr(plain), out);
  return out;
}

std::optional<TokenId> Tokenizer::written_token(std::string_view text, bool special) const {
  for (const TokenId token : written_tokens_)
    if ((special || !is_control(token)) && text.starts_with(bytes(token))) return token;
  return std::nullopt;
}

void Tokenizer::encode_plain(std::string_view text, Encoded& out) const {
  for (const std::string_view piece : split(text, pre_tokenizer_)) {
    std::vector<TokenId> tokens;
    for (const char c : piece) {
      const TokenId token = byte_tokens_[static_cast<unsigned char>(c)];
      if (token >= 0)
        tokens.push_back(token);
      else
        ++out.dropped_bytes;
    }
    const auto merged = pairs_.merge(tokens);
    out.ids.insert(out.ids.end(), merged.begin(), merged.end());
  }
}

}  // namespace llama
