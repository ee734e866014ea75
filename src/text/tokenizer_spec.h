// What a tokenizer is, as plain data: whatever file it came from, it is described by a TokenizerSpec and
// built by make_tokenizer(). The stages are those of Hugging Face's `tokenizers`, in this order:
//
//   text -> added tokens cut out of the raw text -> normalizer -> added tokens cut out of the normalized text
//        -> pre-tokenizer (words) -> model (ids of each word) -> post-processor (BOS, EOS)
//
// SentencePiece models fit the same stages: their normalizer prepends "▁" and replaces spaces by it, there is
// no pre-tokenizer, and the whole text is one word.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/tokenizer.h"
#include "text/vocabulary.h"

namespace mneme {

/// How the ids of one word are found.
enum class TokenizerModel {
  bpe,      // pairs are merged in the order of a list (GPT-2 and Hugging Face's form of Llama 2 and Gemma)
  spm_bpe,  // two neighbours are merged if their concatenation is a piece, best score first (SentencePiece)
  unigram   // the segmentation with the highest sum of scores (Viterbi)
};

/// Values are GGUF's token types.
enum class TokenType : uint8_t {
  undefined = 0,
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool special = false;      // a control token; skipped by DecodeOptions::skip_special
  bool lstrip = false;       // swallows white space to its left
  bool rstrip = false;       // swallows white space to its right
  bool single_word = false;  // only between non-word characters
  bool normalized = false;   // looked for in the normalized text, not in the raw text
};

struct Merge {
  TokenId left, right, result;
};

struct NormalizerStep {
  enum class Kind {
    nfc,
    nfd,
    nfkc,
    nfkd,
    lowercase,
    strip,          // white space at the `left` and/or `right` end
    strip_accents,  // removes nonspacing marks
    prepend,        // `content`, unless the text is empty
    replace,        // literal `pattern` -> `content`
    replace_regex,  // regular expression `pattern` -> `content` (literally)
    precompiled     // SentencePiece's compiled character map, binary, in `pattern`
  };
  Kind kind;
  std::string pattern, content;
  bool left = true, right = true;
};

/// What happens to the separators found by a split.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

struct PreTokenizerStep {
  enum class Kind {
    byte_level,        // the model sees bytes; must be the last step
    prefix_space,      // one space in front, unless there is one
    split_literal,     // `pattern` as it stands
    split_regex,       // `pattern` is a regular expression
    digits,            // digits apart from the rest; each on its own if `individual`
    punctuation,       // ASCII punctuation and \p{P}
    whitespace,        // \w+|[^\w\s]+
    whitespace_split,  // words between white space
    metaspace          // spaces become `pattern` ("▁"), prepended as `prepend` says, then cut before each
  };
  enum class Prepend { never, first, always };
  Kind kind;
  std::string pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;      // the matches are the text and what lies between them the separators
  bool individual = false;  // digits
  bool cut = true;          // metaspace: cut words apart
  Prepend prepend = Prepend::always;
};

/// From pieces back to text, in this order: each piece is mapped (byte alphabet, replacements, "<0x0A>" to a
/// byte), all are joined, then `strip` is removed at both ends of the joined text.
struct DecoderSpec {
  bool byte_level = false;
  bool byte_fallback = false;
  std::vector<std::pair<std::string, std::string>> replace;
  std::string strip;  // one character
  uint32_t strip_start = 0, strip_end = 0;
};

struct TokenizerSpec {
  TokenizerModel model = TokenizerModel::bpe;
  Vocabulary vocab;  // all pieces, added tokens included
  std::vector<double>
      scores;  // per id; spm_bpe and unigram. Ids beyond the end are added tokens without a score
  std::vector<TokenType> types;  // per id, or empty: everything that is not added is normal
  std::vector<Merge> merges;     // bpe, best first
  bool byte_fallback = false;    // an unknown character becomes its bytes "<0x..>"
  bool fuse_unk = false;         // neighbouring unknown characters become one unknown token
  bool ignore_merges = false;    // a word that is a piece is taken whole
  TokenId unk = -1;

  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;
  DecoderSpec decoder;
  std::vector<TokenId> prefix, suffix;  // what the post-processor puts around a text

  TokenId bos = -1, eos = -1;
  std::vector<TokenId> stop;  // further tokens that end a turn; eos is always one
  std::string chat_template;
};

/// Builds a tokenizer. Throws Error(corrupt) for ids outside the vocabulary, merges that do not concatenate,
/// missing scores or pieces, two added tokens with one content; Error(unsupported) for a regular expression
/// that the regex engine refuses or a step in an impossible place; Error(limit) for hostile sizes.
std::unique_ptr<Tokenizer> make_tokenizer(TokenizerSpec spec);

/// Adds the added tokens whose names are known ends of a turn ("<|im_end|>", "<|eot_id|>", ...) to spec.stop.
void add_known_stop_tokens(TokenizerSpec& spec);

/// Fast exact equivalents of the regular expressions of GPT-2, Llama 3 and Qwen 2, as tokenizer.json spells
/// them.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace mneme
