// The tokenizer of a Hugging Face folder as GGUF metadata.
#pragma once
#include "files/gguf.h"
#include "model/checkpoint.h"
#include "text/tokenizer_spec.h"

namespace mneme {

/// Adds tokenizer.ggml.* and tokenizer.chat_template from the folder's tokenizer.json, if it has one. Throws
/// Error(unsupported) if GGUF has no name for this kind of tokenizer, or if what was written would give other
/// ids for a sample of many scripts.
void put_tokenizer(const Checkpoint& in, GgufMetadata& out);

/// The metadata of a spec; `vocab` is the number of embedding rows, to which the pieces are padded.
void put_tokenizer(const TokenizerSpec& spec, uint32_t vocab, GgufMetadata& out);

}  // namespace mneme
