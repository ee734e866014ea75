// The components of tokenizer.json that are small: normalizer, pre-tokenizer, post-processor, decoder.
#include <algorithm>
#include <array>

#include "core/fail.h"
#include "text/tokenizer_json.h"

namespace mneme {

namespace {

using Normalize = NormalizerStep::Kind;
using Cut = PreTokenizerStep::Kind;

const Json& member(const Json& object, std::string_view key, std::string_view what) {
  require(object.is_object(), ErrorCode::corrupt, "tokenizer.json: {} is not an object", what);
  const auto found = object.find(key);
  require(found != object.end(), ErrorCode::corrupt, "tokenizer.json: {} has no \"{}\"", what, key);
  return *found;
}

[[noreturn]] void unsupported(std::string_view stage, std::string_view type) {
  fail(ErrorCode::unsupported, "tokenizer.json: the {} \"{}\" is not supported", stage, type);
}

// {"String": "..."} or {"Regex": "..."}
std::pair<std::string, bool> pattern_of(const Json& object, std::string_view what) {
  const Json& pattern = member(object, "pattern", what);
  require(
      pattern.is_object() && pattern.size() == 1 && (pattern.contains("String") || pattern.contains("Regex")),
      ErrorCode::corrupt, "tokenizer.json: the pattern of {} is neither a String nor a Regex", what);
  const bool regex = pattern.contains("Regex");
  return {json_string(pattern, regex ? "Regex" : "String", what), regex};
}

SplitBehavior behavior_of(const Json& object, std::string_view what) {
  constexpr std::array<std::pair<std::string_view, SplitBehavior>, 5> kNames = {
      {{"Removed", SplitBehavior::removed},
       {"Isolated", SplitBehavior::isolated},
       {"MergedWithPrevious", SplitBehavior::merged_with_previous},
       {"MergedWithNext", SplitBehavior::merged_with_next},
       {"Contiguous", SplitBehavior::contiguous}}};
  const std::string name = json_string(object, "behavior", what);
  for (const auto& [known, value] : kNames)
    if (name == known) return value;
  fail(ErrorCode::unsupported, "tokenizer.json: the behavior \"{}\" of {} is not supported", name, what);
}

std::string decode_base64(std::string_view text) {
  std::string out;
  uint32_t bits = 0, count = 0;
  for (const char c : text) {
    if (c == '=') break;
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    require(value >= 0, ErrorCode::corrupt, "tokenizer.json: precompiled_charsmap is not base64");
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xFF));
    }
  }
  return out;
}

void read_metaspace(const Json& json, PreTokenizerStep& step) {
  step.kind = Cut::metaspace;
  step.pattern = json_string(json, "replacement", "Metaspace");
  step.cut = json_bool(json, "split", true, "Metaspace");
  if (!json.contains("prepend_scheme")) {  // files from before 0.14 have a flag instead
    step.prepend = json_bool(json, "add_prefix_space", true, "Metaspace") ? PreTokenizerStep::Prepend::always
                                                                          : PreTokenizerStep::Prepend::never;
    return;
  }
  const std::string scheme = json_string(json, "prepend_scheme", "Metaspace");
  if (scheme == "always")
    step.prepend = PreTokenizerStep::Prepend::always;
  else if (scheme == "first")
    step.prepend = PreTokenizerStep::Prepend::first;
  else if (scheme == "never")
    step.prepend = PreTokenizerStep::Prepend::never;
  else
    unsupported("prepend_scheme", scheme);
}

}  // namespace

std::string json_type_of(const Json& object, std::string_view what) {
  return json_string(object, "type", what);
}

std::string json_string(const Json& object, std::string_view key, std::string_view what) {
  const Json& value = member(object, key, what);
  require(value.is_string(), ErrorCode::corrupt, "tokenizer.json: \"{}\" of {} is not a string", key, what);
  return value.get<std::string>();
}

bool json_bool(const Json& object, std::string_view key, bool fallback, std::string_view what) {
  require(object.is_object(), ErrorCode::corrupt, "tokenizer.json: {} is not an object", what);
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  require(found->is_boolean(), ErrorCode::corrupt, "tokenizer.json: \"{}\" of {} is not true or false", key,
          what);
  return found->get<bool>();
}

int64_t json_int(const Json& object, std::string_view key, std::string_view what) {
  const Json& value = member(object, key, what);
  const bool fits =
      value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() >> 63 == 0);
  require(fits, ErrorCode::corrupt, "tokenizer.json: \"{}\" of {} is not an integer", key, what);
  return value.get<int64_t>();
}

