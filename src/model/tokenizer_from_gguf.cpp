#include "model/tokenizer_from_gguf.h"

#include <algorithm>
#include <array>
#include <optional>

#include "core/fail.h"

namespace mneme {

namespace {

using Normalize = NormalizerStep::Kind;
using Cut = PreTokenizerStep::Kind;

// What a value of tokenizer.ggml.pre stands for.
struct PreTokenizerName {
  std::string_view name;
  std::string_view pattern;
  bool single_digits = false;  // digits are cut apart before the pattern
  bool nfc = false;
  bool whole_words = false;  // a word that is a piece is not merged
  bool add_bos = false;      // the default of tokenizer.ggml.add_bos_token
};

constexpr std::array kPreTokenizers = {
    PreTokenizerName{"gpt-2", kGpt2Pattern},
    PreTokenizerName{"gpt2", kGpt2Pattern},
    PreTokenizerName{"olmo", kGpt2Pattern},
    PreTokenizerName{"smollm", kGpt2Pattern, true},
    PreTokenizerName{"starcoder", kGpt2Pattern, true},
    PreTokenizerName{"refact", kGpt2Pattern, true},
    PreTokenizerName{"codeshell", kGpt2Pattern, true},
    PreTokenizerName{"command-r", kGpt2Pattern, true},
    PreTokenizerName{"llama-bpe", kLlama3Pattern, false, false, true, true},
    PreTokenizerName{"llama3", kLlama3Pattern, false, false, true, true},
    PreTokenizerName{"llama-v3", kLlama3Pattern, false, false, true, true},
    PreTokenizerName{"smaug-bpe", kLlama3Pattern},
    PreTokenizerName{"dbrx", kLlama3Pattern},
    PreTokenizerName{"qwen2", kQwen2Pattern, false, true},
    PreTokenizerName{"deepseek-r1-qwen", kQwen2Pattern, false, true},
    PreTokenizerName{"stablelm2", kQwen2Pattern},
};

// Files older than tokenizer.ggml.pre, and those that say "default", are cut by the four patterns that such
// files have always been read with.
constexpr std::array<std::string_view, 4> kDefaultPatterns = {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern,
                                                              R"(\p{N}+)", R"([0-9][0-9][0-9])"};

PreTokenizerStep split_step(std::string_view pattern) {
  PreTokenizerStep step;
  step.kind = Cut::split_regex;
  step.pattern = pattern;
  return step;
}

NormalizerStep normalize_step(Normalize kind, std::string pattern = {}, std::string content = {}) {
  NormalizerStep step;
  step.kind = kind;
  step.pattern = std::move(pattern);
  step.content = std::move(content);
  return step;
}

const std::vector<std::string>& string_array(const GgufMetadata& metadata, std::string_view key) {
  static const std::vector<std::string> kNone;
  const GgufValue* value = metadata.find(key);
  if (!value) return kNone;
  const auto* strings = std::get_if<std::vector<std::string>>(value);
  require(strings != nullptr, ErrorCode::corrupt, "the metadata key {} is not an array of strings", key);
  return *strings;
}

void read_vocabulary(const GgufMetadata& metadata, TokenizerSpec& spec) {
  const auto& tokens = string_array(metadata, "tokenizer.ggml.tokens");
  require(!tokens.empty(), ErrorCode::corrupt, "the file has no tokenizer.ggml.tokens");
  const std::vector<int64_t> types = metadata.get_ints("tokenizer.ggml.token_type");
  require(types.empty() || types.size() == tokens.size(), ErrorCode::corrupt,
          "tokenizer.ggml.token_type has {} entries for {} tokens", types.size(), tokens.size());
  size_t bytes = 0;
  for (const std::string& token : tokens) bytes += token.size();
  spec.vocab.reserve(tokens.size(), bytes);
  spec.types.assign(tokens.size(), TokenType::normal);
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!types.empty()) {
      require(types[id] >= 0 && types[id] <= 6, ErrorCode::corrupt,
              "tokenizer.ggml.token_type {} of token {} is not between 0 and 6", types[id], id);
      spec.types[id] = static_cast<TokenType>(types[id]);
    }
    const bool fresh = spec.vocab.add(tokens[id]);
    require(fresh || spec.types[id] == TokenType::unused, ErrorCode::corrupt,
            "tokenizer.ggml.tokens has \"{}\" twice, at {} and {}", tokens[id], spec.vocab.find(tokens[id]),
            id);
    if (tokens[id].empty()) continue;
    if (spec.types[id] == TokenType::control || spec.types[id] == TokenType::user_defined) {
      AddedToken added;
      added.id = static_cast<TokenId>(id);
      added.content = tokens[id];
      added.special = spec.types[id] == TokenType::control;
      spec.added.push_back(std::move(added));
    }
  }
}

