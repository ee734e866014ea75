// The tokenizer of a checkpoint, wherever it is described: GGUF metadata, or tokenizer.json in a folder.
#pragma once
#include <memory>

#include "mneme/tokenizer.h"
#include "model/checkpoint.h"

namespace mneme {

/// Null if the checkpoint carries none. Throws Error(corrupt | unsupported) for one that cannot be used.
std::unique_ptr<Tokenizer> load_tokenizer(const Checkpoint& checkpoint);

}  // namespace mneme
