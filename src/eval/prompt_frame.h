// What stands around the text that a model is to read: its chat template, or nothing but a begin-of-text.
#pragma once
#include <vector>

#include "mneme/tokenizer.h"

namespace mneme {

struct PromptFrame {
  std::vector<TokenId> open, close;
};

/// The text as a user's only turn, with the start of an answer after `close`. Throws what ChatTemplate
/// throws, and Error(unsupported) if the template changes the text or shows it more than once.
PromptFrame chat_frame(const Tokenizer& tokenizer);
/// The text as it is.
PromptFrame raw_frame(const Tokenizer& tokenizer);

}  // namespace mneme
