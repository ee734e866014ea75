#include "text/bpe_trainer.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <queue>
#include <set>

#include "core/fail.h"
#include "core/json_fields.h"
#include "text/utf8.h"
#include "text/word_model.h"

namespace mneme {
namespace {

using Kind = PreTokenizerStep::Kind;

PreTokenizerStep regex_step(std::string_view pattern) {
  PreTokenizerStep step;
  step.kind = Kind::split_regex;
  step.pattern = pattern;
  return step;
}

// What is learned: words as token ids, and where each pair of neighbours stands.
class Merger {
 public:
  Merger(std::vector<std::pair<std::string, uint64_t>> words, const std::array<TokenId, 256>& bytes) {
    words_.reserve(words.size());
    for (auto& [text, count] : words) {
      const auto index = static_cast<uint32_t>(words_.size());
      Word& word = words_.emplace_back();
      word.count = count;
      for (const char c : text) word.ids.push_back(static_cast<uint32_t>(bytes[static_cast<uint8_t>(c)]));
      for (size_t i = 0; i + 1 < word.ids.size(); ++i) {
        Pair& pair = pairs_[key_of(word.ids[i], word.ids[i + 1])];
        pair.count += count;
        if (pair.words.empty() || pair.words.back() != index) pair.words.push_back(index);
      }
    }
    for (const auto& [key, pair] : pairs_) queue_.push({pair.count, key});
  }

  struct Best {
    uint32_t left, right;
    uint64_t count;  // 0: no pair is left
  };

  // The most frequent pair; of several, the one with the lowest ids. Entries whose count has changed since
  // they were queued are put back with what they have now: counts of old pairs only fall, so none is missed.
  Best best() {
    while (!queue_.empty()) {
      const Entry top = queue_.top();
      const auto found = pairs_.find(top.key);
      const uint64_t now = found == pairs_.end() ? 0 : found->second.count;
      if (now == top.count && now > 0 && !refused_.contains(top.key))
        return {static_cast<uint32_t>(top.key >> 32), static_cast<uint32_t>(top.key), now};
      queue_.pop();
      if (now > 0 && now != top.count) queue_.push({now, top.key});
    }
    return {0, 0, 0};
  }

  // Leaves the pair as it is for good.
  void refuse(const Best& best) { refused_.insert(key_of(best.left, best.right)); }

  void merge(const Best& best, uint32_t result) {
    const uint64_t key = key_of(best.left, best.right);
    const std::vector<uint32_t> places = std::move(pairs_[key].words);
    std::vector<uint64_t> fresh;
    for (const uint32_t index : places) merge_word(index, best, result, fresh);
    pairs_.erase(key);
    std::sort(fresh.begin(), fresh.end());
    fresh.erase(std::unique(fresh.begin(), fresh.end()), fresh.end());
    for (const uint64_t made : fresh)
      if (const auto found = pairs_.find(made); found != pairs_.end())
        queue_.push({found->second.count, made});
  }

 private:
  struct Word {
    std::vector<uint32_t> ids;
    uint64_t count = 0;
  };
  struct Pair {
    uint64_t count = 0;
    std::vector<uint32_t> words;  // that held it when it was made; some may have lost it since
  };
  struct Entry {
    uint64_t count, key;
    bool operator<(const Entry& other) const noexcept {  // the queue yields the largest
      return count != other.count ? count < other.count : key > other.key;
    }
  };
  struct KeyHash {
    size_t operator()(uint64_t key) const noexcept {
      key *= 0x9E3779B97F4A7C15ull;
      return key ^ key >> 29;
    }
  };
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair, KeyHash> pairs_;
  std::priority_queue<Entry> queue_;
  std::set<uint64_t> refused_;

  static uint64_t key_of(uint32_t left, uint32_t right) noexcept { return uint64_t{left} << 32 | right; }

  // Takes the word's pairs out of the counts, merges, and puts the new ones in. Words are short.
  void merge_word(uint32_t index, const Best& best, uint32_t result, std::vector<uint64_t>& fresh) {
    Word& word = words_[index];
    const auto holds = [&](size_t i) { return word.ids[i] == best.left && word.ids[i + 1] == best.right; };
    bool found = false;
    for (size_t i = 0; i + 1 < word.ids.size() && !found; ++i) found = holds(i);
    if (!found) return;
    for (size_t i = 0; i + 1 < word.ids.size(); ++i)
      pairs_[key_of(word.ids[i], word.ids[i + 1])].count -= word.count;
    size_t out = 0;
    for (size_t i = 0; i < word.ids.size(); ++out) {
      const bool here = i + 1 < word.ids.size() && holds(i);
      word.ids[out] = here ? result : word.ids[i];
      i += here ? 2 : 1;
    }
    word.ids.resize(out);
    for (size_t i = 0; i + 1 < out; ++i) {
      const uint64_t key = key_of(word.ids[i], word.ids[i + 1]);
      Pair& pair = pairs_[key];
      pair.count += word.count;
      if (word.ids[i] != result && word.ids[i + 1] != result) continue;  // its word is listed already
      fresh.push_back(key);
      if (pair.words.empty() || pair.words.back() != index) pair.words.push_back(index);
    }
  }
};

}  // namespace

const std::vector<std::string>& bpe_pattern_names() {
  static const std::vector<std::string> names = {"smollm", "gpt2", "llama3", "qwen2"};
  return names;
}

std::vector<PreTokenizerStep> bpe_pattern(std::string_view name) {
  std::vector<PreTokenizerStep> steps;
  if (name == "smollm") {
    PreTokenizerStep digits;
    digits.kind = Kind::digits;
    digits.individual = true;
    steps = {digits, regex_step(kGpt2Pattern)};
  } else if (name == "gpt2") {
    steps = {regex_step(kGpt2Pattern)};
  } else if (name == "llama3") {
    steps = {regex_step(kLlama3Pattern)};
  } else if (name == "qwen2") {
    steps = {regex_step(kQwen2Pattern)};
  } else {
    const std::string nearest = nearest_name(name, bpe_pattern_names());
    fail(ErrorCode::invalid_argument, "there is no pattern \"{}\"{}; there are {}", name,
         nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest),
         fmt::format("{}, {}, {} and {}", bpe_pattern_names()[0], bpe_pattern_names()[1],
                     bpe_pattern_names()[2], bpe_pattern_names()[3]));
  }
  PreTokenizerStep bytes;
  bytes.kind = Kind::byte_level;
  steps.push_back(bytes);
  return steps;
}