void read_merges(const GgufMetadata& metadata, TokenizerSpec& spec) {
  const auto& merges = string_array(metadata, "tokenizer.ggml.merges");
  require(!merges.empty(), ErrorCode::corrupt, "a gpt2 tokenizer needs tokenizer.ggml.merges");
  spec.merges.reserve(merges.size());
  std::string whole;
  for (const std::string& text : merges) {
    // The parts are apart by a space; a part may begin with one, never contain one elsewhere.
    const size_t space = text.empty() ? std::string::npos : text.find(' ', 1);
    require(space != std::string::npos, ErrorCode::corrupt,
            "merge {} of the tokenizer, \"{}\", is not two pieces", spec.merges.size(), text);
    const std::string_view left = std::string_view(text).substr(0, space),
                           right = std::string_view(text).substr(space + 1);
    whole.assign(left).append(right);
    const Merge merge{spec.vocab.find(left), spec.vocab.find(right), spec.vocab.find(whole)};
    require(merge.left >= 0 && merge.right >= 0 && merge.result >= 0, ErrorCode::corrupt,
            "merge {} of the tokenizer, \"{}\", names a piece that is not in the vocabulary",
            spec.merges.size(), text);
    spec.merges.push_back(merge);
  }
}

TokenId read_id(const GgufMetadata& metadata, const std::string& key, const TokenizerSpec& spec) {
  if (!metadata.has(key)) return -1;
  const uint64_t id = metadata.get_uint(key);
  if (id == 0xFFFFFFFFu) return -1;  // how some writers spell "none"
  require(id < spec.vocab.size(), ErrorCode::corrupt, "{} is {}, but there are {} tokens", key, id,
          spec.vocab.size());
  return static_cast<TokenId>(id);
}

void read_special_ids(const GgufMetadata& metadata, TokenizerSpec& spec, bool add_bos, bool add_eos) {
  spec.bos = read_id(metadata, "tokenizer.ggml.bos_token_id", spec);
  spec.eos = read_id(metadata, "tokenizer.ggml.eos_token_id", spec);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"})
    if (const TokenId id = read_id(metadata, key, spec); id >= 0) spec.stop.push_back(id);
  add_known_stop_tokens(spec);
  if (metadata.get_bool("tokenizer.ggml.add_bos_token", add_bos) && spec.bos >= 0) spec.prefix = {spec.bos};
  if (metadata.get_bool("tokenizer.ggml.add_eos_token", add_eos) && spec.eos >= 0) spec.suffix = {spec.eos};
  spec.chat_template = metadata.get_string("tokenizer.chat_template", "");
}

