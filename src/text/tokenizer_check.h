// Validation of a TokenizerSpec before anything is built from it.
#pragma once
#include "text/tokenizer_spec.h"

namespace mneme {

/// Throws Error as described at make_tokenizer().
void check_tokenizer_spec(const TokenizerSpec& spec);

}  // namespace mneme
