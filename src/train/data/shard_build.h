// Texts -> token shards. The work is done in pieces of one shard: what is finished survives an interruption,
// and the same call goes on from there. Memory: the tokens of one shard and a few MiB of text.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/file.h"
#include "mneme/tokenizer.h"
#include "text/documents.h"

namespace mneme::train {

struct ShardOptions {
  DocumentOptions documents = {};
  /// Share of the documents that go to the split `validation`, chosen by the hash of their text (so that
  /// copies of a document never lie on both sides). 0: all are for training.
  double validation = 0;
  uint64_t split_seed = 0;
  uint64_t shard_tokens = uint64_t{1} << 24;
  /// Follows every document. -1: the tokenizer's EOS. Throws Error(invalid_argument) if there is neither.
  TokenId end_token = -1;
  int threads = 1;
  /// Set aside a set of other texts, another tokenizer or other options instead of refusing.
  bool rebuild = false;
  /// (bytes of text done, bytes in all). Returns false to stop: Error(cancelled), finished shards are kept.
  std::function<bool(uint64_t done, uint64_t total)> progress = {};
};

struct ShardReport {
  uint64_t train_tokens = 0, validation_tokens = 0;
  uint64_t documents = 0;      // of both splits
  uint64_t text_bytes = 0;     // of both splits
  uint64_t invalid_bytes = 0;  // replaced by U+FFFD
  uint64_t binary_files = 0;   // left out (DocumentOptions::skip_binary)
  uint64_t resumed_bytes = 0;  // of text whose shards were there already
  bool reused = false;         // the finished set was there, for the same texts, tokenizer and options
};

/// Makes `folder` hold the tokens of `inputs` (texts, JSON lines, folders). A finished set of the same texts,
/// tokenizer and options is left as it is. Throws Error(mismatch) for a set of others (see rebuild), what
/// list_text_files() and DocumentReader throw, Error(invalid_argument) if no token comes out, Error(io).
ShardReport build_shards(const std::vector<std::string>& inputs, const Tokenizer& tokenizer,
                         const fs::path& folder, const ShardOptions& options = {});

}  // namespace mneme::train
