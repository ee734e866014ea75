#include "convert/tokenizer_to_json.h"

#include <algorithm>

#include "core/fail.h"
#include "model/load_tokenizer.h"
#include "model/tokenizer_from_gguf.h"

namespace mneme {
namespace {

using Ordered = nlohmann::ordered_json;
using Normalize = NormalizerStep::Kind;
using Cut = PreTokenizerStep::Kind;

std::string quoted(std::string_view text) {
  return Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    for (size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<uint8_t>(bytes[i + k]) : 0u);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

Ordered normalizer_json(const NormalizerStep& step) {
  switch (step.kind) {
    case Normalize::nfc:
      return {{"type", "NFC"}};
    case Normalize::strip:
      return {{"type", "Strip"}, {"strip_left", step.left}, {"strip_right", step.right}};
    case Normalize::prepend:
      return {{"type", "Prepend"}, {"prepend", step.content}};
    case Normalize::replace:
      return {{"type", "Replace"}, {"pattern", {{"String", step.pattern}}}, {"content", step.content}};
    case Normalize::replace_regex:
      return {{"type", "Replace"}, {"pattern", {{"Regex", step.pattern}}}, {"content", step.content}};
    case Normalize::precompiled:
      return {{"type", "Precompiled"}, {"precompiled_charsmap", base64(step.pattern)}};
    default:
      fail(ErrorCode::unsupported, "this tokenizer's normalizer cannot be written as tokenizer.json");
  }
}

Ordered pre_tokenizer_json(const PreTokenizerStep& step) {
  switch (step.kind) {
    case Cut::split_regex:
      return {{"type", "Split"},
              {"pattern", {{"Regex", step.pattern}}},
              {"behavior", "Isolated"},
              {"invert", false}};
    case Cut::digits:
      return {{"type", "Digits"}, {"individual_digits", step.individual}};
    case Cut::byte_level:
      return {
          {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
    default:
      fail(ErrorCode::unsupported, "this tokenizer's pre-tokenizer cannot be written as tokenizer.json");
  }
}

/// None, one, or a sequence of steps.
template <class Steps, class ToJson>
Ordered sequence(const Steps& steps, const char* plural, const ToJson& to_json) {
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return to_json(steps[0]);
  Ordered list = Ordered::array();
  for (const auto& step : steps) list.push_back(to_json(step));
  return {{"type", "Sequence"}, {plural, list}};
}

Ordered decoder_json(const DecoderSpec& decoder) {
  if (decoder.byte_level)
    return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  Ordered list = Ordered::array();
  for (const auto& [from, to] : decoder.replace)
    list.push_back({{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}});
  if (decoder.byte_fallback) list.push_back({{"type", "ByteFallback"}});
  list.push_back({{"type", "Fuse"}});
  if (decoder.strip_start + decoder.strip_end > 0)
    list.push_back({{"type", "Strip"},
                    {"content", decoder.strip},
                    {"start", decoder.strip_start},
                    {"stop", decoder.strip_end}});
  return {{"type", "Sequence"}, {"decoders", list}};
}

Ordered post_processor_json(const TokenizerSpec& spec) {
  if (spec.prefix.empty() && spec.suffix.empty()) return nullptr;
  Ordered single = Ordered::array(), second = Ordered::array(), special = Ordered::object();
  const auto put = [&](const std::vector<TokenId>& ids) {
    for (const TokenId id : ids) {
      const std::string text(spec.vocab[id]);
      single.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
      second.push_back({{"SpecialToken", {{"id", text}, {"type_id", 1}}}});
      special[text] = {{"id", text}, {"ids", Ordered::array({id})}, {"tokens", Ordered::array({text})}};
    }
  };
  put(spec.prefix);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  second.push_back({{"Sequence", {{"id", "B"}, {"type_id", 1}}}});
  put(spec.suffix);
  Ordered pair = single;
  for (auto& part : second) pair.push_back(part);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

Ordered added_tokens_json(const TokenizerSpec& spec) {
  Ordered out = Ordered::array();
  for (const AddedToken& token : spec.added)
    out.push_back({{"id", token.id},
                   {"content", token.content},
                   {"single_word", token.single_word},
                   {"lstrip", token.lstrip},
                   {"rstrip", token.rstrip},
                   {"normalized", token.normalized},
                   {"special", token.special}});
  return out;
}

/// The merges that a SentencePiece BPE model implies: every way in which two pieces make a third, in the
/// order of the third's score.
std::vector<Merge> merges_of_scores(const TokenizerSpec& spec) {
  std::vector<Merge> out;
  const auto usable = [&](TokenId id) {
    const auto type = spec.types.empty() ? TokenType::normal : spec.types[static_cast<size_t>(id)];
    return id >= 0 && type == TokenType::normal;
  };
  for (TokenId id = 0; spec.vocab.contains(id); ++id) {
    const std::string_view piece = spec.vocab[id];
    if (!usable(id) || spec.vocab.find(piece) != id) continue;
    for (size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<uint8_t>(piece[cut]) & 0xC0) == 0x80) continue;  // inside a character
      const TokenId left = spec.vocab.find(piece.substr(0, cut)), right = spec.vocab.find(piece.substr(cut));
      if (left >= 0 && right >= 0 && usable(left) && usable(right)) out.push_back({left, right, id});
    }
  }
  const auto score = [&](const Merge& merge) { return spec.scores[static_cast<size_t>(merge.result)]; };
  std::stable_sort(out.begin(), out.end(), [&](const Merge& a, const Merge& b) {
    if (score(a) != score(b)) return score(a) > score(b);
    return std::pair(a.left, a.right) < std::pair(b.left, b.right);
  });
  return out;
}

/// By hand, because a document tree of 10^5 members takes seconds.
std::string model_json(const TokenizerSpec& spec) {
  const bool unigram = spec.model == TokenizerModel::unigram;
  std::string vocab;
  for (TokenId id = 0; spec.vocab.contains(id); ++id) {
    const std::string_view piece = spec.vocab[id];
    const bool hidden = spec.vocab.find(piece) != id;  // a hole, or a repeated piece that is never found
    if (hidden && !unigram) continue;
    if (!vocab.empty()) vocab += ',';
    if (unigram)
      vocab += fmt::format("[{},{}]", quoted(piece), spec.scores[static_cast<size_t>(id)]);
    else
      vocab += fmt::format("{}:{}", quoted(piece), id);
  }
  if (unigram)
    return fmt::format(R"({{"type":"Unigram","unk_id":{},"byte_fallback":{},"vocab":[{}]}})",
                       spec.unk < 0 ? "null" : std::to_string(spec.unk), spec.byte_fallback, vocab);
  std::string merges;
  for (const Merge& merge : spec.model == TokenizerModel::bpe ? spec.merges : merges_of_scores(spec))
    merges += fmt::format("{}[{},{}]", merges.empty() ? "" : ",", quoted(spec.vocab[merge.left]),
                          quoted(spec.vocab[merge.right]));
  return fmt::format(R"({{"type":"BPE","dropout":null,"unk_token":{},"continuing_subword_prefix":null,)"
                     R"("end_of_word_suffix":null,"fuse_unk":{},"byte_fallback":{},"ignore_merges":{},)"
                     R"("vocab":{{{}}},"merges":[{}]}})",
                     spec.unk < 0 ? "null" : quoted(spec.vocab[spec.unk]), spec.fuse_unk, spec.byte_fallback,
                     spec.ignore_merges, vocab, merges);
}

HfTokenizerFiles copied_files(const Checkpoint& in) {
  HfTokenizerFiles out;
  out.tokenizer = folder_tokenizer_json(in);
  out.tokenizer_config = in.folder_file("tokenizer_config.json");
  out.generation_config = in.folder_file("generation_config.json");
  const Json config = parse_json(in.folder_file("config.json"), "config.json");
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"})
    if (config.contains(key)) out.special_ids[key] = config[key];
  return out;
}

}  // namespace

std::string tokenizer_json(const TokenizerSpec& spec) {
  const auto text = [](const Ordered& json) {
    return json.dump(-1, ' ', false, Ordered::error_handler_t::replace);
  };
  return fmt::format(
      R"({{"version":"1.0","truncation":null,"padding":null,"added_tokens":{},"normalizer":{},)"
      R"("pre_tokenizer":{},"post_processor":{},"decoder":{},"model":{}}})",
      text(added_tokens_json(spec)), text(sequence(spec.normalizer, "normalizers", normalizer_json)),
      text(sequence(spec.pre_tokenizer, "pretokenizers", pre_tokenizer_json)),
      text(post_processor_json(spec)), text(decoder_json(spec.decoder)), model_json(spec));
}

HfTokenizerFiles tokenizer_files(const Checkpoint& in) {
  if (in.metadata() == nullptr) return copied_files(in);
  HfTokenizerFiles out;
  if (!in.metadata()->has("tokenizer.ggml.model")) return out;
  const TokenizerSpec spec = tokenizer_spec_from_gguf(*in.metadata());
  out.tokenizer = tokenizer_json(spec);
  Ordered config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                    {"model_max_length", in.config().context},
                    {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, TokenId id) {
    if (id >= 0) config[key] = std::string(spec.vocab[id]);
  };
  name("bos_token", spec.bos);
  name("eos_token", spec.eos);
  name("unk_token", spec.unk);
  if (!spec.chat_template.empty()) config["chat_template"] = spec.chat_template;
  out.tokenizer_config = config.dump(2, ' ', false, Ordered::error_handler_t::replace) + "\n";
  if (spec.bos >= 0) out.special_ids["bos_token_id"] = spec.bos;
  if (spec.eos >= 0) out.special_ids["eos_token_id"] = spec.eos;
  Ordered generation = out.special_ids, ends = Ordered::array();
  if (spec.eos >= 0) ends.push_back(spec.eos);
  for (const TokenId id : spec.stop)
    if (id != spec.eos) ends.push_back(id);
  if (ends.size() > 1) generation["eos_token_id"] = ends;
  if (!generation.is_null()) out.generation_config = generation.dump(2) + "\n";
  return out;
}

}  // namespace mneme