void read_byte_level(const GgufMetadata& metadata, TokenizerSpec& spec) {
  spec.model = TokenizerModel::bpe;
  const std::string pre = metadata.get_string("tokenizer.ggml.pre", "default");
  bool add_bos = false;
  if (pre == "default") {
    for (const std::string_view pattern : kDefaultPatterns) spec.pre_tokenizer.push_back(split_step(pattern));
  } else {
    const auto known = std::find_if(kPreTokenizers.begin(), kPreTokenizers.end(),
                                    [&](const PreTokenizerName& entry) { return entry.name == pre; });
    require(
        known != kPreTokenizers.end(), ErrorCode::unsupported,
        "the pre-tokenizer \"{}\" (tokenizer.ggml.pre) is not supported; known are default, gpt-2, smollm, "
        "llama-bpe, qwen2 and their variants",
        pre);
    if (known->single_digits) {
      PreTokenizerStep digits;
      digits.kind = Cut::digits;
      digits.individual = true;
      spec.pre_tokenizer.push_back(digits);
    }
    if (known->nfc) spec.normalizer.push_back(normalize_step(Normalize::nfc));
    spec.pre_tokenizer.push_back(split_step(known->pattern));
    spec.ignore_merges = known->whole_words;
    add_bos = known->add_bos;
  }
  PreTokenizerStep bytes;
  bytes.kind = Cut::byte_level;
  spec.pre_tokenizer.push_back(bytes);
  spec.decoder.byte_level = true;
  read_merges(metadata, spec);
  read_special_ids(metadata, spec, add_bos, false);
}

void read_sentencepiece(const GgufMetadata& metadata, TokenizerSpec& spec, bool unigram) {
  spec.model = unigram ? TokenizerModel::unigram : TokenizerModel::spm_bpe;
  spec.scores = metadata.get_floats("tokenizer.ggml.scores");
  require(spec.scores.size() == spec.vocab.size(), ErrorCode::corrupt,
          "tokenizer.ggml.scores has {} entries for {} tokens", spec.scores.size(), spec.vocab.size());
  spec.unk = read_id(metadata, "tokenizer.ggml.unknown_token_id", spec);
  for (size_t id = 0; id < spec.types.size() && spec.unk < 0; ++id)
    if (spec.types[id] == TokenType::unknown) spec.unk = static_cast<TokenId>(id);
  spec.byte_fallback = spec.vocab.find("<0x00>") >= 0;
  spec.fuse_unk = true;
  const bool prefix = metadata.get_bool("tokenizer.ggml.add_space_prefix", true);
  if (unigram) {
    const std::vector<int64_t> map = metadata.get_ints("tokenizer.ggml.precompiled_charsmap");
    if (!map.empty()) {
      spec.normalizer.push_back(normalize_step(Normalize::precompiled));
      for (const int64_t byte : map) spec.normalizer.back().pattern.push_back(static_cast<char>(byte));
    }
    if (metadata.get_bool("tokenizer.ggml.remove_extra_whitespaces", false)) {
      spec.normalizer.push_back(normalize_step(Normalize::strip));
      spec.normalizer.push_back(normalize_step(Normalize::replace_regex, " {2,}", " "));
    }
  }
  if (prefix) spec.normalizer.push_back(normalize_step(Normalize::prepend, {}, "▁"));
  spec.normalizer.push_back(normalize_step(Normalize::replace, " ", "▁"));
  spec.decoder.replace = {{"▁", " "}};
  spec.decoder.byte_fallback = spec.byte_fallback;
  if (prefix) {
    spec.decoder.strip.assign(1, ' ');
    spec.decoder.strip_start = 1;
  }
  read_special_ids(metadata, spec, !unigram, unigram);
}

}  // namespace

TokenizerSpec tokenizer_spec_from_gguf(const GgufMetadata& metadata) {
  TokenizerSpec spec;
  const std::string model = metadata.get_string("tokenizer.ggml.model");
  const bool known = model == "gpt2" || model == "llama" || model == "gemma" || model == "t5";
  require(known, ErrorCode::unsupported,
          "the tokenizer model \"{}\" is not supported; known are gpt2, llama, gemma and t5", model);
  read_vocabulary(metadata, spec);
  if (model == "gpt2")
    read_byte_level(metadata, spec);
  else
    read_sentencepiece(metadata, spec, model == "t5");
  return spec;
}

}  // namespace mneme