const Json& json_array(const Json& object, std::string_view key, std::string_view what) {
  const Json& value = member(object, key, what);
  require(value.is_array(), ErrorCode::corrupt, "tokenizer.json: \"{}\" of {} is not a list", key, what);
  return value;
}

void read_normalizer(const Json& json, TokenizerSpec& spec) {
  if (json.is_null()) return;
  const std::string type = json_type_of(json, "the normalizer");
  if (type == "Sequence") {
    for (const Json& part : json_array(json, "normalizers", "the normalizer")) read_normalizer(part, spec);
    return;
  }
  NormalizerStep step;
  constexpr std::array<std::pair<std::string_view, Normalize>, 6> kPlain = {
      {{"NFC", Normalize::nfc},
       {"NFD", Normalize::nfd},
       {"NFKC", Normalize::nfkc},
       {"NFKD", Normalize::nfkd},
       {"Lowercase", Normalize::lowercase},
       {"StripAccents", Normalize::strip_accents}}};
  const auto plain =
      std::find_if(kPlain.begin(), kPlain.end(), [&](const auto& entry) { return entry.first == type; });
  if (plain != kPlain.end()) {
    step.kind = plain->second;
  } else if (type == "Strip") {
    step.kind = Normalize::strip;
    step.left = json_bool(json, "strip_left", true, type);
    step.right = json_bool(json, "strip_right", true, type);
  } else if (type == "Prepend") {
    step.kind = Normalize::prepend;
    step.content = json_string(json, "prepend", type);
  } else if (type == "Replace") {
    const auto [pattern, regex] = pattern_of(json, type);
    step.kind = regex ? Normalize::replace_regex : Normalize::replace;
    step.pattern = pattern;
    step.content = json_string(json, "content", type);
  } else if (type == "Precompiled") {
    step.kind = Normalize::precompiled;
    step.pattern = decode_base64(json_string(json, "precompiled_charsmap", type));
  } else {
    unsupported("normalizer", type);
  }
  spec.normalizer.push_back(std::move(step));
}

void read_pre_tokenizer(const Json& json, TokenizerSpec& spec) {
  if (json.is_null()) return;
  const std::string type = json_type_of(json, "the pre-tokenizer");
  if (type == "Sequence") {
    for (const Json& part : json_array(json, "pretokenizers", "the pre-tokenizer"))
      read_pre_tokenizer(part, spec);
    return;
  }
  PreTokenizerStep step;
  if (type == "ByteLevel") {
    step.kind = Cut::prefix_space;
    if (json_bool(json, "add_prefix_space", true, type)) spec.pre_tokenizer.push_back(step);
    step.kind = Cut::split_regex;
    step.pattern = kGpt2Pattern;
    if (json_bool(json, "use_regex", true, type)) spec.pre_tokenizer.push_back(step);
    step = {};
    step.kind = Cut::byte_level;
  } else if (type == "Split") {
    const auto [pattern, regex] = pattern_of(json, type);
    step.kind = regex ? Cut::split_regex : Cut::split_literal;
    step.pattern = pattern;
    step.behavior = behavior_of(json, type);
    step.invert = json_bool(json, "invert", false, type);
  } else if (type == "Digits") {
    step.kind = Cut::digits;
    step.individual = json_bool(json, "individual_digits", false, type);
  } else if (type == "Metaspace") {
    read_metaspace(json, step);
  } else if (type == "Punctuation") {
    step.kind = Cut::punctuation;
    if (json.contains("behavior")) step.behavior = behavior_of(json, type);
  } else if (type == "Whitespace") {
    step.kind = Cut::whitespace;
  } else if (type == "WhitespaceSplit") {
    step.kind = Cut::whitespace_split;
  } else {
    unsupported("pre-tokenizer", type);
  }
  spec.pre_tokenizer.push_back(std::move(step));
}

