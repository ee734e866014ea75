#include "text/tokenizer_vocab.h"

#include <charconv>

#include "core/fail.h"
#include "core/json.h"
#include "text/json_cursor.h"
#include "text/tokenizer_spec.h"

namespace mneme {
namespace {

constexpr const char* kConfig = "tokenizer_config.json";

/// Each line but an initial "#version: ..." and empty ones.
Json merges_of(std::string_view text) {
  Json out = Json::array();
  bool first = true;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.empty() && !(first && line.starts_with("#version"))) out.push_back(line);
    first = false;
  }
  return out;
}

/// {"151643": {"content": "<|endoftext|>", "special": true, ...}, ...} as the list of tokenizer.json.
Json added_of(const Json& config) {
  Json out = Json::array();
  const auto at = config.find("added_tokens_decoder");
  if (at == config.end()) return out;
  require(at->is_object(), ErrorCode::corrupt, "{}: added_tokens_decoder must be an object", kConfig);
  for (const auto& [key, token] : at->items()) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    require(error == std::errc() && end == key.data() + key.size() && token.is_object(), ErrorCode::corrupt,
            "{}: added_tokens_decoder must map ids to descriptions of tokens", kConfig);
    Json item = token;
    item["id"] = id;
    for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"})
      if (!item.contains(flag)) item[flag] = false;
    out.push_back(std::move(item));
  }
  return out;
}

}  // namespace

std::string tokenizer_json_from_vocab(std::string_view vocab_json, std::string_view merges_txt,
                                      std::string_view tokenizer_config) {
  const Json config = parse_json(tokenizer_config, kConfig, 64);
  require(config.is_object(), ErrorCode::corrupt, "{} must hold an object", kConfig);
  const auto name = config.find("tokenizer_class");
  if (name == config.end() || (*name != "Qwen2Tokenizer" && *name != "Qwen2TokenizerFast")) return {};
  JsonCursor vocab(vocab_json, "vocab.json");
  require(vocab.peek() == '{', ErrorCode::corrupt, "vocab.json must hold an object of pieces");
  vocab.skip();
  vocab_json = vocab_json.substr(0, vocab.position());

  const Json byte_level{
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const Json split{{"type", "Split"},
                   {"pattern", {{"Regex", kQwen2Pattern}}},
                   {"behavior", "Isolated"},
                   {"invert", false}};
  Json out{{"version", "1.0"},
           {"added_tokens", added_of(config)},
           {"normalizer", {{"type", "NFC"}}},
           {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level})}}},
           {"decoder", byte_level}};
  // The vocabulary is large and already JSON: it goes in as it stands.
  const std::string head = out.dump();
  return head.substr(0, head.size() - 1) + R"(,"model":{"type":"BPE","vocab":)" + std::string(vocab_json) +
         R"(,"merges":)" + merges_of(merges_txt).dump(-1, ' ', false, Json::error_handler_t::replace) + "}}";
}

}  // namespace mneme
