#include "convert/tokenizer_to_gguf.h"

#include <algorithm>

#include "core/fail.h"
#include "model/load_tokenizer.h"
#include "model/tokenizer_from_gguf.h"
#include "text/tokenizer_json.h"

namespace mneme {
namespace {

// Scripts, case, contractions, digits, runs of spaces, line ends, code and control characters: what tells
// pre-tokenizers apart.
// Its width is not the same to every tool, so it is left as it stands.
// clang-format off
constexpr std::string_view kSample =
    "Hello World, I'm here; they'LL pay $1234567.89!!   (three  spaces)\n\n\tint main() { return x_1 += "
    "0xFF; }\r\n"
    "Grüße, señor Ångström — “naïve” café… Tiếng Việt có dấu. Привет, мир! 你好，世界。日本語のテスト 한국어 "
    "مرحبا بالعالم नमस्ते दुनिया ไทย 😀👩‍👩‍👧 e\u0301 \u00a0nbsp\u200b 3.14e-10 ½ ² "
    "<b>x</b> "
    " "
    " ";
// clang-format on

bool has_step(const TokenizerSpec& spec, NormalizerStep::Kind kind) {
  return std::any_of(spec.normalizer.begin(), spec.normalizer.end(),
                     [&](auto& step) { return step.kind == kind; });
}

/// tokenizer.ggml.pre of a byte-level BPE model.
std::string pre_tokenizer_name(const TokenizerSpec& spec) {
  bool digits = false;
  std::string_view pattern;
  for (const auto& step : spec.pre_tokenizer) {
    if (step.kind == PreTokenizerStep::Kind::digits) digits = true;
    if (step.kind == PreTokenizerStep::Kind::split_regex) pattern = step.pattern;
  }
  if (pattern == kGpt2Pattern) return digits ? "smollm" : "gpt-2";
  if (pattern == kLlama3Pattern) return spec.ignore_merges ? "llama-bpe" : "dbrx";
  if (pattern == kQwen2Pattern) return has_step(spec, NormalizerStep::Kind::nfc) ? "qwen2" : "stablelm2";
  fail(ErrorCode::unsupported, "tokenizer.json: GGUF has no name for the pre-tokenizer with the pattern {}",
       pattern.substr(0, 120));
}

std::vector<int64_t> token_types(const TokenizerSpec& spec, size_t size) {
  std::vector<int64_t> types(size, static_cast<int64_t>(TokenType::normal));
  const auto set = [&](size_t id, TokenType type) { types[id] = static_cast<int64_t>(type); };
  for (size_t id = 0; id < size; ++id) {
    if (id >= spec.vocab.size() || spec.vocab[static_cast<TokenId>(id)].empty())
      set(id, TokenType::unused);
    else if (id < spec.types.size())
      set(id, spec.types[id]);
  }
  for (int byte = 0; spec.byte_fallback && byte < 256; ++byte)
    if (const TokenId id = spec.vocab.find(fmt::format("<0x{:02X}>", byte)); id >= 0)
      set(static_cast<size_t>(id), TokenType::byte);
  for (const auto& token : spec.added)
    set(static_cast<size_t>(token.id), token.special ? TokenType::control : TokenType::user_defined);
  if (spec.unk >= 0) set(static_cast<size_t>(spec.unk), TokenType::unknown);
  return types;
}

/// Scores that make SentencePiece's rule (best piece first) follow the order of a list of merges.
std::vector<double> scores_of_merges(const TokenizerSpec& spec, size_t size) {
  std::vector<double> scores(size, -static_cast<double>(spec.merges.size()) - 1);
  for (size_t rank = spec.merges.size(); rank-- > 0;)
    scores[static_cast<size_t>(spec.merges[rank].result)] = -static_cast<double>(rank);
  return scores;
}

void put_pieces(const TokenizerSpec& spec, size_t size, GgufMetadata& out) {
  std::vector<std::string> tokens(size);
  for (size_t id = 0; id < size; ++id) {
    if (id < spec.vocab.size()) tokens[id] = spec.vocab[static_cast<TokenId>(id)];
    if (tokens[id].empty()) tokens[id] = fmt::format("[PAD{}]", id);
  }
  out.set("tokenizer.ggml.tokens", std::move(tokens));
  out.set("tokenizer.ggml.token_type", token_types(spec, size));
}

void put_byte_level(const TokenizerSpec& spec, GgufMetadata& out) {
  out.set("tokenizer.ggml.model", std::string("gpt2"));
  out.set("tokenizer.ggml.pre", pre_tokenizer_name(spec));
  std::vector<std::string> merges;
  merges.reserve(spec.merges.size());
  for (const auto& merge : spec.merges)
    merges.push_back(fmt::format("{} {}", spec.vocab[merge.left], spec.vocab[merge.right]));
  out.set("tokenizer.ggml.merges", std::move(merges));
}

void put_sentencepiece(const TokenizerSpec& spec, size_t size, GgufMetadata& out) {
  const bool unigram = spec.model == TokenizerModel::unigram;
  out.set("tokenizer.ggml.model", std::string(unigram ? "t5" : "llama"));
  std::vector<double> scores = spec.model == TokenizerModel::bpe ? scores_of_merges(spec, size) : spec.scores;
  scores.resize(size, -1e4);
  out.set("tokenizer.ggml.scores", std::move(scores));
  out.set("tokenizer.ggml.add_space_prefix", has_step(spec, NormalizerStep::Kind::prepend));
  for (const auto& step : spec.normalizer) {
    if (step.kind != NormalizerStep::Kind::precompiled) continue;
    std::vector<uint64_t> bytes;
    for (const char c : step.pattern) bytes.push_back(static_cast<uint8_t>(c));
    out.set("tokenizer.ggml.precompiled_charsmap", std::move(bytes));
  }
}

void put_id(const char* key, TokenId id, GgufMetadata& out) {
  if (id >= 0) out.set(key, static_cast<uint64_t>(id));
}

void check_same(const Tokenizer& folder, const Tokenizer& gguf) {
  const auto want = folder.encode(kSample), got = gguf.encode(kSample);
  const auto differ = std::mismatch(want.begin(), want.end(), got.begin(), got.end());
  require(want == got, ErrorCode::unsupported,
          "tokenizer.json: GGUF metadata cannot say what this tokenizer does; a sample text differs from "
          "token {} on",
          differ.first - want.begin());
}

}  // namespace

void put_tokenizer(const TokenizerSpec& spec, uint32_t vocab, GgufMetadata& out) {
  const size_t size = std::max<size_t>(spec.vocab.size(), vocab);
  put_pieces(spec, size, out);
  if (spec.model == TokenizerModel::bpe && spec.decoder.byte_level)
    put_byte_level(spec, out);
  else
    put_sentencepiece(spec, size, out);
  put_id("tokenizer.ggml.bos_token_id", spec.bos, out);
  put_id("tokenizer.ggml.eos_token_id", spec.eos, out);
  put_id("tokenizer.ggml.unknown_token_id", spec.unk, out);
  for (const TokenId id : spec.stop)
    if (id != spec.eos && !out.has("tokenizer.ggml.eot_token_id"))
      put_id("tokenizer.ggml.eot_token_id", id, out);
  // BOS and EOS are known by id here and by their place around a text in tokenizer.json.
  if (spec.bos < 0 && !spec.prefix.empty()) put_id("tokenizer.ggml.bos_token_id", spec.prefix.front(), out);
  if (spec.eos < 0 && !spec.suffix.empty()) put_id("tokenizer.ggml.eos_token_id", spec.suffix.front(), out);
  out.set("tokenizer.ggml.add_bos_token", !spec.prefix.empty());
  out.set("tokenizer.ggml.add_eos_token", !spec.suffix.empty());
  if (!spec.chat_template.empty()) out.set("tokenizer.chat_template", spec.chat_template);
}

void put_tokenizer(const Checkpoint& in, GgufMetadata& out) {
  const std::string json = folder_tokenizer_json(in);
  if (json.empty()) return;
  TokenizerSpec spec = spec_from_tokenizer_json(json, in.folder_file("tokenizer_config.json"),
                                                in.folder_file("generation_config.json"));
  put_tokenizer(spec, in.config().vocab, out);
  TokenizerSpec back = tokenizer_spec_from_gguf(out);
  check_same(*make_tokenizer(std::move(spec)), *make_tokenizer(std::move(back)));
}

}  // namespace mneme