namespace {

// "single": what stands before and after the sequence.
void read_template(const Json& json, TokenizerSpec& spec) {
  const Json& specials = member(json, "special_tokens", "TemplateProcessing");
  bool after = false;
  for (const Json& piece : json_array(json, "single", "TemplateProcessing")) {
    require(piece.is_object() && piece.size() == 1, ErrorCode::corrupt,
            "tokenizer.json: a piece of TemplateProcessing is not one Sequence or SpecialToken");
    if (piece.contains("Sequence")) {
      require(!after, ErrorCode::unsupported,
              "tokenizer.json: a template that repeats the text is not supported");
      after = true;
      continue;
    }
    const std::string name =
        json_string(member(piece, "SpecialToken", "TemplateProcessing"), "id", "SpecialToken");
    for (const Json& id : json_array(member(specials, name, "special_tokens"), "ids", "special_tokens")) {
      require(id.is_number_integer() && spec.vocab.contains(id.get<int64_t>()), ErrorCode::corrupt,
              "tokenizer.json: the post-processor's id {} is outside the {} pieces", id.dump(),
              spec.vocab.size());
      (after ? spec.suffix : spec.prefix).push_back(id.get<TokenId>());
    }
  }
  require(after, ErrorCode::unsupported, "tokenizer.json: a template without the text is not supported");
}

// ["</s>", 2]
TokenId pair_id(const Json& json, const char* key, const TokenizerSpec& spec) {
  const Json& pair = json_array(json, key, "the post-processor");
  const bool fine =
      pair.size() == 2 && pair[1].is_number_integer() && spec.vocab.contains(pair[1].get<int64_t>());
  require(fine, ErrorCode::corrupt, "tokenizer.json: \"{}\" of the post-processor is not a piece and its id",
          key);
  return pair[1].get<TokenId>();
}

}  // namespace

void read_post_processor(const Json& json, TokenizerSpec& spec) {
  if (json.is_null()) return;
  const std::string type = json_type_of(json, "the post-processor");
  if (type == "Sequence") {
    for (const Json& part : json_array(json, "processors", "the post-processor"))
      read_post_processor(part, spec);
  } else if (type == "TemplateProcessing") {
    read_template(json, spec);
  } else if (type == "RobertaProcessing" || type == "BertProcessing") {
    spec.prefix.push_back(pair_id(json, "cls", spec));
    spec.suffix.push_back(pair_id(json, "sep", spec));
  } else if (type != "ByteLevel") {  // which moves offsets, never ids
    unsupported("post-processor", type);
  }
}

namespace {

void read_strip(const Json& json, DecoderSpec& decoder) {
  decoder.strip = json_string(json, "content", "Strip");
  const int64_t start = json_int(json, "start", "Strip"), stop = json_int(json, "stop", "Strip");
  require(start >= 0 && start <= 1024 && stop >= 0 && stop <= 1024 && !decoder.strip.empty(),
          ErrorCode::corrupt, "tokenizer.json: the Strip decoder takes {} and {} of \"{}\"", start, stop,
          decoder.strip);
  decoder.strip_start = static_cast<uint32_t>(start);
  decoder.strip_end = static_cast<uint32_t>(stop);
  if (start == 0 && stop == 0) decoder.strip.clear();
}

void read_decoder_step(const Json& json, DecoderSpec& decoder) {
  const std::string type = json_type_of(json, "the decoder");
  require(decoder.strip.empty() || type == "Fuse", ErrorCode::unsupported,
          "tokenizer.json: a {} decoder after Strip is not supported", type);
  if (type == "Sequence") {
    for (const Json& part : json_array(json, "decoders", "the decoder")) read_decoder_step(part, decoder);
  } else if (type == "ByteLevel") {
    decoder.byte_level = true;
  } else if (type == "ByteFallback") {
    decoder.byte_fallback = true;
  } else if (type == "Replace") {
    auto [pattern, regex] = pattern_of(json, "the Replace decoder");
    require(!regex, ErrorCode::unsupported,
            "tokenizer.json: a Replace decoder with a Regex is not supported");
    decoder.replace.emplace_back(std::move(pattern), json_string(json, "content", "the Replace decoder"));
  } else if (type == "Metaspace") {
    PreTokenizerStep step;
    read_metaspace(json, step);
    decoder.replace.emplace_back(step.pattern, " ");
    if (step.prepend != PreTokenizerStep::Prepend::never) {
      decoder.strip.assign(1, ' ');
      decoder.strip_start = 1;
    }
  } else if (type == "Strip") {
    read_strip(json, decoder);
  } else if (type != "Fuse") {
    unsupported("decoder", type);
  }
}

}  // namespace

void read_decoder(const Json& json, TokenizerSpec& spec) {
  if (!json.is_null()) return read_decoder_step(json, spec.decoder);
  // Without a decoder, pieces are simply joined; bytes have to become text all the same.
  for (const PreTokenizerStep& step : spec.pre_tokenizer)
    spec.decoder.byte_level = spec.decoder.byte_level || step.kind == Cut::byte_level;
}

}  // namespace mneme
