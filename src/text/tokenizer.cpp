// The stages of tokenizer_spec.h put together.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/fail.h"
#include "text/added_tokens.h"
#include "text/normalizer.h"
#include "text/piece_encoding.h"
#include "text/pretokenizer.h"
#include "text/tokenizer_check.h"
#include "text/utf8.h"
#include "text/word_model.h"

namespace mneme {

namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Raw tokens see the text as it came, the others see it normalized, and so are their own spellings.
AddedTokenMatcher matcher_of(const std::vector<AddedToken>& added, bool normalized,
                             const Normalizer& normalizer) {
  std::vector<AddedToken> tokens;
  std::vector<std::string> spellings;
  for (const AddedToken& token : added) {
    if (token.normalized != normalized) continue;
    tokens.push_back(token);
    spellings.push_back(normalized ? normalizer(token.content) : token.content);
  }
  return {std::move(tokens), std::move(spellings)};
}

class StagedTokenizer final : public Tokenizer, public PieceEncoding {
 public:
  explicit StagedTokenizer(TokenizerSpec spec)
      : vocab_(std::move(spec.vocab)),
        normalizer_(std::move(spec.normalizer)),
        pre_tokenizer_(std::move(spec.pre_tokenizer)),
        raw_(matcher_of(spec.added, false, normalizer_)),
        normalized_(matcher_of(spec.added, true, normalizer_)),
        decoder_(std::move(spec.decoder)),
        prefix_(std::move(spec.prefix)),
        suffix_(std::move(spec.suffix)),
        stop_(std::move(spec.stop)),
        chat_template_(std::move(spec.chat_template)),
        bos_(spec.bos),
        eos_(spec.eos) {
    switch (spec.model) {
      case TokenizerModel::bpe:
        model_ = make_bpe(spec, vocab_, pre_tokenizer_.byte_level());
        break;
      case TokenizerModel::spm_bpe:
        model_ = make_spm_bpe(spec, vocab_);
        break;
      case TokenizerModel::unigram:
        model_ = make_unigram(spec, vocab_);
        break;
    }
    if (eos_ >= 0) stop_.push_back(eos_);
    std::sort(stop_.begin(), stop_.end());
    stop_.erase(std::unique(stop_.begin(), stop_.end()), stop_.end());
    verbatim_.assign(vocab_.size(), 0);
    control_.assign(vocab_.size(), 0);
    for (size_t id = 0; id < spec.types.size(); ++id) control_[id] = spec.types[id] == TokenType::control;
    for (const AddedToken& token : spec.added) {
      verbatim_[static_cast<size_t>(token.id)] = 1;
      control_[static_cast<size_t>(token.id)] |= static_cast<uint8_t>(token.special);
    }
  }
  // The model and the matchers refer to members.
  StagedTokenizer(const StagedTokenizer&) = delete;
  StagedTokenizer& operator=(const StagedTokenizer&) = delete;

  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override {
    return encode_piece(text, options, true, true);
  }

  std::vector<TokenId> encode_piece(std::string_view text, const EncodeOptions& options, bool begins,
                                    bool ends) const override {
    require(text.size() < kMaxTextBytes, ErrorCode::limit,
            "a text of {} bytes is longer than the limit of {}", text.size(), kMaxTextBytes);
    std::string repaired;
    if (!is_valid_utf8(text)) text = repaired = repair_utf8(text);
    std::vector<TokenId> out;
    out.reserve(text.size() / 4 + prefix_.size() + suffix_.size() + 4);
    if (options.add_special && begins) out = prefix_;
    EncodeState state;
    raw_.split(text, options.parse_special, state.raw);
    for (const Segment& segment : state.raw) {
      if (segment.id >= 0)
        out.push_back(segment.id);
      else
        encode_raw(text.substr(segment.begin, segment.end - segment.begin),
                   segment.begin > 0 ? TextPlace::later
                   : begins          ? TextPlace::start
                                     : TextPlace::middle,
                   options, state, out);
    }
    if (options.add_special && ends) out.insert(out.end(), suffix_.begin(), suffix_.end());
    return out;
  }

  std::string decode(std::span<const TokenId> ids, const DecodeOptions& options) const override {
    std::string out;
    for (const TokenId id : ids) {
      check(id);
      if (!(options.skip_special && is_control(id))) append_piece(id, out);
    }
    for (uint32_t i = 0; i < decoder_.strip_start && out.starts_with(decoder_.strip); ++i)
      out.erase(0, decoder_.strip.size());
    for (uint32_t i = 0; i < decoder_.strip_end && out.ends_with(decoder_.strip); ++i)
      out.erase(out.size() - decoder_.strip.size());
    return out;
  }

