#include "model/load_tokenizer.h"

#include <set>

#include "core/fail.h"
#include "model/tokenizer_from_gguf.h"
#include "text/tokenizer_json.h"
#include "text/tokenizer_spec.h"
#include "text/tokenizer_vocab.h"

namespace mneme {
namespace {

/// A checkpoint may pad its embedding beyond the tokenizer. The reverse holds only for added tokens, which a
/// text cannot produce by chance: the tokenizer of Gemma 3 names an image token that its text models have no
/// row for.
void check_fits(const TokenizerSpec& spec, const Checkpoint& checkpoint) {
  const uint32_t vocab = checkpoint.config().vocab;
  if (spec.vocab.size() <= vocab) return;
  std::set<TokenId> added;
  for (const AddedToken& token : spec.added) added.insert(token.id);
  for (size_t id = vocab; id < spec.vocab.size(); ++id)
    require(added.contains(static_cast<TokenId>(id)), ErrorCode::mismatch,
            "the tokenizer of {} has {} tokens, the model only {}", checkpoint.path().string(),
            spec.vocab.size(), vocab);
}

/// tokenizer.json and the files beside it; a template of its own file wins over tokenizer_config.json's.
TokenizerSpec spec_from_folder(const Checkpoint& checkpoint, const std::string& tokenizer_json) {
  TokenizerSpec spec =
      spec_from_tokenizer_json(tokenizer_json, checkpoint.folder_file("tokenizer_config.json"),
                               checkpoint.folder_file("generation_config.json"));
  const std::string chat_template = checkpoint.folder_file("chat_template.jinja");
  if (!chat_template.empty()) spec.chat_template = chat_template;
  return spec;
}

}  // namespace

std::string folder_tokenizer_json(const Checkpoint& checkpoint) {
  std::string json = checkpoint.folder_file("tokenizer.json");
  if (!json.empty()) return json;
  const std::string vocab = checkpoint.folder_file("vocab.json");
  const std::string merges = checkpoint.folder_file("merges.txt");
  const std::string config = checkpoint.folder_file("tokenizer_config.json");
  if (vocab.empty() || merges.empty() || config.empty()) return {};
  return tokenizer_json_from_vocab(vocab, merges, config);
}

std::unique_ptr<Tokenizer> load_tokenizer(const Checkpoint& checkpoint) {
  TokenizerSpec spec;
  if (checkpoint.metadata() != nullptr) {
    if (!checkpoint.metadata()->has("tokenizer.ggml.model")) return nullptr;
    spec = tokenizer_spec_from_gguf(*checkpoint.metadata());
  } else {
    const std::string json = folder_tokenizer_json(checkpoint);
    if (json.empty()) return nullptr;
    spec = spec_from_folder(checkpoint, json);
  }
  check_fits(spec, checkpoint);
  return make_tokenizer(std::move(spec));
}

}  // namespace mneme
