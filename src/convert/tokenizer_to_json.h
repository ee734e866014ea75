// A checkpoint's tokenizer as the files of a Hugging Face folder.
#pragma once
#include <string>

#include "core/json.h"
#include "model/checkpoint.h"
#include "text/tokenizer_spec.h"

namespace mneme {

struct HfTokenizerFiles {
  std::string tokenizer, tokenizer_config, generation_config;  // texts; empty: no such file
  nlohmann::ordered_json special_ids;  // bos_token_id and eos_token_id for config.json, as far as known
};

/// A folder's files are copied as they are; a GGUF tokenizer is described anew.
HfTokenizerFiles tokenizer_files(const Checkpoint& in);

/// tokenizer.json of a spec. SentencePiece BPE models get the merges that their scores imply. Throws
/// Error(unsupported) for a stage that GGUF files do not have.
std::string tokenizer_json(const TokenizerSpec& spec);

}  // namespace mneme
