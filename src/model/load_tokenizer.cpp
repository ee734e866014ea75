#include "model/load_tokenizer.h"

#include "core/fail.h"
#include "model/tokenizer_from_gguf.h"
#include "text/tokenizer_spec.h"
#if __has_include("text/tokenizer_json.h")
#include "text/tokenizer_json.h"
#endif

namespace mneme {

std::unique_ptr<Tokenizer> load_tokenizer(const Checkpoint& checkpoint) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (checkpoint.metadata() != nullptr) {
    if (!checkpoint.metadata()->has("tokenizer.ggml.model")) return nullptr;
    tokenizer = make_tokenizer(tokenizer_spec_from_gguf(*checkpoint.metadata()));
  } else {
    const std::string json = checkpoint.folder_file("tokenizer.json");
    if (json.empty()) return nullptr;
#if __has_include("text/tokenizer_json.h")
    tokenizer = make_tokenizer(spec_from_tokenizer_json(json, checkpoint.folder_file("tokenizer_config.json"),
                                                        checkpoint.folder_file("generation_config.json")));
#endif
    if (tokenizer == nullptr) return nullptr;
  }
  // A checkpoint may pad its embedding beyond the tokenizer; the reverse would let a text produce ids without a row.
  require(tokenizer->vocab_size() <= checkpoint.config().vocab, ErrorCode::mismatch,
          "the tokenizer of {} has {} tokens, the model only {}", checkpoint.path().string(), tokenizer->vocab_size(),
          checkpoint.config().vocab);
  return tokenizer;
}

}  // namespace mneme
