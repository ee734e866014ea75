// The BPE trainer beside a naive one that counts all pairs anew for each merge.
#include "text/bpe_trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "mneme/error.h"
#include "stride.h"
#include "text/tokenizer_golden.h"
#include "text/utf8.h"
#include "text/word_model.h"

namespace mneme::bpe_trainer_test {
namespace {

TokenizerSpec train(const std::vector<std::string>& documents, BpeTrainOptions options) {
  BpeTrainer trainer(std::move(options));
  trainer.add(documents);
  return trainer.finish();
}

std::vector<std::string> merges_of(const TokenizerSpec& spec) {
  std::vector<std::string> out;
  for (const Merge& merge : spec.merges)
    out.push_back(std::string(spec.vocab[merge.left]) + " " + std::string(spec.vocab[merge.right]));
  return out;
}

// By the definition: all words, all pairs, the most frequent one with the lowest ids, from the left.
std::vector<std::string> naive_merges(const std::vector<std::string>& documents,
                                      const BpeTrainOptions& options) {
  std::vector<std::string> pieces = options.special;
  for (char32_t code = 0x21; code < 0x144; ++code)
    if (alphabet_to_byte(code) >= 0) append_utf8(pieces.emplace_back(), code);
  const auto id_of = [&](const std::string& piece) {
    return static_cast<int>(std::find(pieces.begin(), pieces.end(), piece) - pieces.begin());
  };
  std::vector<std::vector<int>> words;
  const PreTokenizer cut(bpe_pattern(options.pattern));
  for (const std::string& document : documents) {
    Words found;
    cut.split(document, TextPlace::start, found);
    for (const std::string_view word : found.words) {
      words.emplace_back();
      for (const char c : word) {
        std::string piece;
        append_byte_alphabet(piece, std::string(1, c));
        words.back().push_back(id_of(piece));
      }
    }
  }
  std::vector<std::string> merges;
  while (pieces.size() < options.vocab) {
    std::map<std::pair<int, int>, uint64_t> counts;
    for (const auto& word : words)
      for (size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    auto best = counts.end();
    for (auto at = counts.begin(); at != counts.end(); ++at)
      if (best == counts.end() || at->second > best->second) best = at;
    if (best == counts.end() || best->second < options.least_count) break;
    const auto [left, right] = best->first;
    const std::string piece = pieces[static_cast<size_t>(left)] + pieces[static_cast<size_t>(right)];
    merges.push_back(pieces[static_cast<size_t>(left)] + " " + pieces[static_cast<size_t>(right)]);
    if (id_of(piece) == static_cast<int>(pieces.size())) pieces.push_back(piece);
    for (auto& word : words) {
      std::vector<int> merged;
      for (size_t i = 0; i < word.size();) {
        const bool here = i + 1 < word.size() && word[i] == left && word[i + 1] == right;
        merged.push_back(here ? id_of(piece) : word[i]);
        i += here ? 2 : 1;
      }
      word = merged;
    }
  }
  return merges;
}

// Random words over a few letters: many ties, many runs like "aaaa", and pieces that can be spelled in two
// ways.
std::vector<std::string> few_letters(uint32_t seed, size_t documents) {
  std::mt19937 random(seed);
  std::vector<std::string> out(documents);
  for (std::string& text : out)
    for (int word = 0; word < 12; ++word) {
      const auto length = 1 + random() % 9;
      for (uint32_t i = 0; i < length; ++i) text += "aab\xc3"[random() % 3];
      text += random() % 7 == 0 ? "é 12" : " ";
    }
  return out;
}

TEST(BpeTrainer, MergesEqualThoseOfTheNaiveTrainer) {
  for (const std::string& pattern : bpe_pattern_names())
    for (uint32_t seed = 0; seed < 8; seed += kStride) {
      const BpeTrainOptions options{.vocab = 420, .pattern = pattern, .least_count = seed % 3};
      const auto documents = few_letters(seed, 10 + 20 * (seed % 3));
      ASSERT_EQ(merges_of(train(documents, options)), naive_merges(documents, options))
          << pattern << " " << seed;
    }
  const auto& corpus = golden::corpus();
  std::vector<std::string> natural;
  for (size_t i = 0; i < 150; ++i) natural.push_back(repair_utf8(corpus[i]));
  const BpeTrainOptions options{.vocab = 500};
  const auto merges = naive_merges(natural, options);
  ASSERT_EQ(merges.size(), 500u - 257);
  EXPECT_EQ(merges_of(train(natural, options)), merges);
}

TEST(BpeTrainer, ThreadsAndBatchesDoNotMatter) {
  const auto documents = few_letters(5, 400);
  const auto one = train(documents, {.vocab = 600});
  const auto four = train(documents, {.vocab = 600, .threads = 4});
  EXPECT_EQ(merges_of(one), merges_of(four));
  BpeTrainer trainer({.vocab = 600, .threads = 3});
  for (size_t at = 0; at < documents.size(); at += 7)
    trainer.add(std::span(documents).subspan(at, std::min<size_t>(7, documents.size() - at)));
  EXPECT_EQ(merges_of(trainer.finish()), merges_of(one));
}

TEST(BpeTrainer, MakesATokenizerThatKeepsEveryByte) {
  const auto& corpus = golden::corpus();
  std::vector<std::string> documents;
  for (size_t i = 0; i < corpus.size(); i += 3)
    if (corpus[i].size() < 4096) documents.push_back(repair_utf8(corpus[i]));
  const auto tokenizer = make_tokenizer(
      train(documents, {.vocab = 2048, .special = {"<|endoftext|>", "<|pad|>"}, .threads = 2}));
  EXPECT_EQ(tokenizer->vocab_size(), 2048u);
  EXPECT_EQ(tokenizer->eos(), 0);
  EXPECT_TRUE(tokenizer->is_control(1));
  EXPECT_FALSE(tokenizer->is_control(2));
  EXPECT_EQ(tokenizer->encode("<|pad|>"), std::vector<TokenId>{1});
  size_t bytes = 0, tokens = 0;
  for (const std::string& document : documents) {
    const auto ids = tokenizer->encode(document);
    EXPECT_EQ(tokenizer->decode(ids), document);
    bytes += document.size();
    tokens += ids.size();
  }
  EXPECT_GT(static_cast<double>(bytes) / static_cast<double>(tokens), 1.8);
}

// The reference read the tokenizer.json that this training made (tools/check_bpe_trainer.py).
TEST(BpeTrainer, IdsEqualThoseOfTheReference) {
  const auto& corpus = golden::corpus();
  std::vector<std::string> documents;
  for (size_t i = 0; i < corpus.size(); i += 2) {
    const std::string& line = corpus[i];
    const bool blank = line.find_first_not_of(" \t\r\n\f\v") == std::string::npos;  // no document
    if (is_valid_utf8(line) && !blank && line.size() < 1000 && line.find('\0') == std::string::npos)
      documents.push_back(line);
  }
  for (const std::string& pattern : bpe_pattern_names()) {
    const auto tokenizer =
        make_tokenizer(train(documents, {.vocab = 1024, .pattern = pattern, .threads = 2}));
    std::vector<uint32_t> indices;
    for (uint32_t i = 0; i < corpus.size(); i += 5) indices.push_back(i);
    golden::expect_golden(*tokenizer, "trained_" + pattern, indices);
  }
}

TEST(BpeTrainer, NeverMergesTextIntoASpecialToken) {
  const std::vector<std::string> documents(20, "abc abc abc abd");
  const auto spec = train(documents, {.vocab = 300, .pattern = "gpt2", .special = {"<|end|>", "abc", "ab"}});
  for (const Merge& merge : spec.merges) EXPECT_GE(merge.result, 3);
  EXPECT_FALSE(spec.merges.empty());
  EXPECT_EQ(merges_of(spec), (std::vector<std::string>{"b c", "Ġ a", "Ġa bc", "b d", "Ġa bd"}));
}

TEST(BpeTrainer, ForgetsTheRarestWordsToStayWithinItsMemory) {
  std::vector<std::string> documents;
  for (int i = 0; i < 3000; ++i)
    documents.push_back("common words and " + std::string(1, static_cast<char>('a' + i % 26)) +
                        std::string(1, static_cast<char>('a' + i / 26 % 26)) +
                        std::string(1, static_cast<char>('a' + i / 676)));
  BpeTrainer small({.vocab = 300, .max_words = 1000});
  small.add(documents);
  EXPECT_LE(small.distinct_words(), 1000u);
  EXPECT_GT(small.forgotten_words(), 0u);
  std::vector<std::string> frequent(3000, "common words and");
  frequent.push_back(" and");  // one of the three letters above
  EXPECT_EQ(merges_of(small.finish()), merges_of(train(frequent, {.vocab = 300})));
}

TEST(BpeTrainer, RefusesWhatCannotBe) {
  EXPECT_THROW(BpeTrainer({.vocab = 256}), Error);
  EXPECT_NO_THROW(BpeTrainer({.vocab = 257}));
  EXPECT_THROW(BpeTrainer({.pattern = "gpt3"}), Error);
  EXPECT_THROW(BpeTrainer({.special = {"<|a|>", "<|a|>"}}), Error);
  EXPECT_THROW(BpeTrainer({.special = {"a"}}), Error);
  EXPECT_THROW(BpeTrainer({}).finish(), Error);
  BpeTrainer trainer({.vocab = 300});
  const std::vector<std::string> run{std::string(5000, '=')};
  trainer.add(run);
  EXPECT_EQ(trainer.long_words(), 1u);
  EXPECT_THROW(trainer.finish(), Error);
  BpeTrainer stopped({.vocab = 300, .progress = [](uint64_t, uint64_t) { return false; }});
  const std::vector<std::string> text{"aaaa aaaa"};
  stopped.add(text);
  EXPECT_THROW(stopped.finish(), Error);
}

}  // namespace
}  // namespace mneme::bpe_trainer_test
