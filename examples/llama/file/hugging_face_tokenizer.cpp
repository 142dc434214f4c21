// SPDX-License-Identifier: MIT
#include "llama/file/hugging_face_tokenizer.hpp"

#include <algorithm>
#include <map>
#include <optional>

#include "llama/file/gguf.hpp"
#include "llama/file/mapped_file.hpp"

namespace llama {

namespace {

enum TokenKind : std::int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

/// Whether a token is a control token though its file does not say so: as llama.cpp's converter decides it.
bool looks_special(std::string_view token) {
  const auto between = [&](std::string_view begin, std::string_view end) {
    return token.starts_with(begin) && token.ends_with(end);
  };
  return token == "<pad>" || token == "<mask>" || between("<|", "|>") || between("<｜", "｜>") ||
         between("<unused", ">");
}

/// Refuses a setting that changes what tokens a text has.
void check_absent(const JsonObject& object, const char* key) {
  if (!object.has(key)) return;
  const Json& value = object.value(key);
  if (value != false && value != "" && value != 0) object.fail(key, "is not done here");
}

class TokenizerConverter {
 public:
  TokenizerConverter(const std::filesystem::path& folder, const JsonObject& config, Index vocabulary_size,
                     GgufWriter& gguf)
      : folder_(folder),
        vocabulary_size_(vocabulary_size),
        json_(read_json(folder / "tokenizer.json")),
        file_(json_, folder / "tokenizer.json"),
        config_(config),
        gguf_(gguf) {
    read_if_there(folder / "tokenizer_config.json", settings_json_, settings_);
    read_if_there(folder / "generation_config.json", generation_json_, generation_);
  }

  void convert() {
    check_model();
    gguf_.set("tokenizer.ggml.model", "gpt2");
    gguf_.set("tokenizer.ggml.pre", pre_tokenizer());
    write_vocabulary();
    write_merges();
    const std::pair<const char*, const char*> specials[] = {
        {"bos", "bos"}, {"eos", "eos"}, {"unk", "unknown"}, {"pad", "padding"}};
    for (const auto& [name, key] : specials)
      if (const auto id = special_token(name))
        gguf_.set(std::string("tokenizer.ggml.") + key + "_token_id", static_cast<std::uint32_t>(*id));
    gguf_.set("tokenizer.ggml.add_bos_token", begins_with_bos());
    if (settings_ && settings_->has("add_prefix_space")) gguf_.set("tokenizer.ggml.add_space_prefix", false);
    write_chat_template();
  }

 private:
  static void read_if_there(const std::filesystem::path& path, Json& json, std::optional<JsonObject>& object) {
    if (!std::filesystem::exists(path)) return;
    json = read_json(path);
    object.emplace(json, path);
  }

