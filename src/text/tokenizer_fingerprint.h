// The identity of a tokenizer, whatever file it came from.
#pragma once
#include <string>

#include "mneme/tokenizer.h"

namespace mneme {

/// SHA-256 (64 hexadecimal digits) of all spellings, of which tokens are control tokens, of BOS and EOS, and
/// of the ids of a fixed text that exercises merges, words, digits, white space, scripts and broken bytes:
/// two files that make the same ids have the same fingerprint, tokenizer.json and GGUF alike.
std::string tokenizer_fingerprint(const Tokenizer& tokenizer);

}  // namespace mneme
