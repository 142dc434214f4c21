// SPDX-License-Identifier: MIT
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llama/text/byte_pairs.hpp"
#include "llama/file/gguf.hpp"
#include "llama/text/pre_tokenizer.hpp"

namespace llama {

/// The byte-level BPE tokenizer of a GGUF file (tokenizer.ggml.model = gpt2; pre-tokenizers smollm and gpt-2).
class Tokenizer {
 public:
  /// Copies what it needs. Throws GgufError if the file's tokenizer is of another kind or contradicts itself.
  explicit Tokenizer(const Gguf& file);

  struct Encoded {
    std::vector<TokenId> ids;
    Index dropped_bytes = 0;  // bytes for which the vocabulary has no token; they are left out
  };
  /// Tokens of any byte string. Control tokens written out in the text ("<|im_start|>") are ordinary characters unless
  /// `special`. Prepends the beginning-of-text token if the file asks for one.
  Encoded encode(std::string_view text, bool special) const;

  /// The bytes that a token stands for: those of a control token are its name. Not whole characters (see Utf8Stream).
  std::string_view bytes(TokenId token) const { return bytes_[static_cast<std::size_t>(token)]; }
  bool is_control(TokenId token) const { return kinds_[static_cast<std::size_t>(token)] == Kind::control; }
  bool ends_text(TokenId token) const { return ends_text_[static_cast<std::size_t>(token)]; }
  Index vocabulary_size() const { return static_cast<Index>(bytes_.size()); }

 private:
  enum class Kind : std::uint8_t { normal, control, user_defined };

  std::optional<TokenId> token_id(const Gguf& file, std::string_view key) const;
  void read_kinds(const Gguf& file);
  void read_merges(const Gguf& file);
  void encode_plain(std::string_view text, Encoded& out) const;
  std::optional<TokenId> written_token(std::string_view text, bool special) const;

  PreTokenizer pre_tokenizer_;
  std::vector<std::string> bytes_;  // of each token
  std::vector<Kind> kinds_;
  std::vector<bool> ends_text_;
  std::vector<TokenId> written_tokens_;   // control and user-defined, longest first
  std::array<TokenId, 256> byte_tokens_;  // of each byte; -1: none
  BytePairs pairs_;
  std::optional<TokenId> begin_of_text_;  // only where the file asks for one
};

}  // namespace llama