  std::string piece(TokenId id) const override {
    check(id);
    std::string out;
    if (!is_control(id)) append_piece(id, out);
    return out;
  }

  std::string token(TokenId id) const override {
    check(id);
    return std::string(vocab_[id]);
  }

  uint32_t vocab_size() const noexcept override { return static_cast<uint32_t>(vocab_.size()); }
  TokenId bos() const noexcept override { return bos_; }
  TokenId eos() const noexcept override { return eos_; }
  std::span<const TokenId> stop_tokens() const noexcept override { return stop_; }
  bool is_control(TokenId id) const noexcept override {
    return vocab_.contains(id) && control_[static_cast<size_t>(id)] != 0;
  }
  TokenId find(std::string_view token) const noexcept override { return vocab_.find(token); }
  const std::string& chat_template() const noexcept override { return chat_template_; }

 private:
  struct EncodeState {
    std::vector<Segment> raw, normalized;
    Words words;
    WordScratch scratch;
  };

  Vocabulary vocab_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  AddedTokenMatcher raw_, normalized_;
  std::unique_ptr<WordModel> model_;
  DecoderSpec decoder_;
  std::vector<TokenId> prefix_, suffix_, stop_;
  std::string chat_template_;
  std::vector<uint8_t> verbatim_;  // per id: an added token, decoded as it is spelled
  std::vector<uint8_t> control_;   // per id
  TokenId bos_, eos_;

  void check(TokenId id) const {
    require(vocab_.contains(id), ErrorCode::invalid_argument,
            "token id {} is outside the vocabulary of {} pieces", id, vocab_.size());
  }

  void encode_raw(std::string_view text, TextPlace place, const EncodeOptions& options, EncodeState& state,
                  std::vector<TokenId>& out) const {
    std::string normalized;
    if (!normalizer_.empty()) text = normalized = normalizer_(text, place != TextPlace::middle);
    normalized_.split(text, options.parse_special, state.normalized);
    for (const Segment& segment : state.normalized) {
      if (segment.id >= 0) {
        out.push_back(segment.id);
        continue;
      }
      pre_tokenizer_.split(text.substr(segment.begin, segment.end - segment.begin),
                           segment.begin == 0 ? place : TextPlace::later, state.words);
      for (const std::string_view word : state.words.words) model_->encode(word, state.scratch, out);
    }
  }

  void append_piece(TokenId id, std::string& out) const {
    const std::string_view spelling = vocab_[id];
    if (decoder_.byte_level && verbatim_[static_cast<size_t>(id)]) {
      out.append(spelling);
    } else if (decoder_.byte_level) {
      append_alphabet_bytes(spelling, out);
    } else if (const int byte = decoder_.byte_fallback ? byte_piece_value(spelling) : -1; byte >= 0) {
      out.push_back(static_cast<char>(byte));
    } else if (decoder_.replace.empty()) {
      out.append(spelling);
    } else {
      std::string text(spelling);
      for (const auto& [from, to] : decoder_.replace) text = replace_all(text, from, to);
      out.append(text);
    }
  }

  // A piece with a character outside the byte alphabet stands for its own UTF-8 bytes.
  static void append_alphabet_bytes(std::string_view spelling, std::string& out) {
    const size_t start = out.size();
    for (size_t at = 0; at < spelling.size();) {
      const Utf8Char c = decode_utf8(spelling.substr(at));
      const int byte = c.valid ? alphabet_to_byte(c.code) : -1;
      if (byte < 0) {
        out.resize(start);
        out.append(spelling);
        return;
      }
      out.push_back(static_cast<char>(byte));
      at += c.length;
    }
  }

  // The value of "<0x41>", or -1.
  static int byte_piece_value(std::string_view spelling) {
    if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return -1;
    int value = 0;
    for (const char c : spelling.substr(3, 2)) {
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                               : -1;
      if (digit < 0) return -1;
      value = value * 16 + digit;
    }
    return value;
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_tokenizer(TokenizerSpec spec) {
  check_tokenizer_spec(spec);
  return std::make_unique<StagedTokenizer>(std::move(spec));
}

}  // namespace mneme
