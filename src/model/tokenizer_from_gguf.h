// The tokenizer that a GGUF file describes under "tokenizer.*".
#pragma once
#include "files/gguf.h"
#include "text/tokenizer_spec.h"

namespace mneme {

/// Reads tokenizer.ggml.model "gpt2" (byte-level BPE; tokenizer.ggml.pre names the pre-tokenizer), "llama"
/// and "gemma" (SentencePiece BPE with scores) and "t5" (unigram). Where GGUF says less than tokenizer.json
/// does (Qwen's NFC, Llama 3's whole-word rule), the rules of the original are filled in by name. Throws
/// Error(corrupt) for missing or contradicting arrays, Error(unsupported) naming another model or
/// pre-tokenizer.
TokenizerSpec tokenizer_spec_from_gguf(const GgufMetadata& metadata);

}  // namespace mneme
