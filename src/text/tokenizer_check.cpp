#include "text/tokenizer_check.h"

#include <array>
#include <cmath>

#include "core/fail.h"
#include "text/utf8.h"

namespace mneme {

namespace {

constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

void check_id(const TokenizerSpec& spec, TokenId id, const char* what) {
  require(spec.vocab.contains(id), ErrorCode::corrupt,
          "the tokenizer's {} id {} is outside its vocabulary of {} pieces", what, id, spec.vocab.size());
}

void check_optional_id(const TokenizerSpec& spec, TokenId id, const char* what) {
  if (id != -1) check_id(spec, id, what);
}

void check_merges(const TokenizerSpec& spec) {
  const Vocabulary& vocab = spec.vocab;
  size_t index = 0;
  for (const Merge& merge : spec.merges) {
    const bool inside =
        vocab.contains(merge.left) && vocab.contains(merge.right) && vocab.contains(merge.result);
    require(inside, ErrorCode::corrupt,
            "merge {} of the tokenizer ({} + {} -> {}) names an id outside its {} pieces", index, merge.left,
            merge.right, merge.result, vocab.size());
    // Lengths tell a file that is out of step; comparing the texts of half a million merges costs 50 ms.
    const std::string_view left = vocab[merge.left], right = vocab[merge.right], whole = vocab[merge.result];
    require(whole.size() == left.size() + right.size(), ErrorCode::corrupt,
            "merge {} of the tokenizer makes \"{}\" of \"{}\" and \"{}\"", index, whole, left, right);
    ++index;
  }
}

void check_scores(const TokenizerSpec& spec) {
  require(!spec.scores.empty() && spec.scores.size() <= spec.vocab.size(), ErrorCode::corrupt,
          "the tokenizer has {} scores for {} pieces", spec.scores.size(), spec.vocab.size());
  for (size_t id = 0; id < spec.scores.size(); ++id)
    require(std::isfinite(spec.scores[id]) && std::abs(spec.scores[id]) < 1e30, ErrorCode::corrupt,
            "the score of piece {} of the tokenizer is {}, not a finite number below 1e30", id,
            spec.scores[id]);
}

void check_added(const TokenizerSpec& spec) {
  Vocabulary seen;
  for (const AddedToken& token : spec.added) {
    check_id(spec, token.id, "added token");
    require(!token.content.empty() && spec.vocab[token.id] == token.content, ErrorCode::corrupt,
            "added token {} is \"{}\" but the vocabulary spells it \"{}\"", token.id, token.content,
            spec.vocab[token.id]);
    require(seen.add(token.content), ErrorCode::corrupt, "the added token \"{}\" is there twice",
            token.content);
  }
}

void check_decoder(const DecoderSpec& decoder) {
  require(decoder.strip.empty() == (decoder.strip_start == 0 && decoder.strip_end == 0), ErrorCode::corrupt,
          "the tokenizer's decoder strips an empty text");
  for (const auto& [from, to] : decoder.replace)
    require(!from.empty() && to.size() <= 256, ErrorCode::corrupt,
            "the tokenizer's decoder replaces \"{}\" by {} bytes", from, to.size());
}

}  // namespace

void check_tokenizer_spec(const TokenizerSpec& spec) {
  require(spec.vocab.size() > 0, ErrorCode::corrupt, "the tokenizer has no pieces");
  require(spec.types.empty() || spec.types.size() == spec.vocab.size(), ErrorCode::corrupt,
          "the tokenizer has {} token types for {} pieces", spec.types.size(), spec.vocab.size());
  check_optional_id(spec, spec.bos, "BOS");
  check_optional_id(spec, spec.eos, "EOS");
  check_optional_id(spec, spec.unk, "unknown-token");
  for (const TokenId id : spec.stop) check_id(spec, id, "end-of-turn");
  for (const TokenId id : spec.prefix) check_id(spec, id, "post-processor");
  for (const TokenId id : spec.suffix) check_id(spec, id, "post-processor");
  if (spec.model == TokenizerModel::bpe)
    check_merges(spec);
  else
    check_scores(spec);
  if (spec.model == TokenizerModel::unigram)
    require(spec.unk >= 0, ErrorCode::corrupt,
            "a unigram tokenizer needs an unknown token, and this has none");
  check_added(spec);
  check_decoder(spec.decoder);
  for (const NormalizerStep& step : spec.normalizer)
    require(step.content.size() <= 256, ErrorCode::limit,
            "a replacement of {} bytes in the tokenizer's normalizer is longer than the limit of 256",
            step.content.size());
  require(spec.normalizer.size() <= 64 && spec.pre_tokenizer.size() <= 64, ErrorCode::limit,
          "the tokenizer has {} normalizer and {} pre-tokenizer steps; the limit is 64",
          spec.normalizer.size(), spec.pre_tokenizer.size());
  require(spec.chat_template.size() <= kMaxTemplateBytes, ErrorCode::limit,
          "the chat template of {} bytes is longer than the limit of {}", spec.chat_template.size(),
          kMaxTemplateBytes);
}

void add_known_stop_tokens(TokenizerSpec& spec) {
  constexpr std::array<std::string_view, 12> kNames = {"<|im_end|>",
                                                       "<|eot_id|>",
                                                       "<|eom_id|>",
                                                       "<end_of_turn>",
                                                       "<|end|>",
                                                       "<|endoftext|>",
                                                       "<|end_of_text|>",
                                                       "<|eot|>",
                                                       "<|return|>",
                                                       "<EOT>",
                                                       "<|END_OF_TURN_TOKEN|>",
                                                       "<turn|>"};
  for (const AddedToken& token : spec.added)
    for (const std::string_view name : kNames)
      if (token.content == name) spec.stop.push_back(token.id);
}

}  // namespace mneme
