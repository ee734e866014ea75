// Trains a byte-level BPE tokenizer (Sennrich et al. 2016; bytes as in GPT-2): words are counted, then the
// most frequent pair of neighbouring tokens becomes a token, until the vocabulary is full.
//
// The result depends on the text alone, not on the number of threads: of equally frequent pairs the one with
// the lowest ids (left, then right) is merged first. Ids: the special tokens, the 256 bytes in the order of
// their spelling, the merges. A pair is counted at every place, so "aaa" holds (a, a) twice, and merged from
// the left.
//
// Memory: the distinct words, at most BpeTrainOptions::max_words of them; beyond that the rarest are
// forgotten.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/thread_pool.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_spec.h"

namespace mneme {

/// Names of the known ways to cut text into words: "smollm" (GPT-2 with single digits), "gpt2", "llama3",
/// "qwen2".
const std::vector<std::string>& bpe_pattern_names();
/// The steps behind a name. Throws Error(invalid_argument) naming the nearest known one.
std::vector<PreTokenizerStep> bpe_pattern(std::string_view name);

struct BpeTrainOptions {
  uint32_t vocab = 32768;  // with special tokens and bytes
  std::string pattern = "smollm";
  std::vector<std::string> special = {"<|endoftext|>"};  // the first ends documents (EOS)
  uint64_t least_count = 2;                              // pairs that are rarer are not merged
  uint64_t max_words = uint64_t{1} << 23;                // distinct ones that are held
  int threads = 1;
  /// (merges done, merges in all); returns false to stop with Error(cancelled).
  std::function<bool(uint64_t done, uint64_t total)> progress = {};
};

/// Feed text with add(), then take finish() once. Not thread-safe.
class BpeTrainer {
 public:
  /// Throws Error(invalid_argument): a vocabulary too small for special tokens and bytes or beyond 2^24, an
  /// unknown pattern, an empty or repeated special token.
  explicit BpeTrainer(BpeTrainOptions options);

  /// Counts the words of some documents (valid UTF-8), on all threads.
  void add(std::span<const std::string> documents);
  /// Learns the merges. The vocabulary is smaller than asked for if the text runs out of pairs. Throws
  /// Error(invalid_argument) if no word was added, Error(cancelled).
  TokenizerSpec finish();

  uint64_t words() const noexcept { return total_words_; }
  uint64_t distinct_words() const noexcept { return words_.size(); }
  /// Words of more than kMaxWord bytes, which are passed over: nothing is learned from a megabyte of "=".
  uint64_t long_words() const noexcept { return long_words_; }
  /// Occurrences of words that were forgotten to stay within max_words.
  uint64_t forgotten_words() const noexcept { return forgotten_; }

  static constexpr size_t kMaxWord = 1024;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>()(text); }
  };
  using Counts = std::unordered_map<std::string, uint64_t, Hash, std::equal_to<>>;
  BpeTrainOptions options_;
  PreTokenizer pre_tokenizer_;
  ThreadPool pool_;
  Counts words_;
  uint64_t total_words_ = 0, long_words_ = 0, forgotten_ = 0;
  void forget_rare_words();
};

}  // namespace mneme