BpeTrainer::BpeTrainer(BpeTrainOptions options)
    : options_(std::move(options)),
      pre_tokenizer_(bpe_pattern(options_.pattern)),
      pool_(options_.threads, false) {
  const uint64_t least = 256 + options_.special.size();
  require(options_.vocab >= least && options_.vocab <= Vocabulary::kMaxPieces, ErrorCode::invalid_argument,
          "a vocabulary of {} pieces: 256 bytes and {} special tokens need {}, and {} are the most",
          options_.vocab, options_.special.size(), least, Vocabulary::kMaxPieces);
  std::set<std::string> seen;
  for (const std::string& token : options_.special) {
    require(token.size() > 1 && is_valid_utf8(token), ErrorCode::invalid_argument,
            "the special token \"{}\" must have two or more characters, like <|endoftext|>", token);
    require(seen.insert(token).second, ErrorCode::invalid_argument, "the special token \"{}\" is named twice",
            token);
  }
}

void BpeTrainer::add(std::span<const std::string> documents) {
  struct Own {
    Counts counts;
    uint64_t total = 0, too_long = 0;
  };
  std::vector<Own> own(static_cast<size_t>(pool_.size()));
  std::atomic<size_t> next{0};
  pool_.run([&](int thread) {
    Own& mine = own[static_cast<size_t>(thread)];
    Words words;
    for (size_t i = next++; i < documents.size(); i = next++) {
      pre_tokenizer_.split(documents[i], TextPlace::start, words);
      for (const std::string_view word : words.words) {
        ++mine.total;
        if (word.size() > kMaxWord) {
          ++mine.too_long;
        } else if (const auto found = mine.counts.find(word); found != mine.counts.end()) {
          ++found->second;
        } else {
          mine.counts.emplace(word, 1);
        }
      }
    }
  });
  for (Own& part : own) {
    total_words_ += part.total;
    long_words_ += part.too_long;
    for (auto& [word, count] : part.counts) words_[word] += count;
  }
  if (words_.size() > options_.max_words) forget_rare_words();
}

// Down to half of the room, so that it is not done again at once; which words go follows from their counts.
void BpeTrainer::forget_rare_words() {
  for (uint64_t limit = 1; words_.size() > options_.max_words / 2; ++limit) {
    for (auto at = words_.begin(); at != words_.end();) {
      if (at->second <= limit) {
        forgotten_ += at->second;
        at = words_.erase(at);
      } else {
        ++at;
      }
    }
  }
}

TokenizerSpec BpeTrainer::finish() {
  require(!words_.empty(), ErrorCode::invalid_argument,
          "there is no word to learn from; the texts are empty, or each word is longer than {} bytes",
          kMaxWord);
  TokenizerSpec spec;
  for (const std::string& token : options_.special) {
    spec.vocab.add(token);
    spec.added.push_back(
        {.id = static_cast<TokenId>(spec.vocab.size() - 1), .content = token, .special = true});
  }
  if (!options_.special.empty()) spec.eos = 0;
  std::array<TokenId, 256> bytes{};
  for (char32_t code = 0x21; code < 0x144; ++code) {
    const int byte = alphabet_to_byte(code);
    if (byte < 0) continue;
    std::string piece;
    append_utf8(piece, code);
    spec.vocab.add(piece);
    bytes[static_cast<size_t>(byte)] = static_cast<TokenId>(spec.vocab.size() - 1);
  }
  spec.pre_tokenizer = bpe_pattern(options_.pattern);
  spec.decoder.byte_level = true;

  std::vector<std::pair<std::string, uint64_t>> words(words_.begin(), words_.end());
  std::sort(words.begin(), words.end());
  words_.clear();
  Merger merger(std::move(words), bytes);
  const uint64_t wanted = options_.vocab - spec.vocab.size();
  while (spec.vocab.size() < options_.vocab) {
    const Merger::Best best = merger.best();
    if (best.count < std::max<uint64_t>(options_.least_count, 1)) break;
    const auto left = static_cast<TokenId>(best.left), right = static_cast<TokenId>(best.right);
    const std::string piece = std::string(spec.vocab[left]) + std::string(spec.vocab[right]);
    TokenId result = spec.vocab.find(piece);  // there already if two pairs spell the same piece
    if (result >= 0 && static_cast<size_t>(result) < options_.special.size()) {
      merger.refuse(best);  // plain text never becomes a special token
      continue;
    }
    if (result < 0) {
      spec.vocab.add(piece);
      result = static_cast<TokenId>(spec.vocab.size() - 1);
    }
    spec.merges.push_back({left, right, result});
    merger.merge(best, static_cast<uint32_t>(result));
    require(!options_.progress || options_.progress(wanted - (options_.vocab - spec.vocab.size()), wanted),
            ErrorCode::cancelled, "interrupted");
  }
  return spec;
}

}  // namespace mneme
