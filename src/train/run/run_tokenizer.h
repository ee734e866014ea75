// The tokenizer of a run: read from a file, a folder or a GGUF, and written into every checkpoint.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "core/file.h"
#include "mneme/tokenizer.h"

namespace mneme::train {

struct RunTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::map<std::string, std::string> files;  // name in a Hugging Face folder -> text
  std::string fingerprint;                   // text/tokenizer_fingerprint.h

  /// `path`: a tokenizer.json, a folder that holds one, or a checkpoint (folder or GGUF). Throws
  /// Error(not_found) where there is none, and what reading one throws.
  static RunTokenizer load(const fs::path& path);
  /// Throws Error(mismatch) if it has more tokens than the model. `path` names it.
  void require_fits(uint32_t vocab, const fs::path& path) const;
};

}  // namespace mneme::train
