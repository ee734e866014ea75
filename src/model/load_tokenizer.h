// The tokenizer of a checkpoint, wherever it is described: GGUF metadata, or in a folder
// tokenizer.json or the files of its older form.
#pragma once
#include <memory>
#include <string>

#include "mneme/tokenizer.h"
#include "model/checkpoint.h"

namespace mneme {

/// Null if the checkpoint carries none. Throws Error(corrupt | unsupported) for one that cannot be used.
std::unique_ptr<Tokenizer> load_tokenizer(const Checkpoint& checkpoint);

/// tokenizer.json of a folder, or what vocab.json, merges.txt and tokenizer_config.json stand for; "" if
/// there is neither. Throws Error(corrupt).
std::string folder_tokenizer_json(const Checkpoint& checkpoint);

}  // namespace mneme
