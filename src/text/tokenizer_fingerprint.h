// The identity of a tokenizer, whatever file it came from.
#pragma once
#include <string>

#include "mneme/tokenizer.h"

namespace mneme {

/// SHA-256 (64 hexadecimal digits) of all spellings and of the ids of a fixed text that exercises merges,
/// words, digits, white space, scripts and broken bytes. A tokenizer.json and a GGUF of one tokenizer have
/// the same.
std::string tokenizer_fingerprint(const Tokenizer& tokenizer);

}  // namespace mneme