  void check_model() const {
    const JsonObject model = file_.object("model");
    if (model.text("type") != "BPE") model.fail("type", "is not read; read is 'BPE'");
    for (const char* key :
         {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"})
      check_absent(model, key);
    if (file_.has("normalizer")) file_.fail("normalizer", "is not done here");
    if (settings_) {
      check_absent(*settings_, "add_prefix_space");
      check_absent(*settings_, "add_eos_token");
    }
  }

  /// The name that GGUF files give the pre-tokenizer.
  const char* pre_tokenizer() const {
    const JsonObject whole = file_.object("pre_tokenizer");
    std::vector<JsonObject> steps;
    if (whole.text("type") == "Sequence") {
      for (const Json& step : whole.array("pretokenizers"))
        steps.emplace_back(step, file_name(), "a step of pre_tokenizer");
    } else {
      steps.push_back(whole);
    }
    const bool digits =
        steps.size() == 2 && steps[0].text("type") == "Digits" && steps[0].boolean("individual_digits", false);
    if (steps.size() != (digits ? 2u : 1u) || steps.back().text("type") != "ByteLevel" ||
        !steps.back().boolean("use_regex", true) || steps.back().boolean("add_prefix_space", true))
      file_.fail("pre_tokenizer",
                 "is not done here; done is ByteLevel (use_regex, not add_prefix_space), alone or after Digits "
                 "(individual_digits)");
    return digits ? "smollm" : "gpt-2";
  }

  void write_vocabulary() {
    const auto count = static_cast<std::size_t>(vocabulary_size_);
    std::vector<std::string> tokens(count);
    std::vector<std::int32_t> kinds(count, kUnused);
    const auto put = [&](const std::string& token, Index id, TokenKind kind) {
      const auto at = static_cast<std::size_t>(id);
      const bool other_token = kinds[at] != kUnused && tokens[at] != token;
      if (other_token || id_of_.try_emplace(token, id).first->second != id)
        file_.fail("gives token " + in_quotes(token) + " the id " + std::to_string(id) + ", and " +
                   (other_token ? "token " + in_quotes(tokens[at]) + " the same"
                                : "the id " + std::to_string(id_of_.at(token)) + " as well"));
      tokens[at] = token;
      kinds[at] = kind;
    };
    const JsonObject vocabulary = file_.object("model").object("vocab");
    for (const auto& [token, value] : vocabulary.json().items())
      put(token, vocabulary.integer(token, 0, vocabulary_size_ - 1), kNormal);
    if (file_.has("added_tokens"))
      for (const Json& value : file_.array("added_tokens")) {
        const JsonObject added(value, file_name(), "an element of added_tokens");
        const std::string& token = added.text("content");
        const bool special = added.boolean("special", false) || looks_special(token);
        put(token, added.integer("id", 0, vocabulary_size_ - 1), special ? kControl : kUserDefined);
      }
    for (std::size_t id = 0; id < count; ++id)
      if (kinds[id] == kUnused) tokens[id] = "[PAD" + std::to_string(id) + "]";
    gguf_.set("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
    gguf_.set("tokenizer.ggml.token_type", std::span<const std::int32_t>(kinds));
  }

  /// Merges are "a b", or since 2024 ["a", "b"].
  void write_merges() {
    std::vector<std::string> merges;
    const JsonObject model = file_.object("model");
    for (const Json& merge : model.array("merges")) {
      const bool pair = merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
      if (!pair && !merge.is_string())
        model.fail("element " + std::to_string(merges.size()) + " of merges must be two tokens");
      merges.push_back(pair ? merge[0].get<std::string>() + " " + merge[1].get<std::string>()
                            : merge.get<std::string>());
      if (std::ranges::count(merges.back(), ' ') != 1)  // tokens of a byte-level vocabulary have none
        model.fail("element " + std::to_string(merges.size() - 1) + " (" + in_quotes(merges.back()) +
                   ") of merges must be two tokens without spaces");
    }
    gguf_.set("tokenizer.ggml.merges", std::span<const std::string>(merges));
  }

  /// The id of the token for `name` ("bos"): by tokenizer_config.json, else config.json, else generation_config.json.
  std::optional<Index> special_token(const std::string& name) const {
    const std::string token = name + "_token", id = token + "_id";
    if (settings_ && settings_->has(token)) {
      const bool text = settings_->value(token).is_string();
      const auto found = id_of_.find(text ? settings_->text(token) : settings_->object(token).text("content"));
      if (found != id_of_.end()) return found->second;
    }
    for (const JsonObject* from : {&config_, generation_ ? &*generation_ : nullptr}) {
      if (!from || !from->has(id)) continue;
      const Json& value = from->value(id);
      if (value.is_array() && value.empty()) continue;
      // several tokens may end a text: the first stands for them
      const Json first = {{id, value.is_array() ? value[0] : value}};
      const Index number = JsonObject(first, from->file()).integer(id, -1, vocabulary_size_ - 1);
      if (number >= 0) return number;  // -1 is written for none
    }
    return std::nullopt;
  }

  /// Whether every text begins with the token "bos". Refuses what else is added to texts.
  bool begins_with_bos() const {
    std::optional<bool> bos;
    if (file_.has("post_processor")) {
      const JsonObject whole = file_.object("post_processor");
      if (whole.text("type") != "Sequence") return begins_with_bos(whole);
      for (const Json& step : whole.array("processors"))
        bos = begins_with_bos(JsonObject(step, file_name(), "a step of post_processor")) || bos.value_or(false);
    }
    return bos ? *bos : settings_ && settings_->boolean("add_bos_token", false);
  }
  bool begins_with_bos(const JsonObject& processor) const {
    const std::string& type = processor.text("type");
    if (type == "ByteLevel") return false;
    if (type != "TemplateProcessing")
      processor.fail("type", "is not done here; done are ByteLevel and TemplateProcessing");
    const Json& single = processor.array("single");
    const auto has = [&](std::size_t i, const char* key) {
      return i < single.size() && single[i].is_object() && single[i].contains(key);
    };
    if (single.size() == 1 && has(0, "Sequence")) return false;
    if (single.size() != 2 || !has(0, "SpecialToken") || !has(1, "Sequence"))
      processor.fail("single", "is not done here; done is the text alone or after one token");
    const JsonObject token = JsonObject(single[0], file_name(), "single of post_processor").object("SpecialToken");
    const auto found = id_of_.find(token.text("id"));
    if (found == id_of_.end() || found->second != special_token("bos"))
      token.fail("id", "must be the token that begins a text");
    return true;
  }

  void write_chat_template() {
    constexpr const char* key = "tokenizer.chat_template";
    if (settings_ && settings_->has("chat_template")) {
      if (settings_->value("chat_template").is_string()) gguf_.set(key, settings_->text("chat_template"));
    } else if (std::filesystem::exists(folder_ / "chat_template.jinja")) {
      const MappedFile file((folder_ / "chat_template.jinja").string());
      gguf_.set(key, std::string_view(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()));
    }
  }

  const std::string& file_name() const { return file_.file(); }

  std::filesystem::path folder_;
  Index vocabulary_size_;
  Json json_, settings_json_, generation_json_;
  JsonObject file_;
  const JsonObject& config_;
  std::optional<JsonObject> settings_, generation_;  // tokenizer_config.json, generation_config.json
  GgufWriter& gguf_;
  std::map<std::string, Index, std::less<>> id_of_;
};

}  // namespace

void write_hugging_face_tokenizer(const std::filesystem::path& folder, const JsonObject& config, Index vocabulary_size,
                                  GgufWriter& gguf) {
  TokenizerConverter(folder, config, vocabulary_size, gguf).convert();
}

}  // namespace llama
