// Text to token ids and back.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mneme {

using TokenId = int32_t;

struct EncodeOptions {
  bool add_special = true;  // the BOS/EOS that the model's own post-processor adds
  bool parse_special =
      true;  // text such as "<|im_end|>" becomes the special token instead of plain characters
};

struct DecodeOptions {
  bool skip_special = false;  // leave control tokens out
};

/// Immutable and thread-safe. Input bytes that are not UTF-8 are accepted: they are treated as U+FFFD, as
/// Hugging Face's `tokenizers` does after lossy decoding.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  /// Bytes of a whole sequence. May end inside a UTF-8 character; see Utf8Stream. Throws Error(out of range
  /// id).
  virtual std::string decode(std::span<const TokenId> ids, const DecodeOptions& options = {}) const = 0;
  /// The raw bytes that one token contributes in the middle of a text (no leading-space stripping). Empty for
  /// control tokens.
  virtual std::string piece(TokenId id) const = 0;
  /// The vocabulary's own spelling, e.g. "Ġthe" or "▁the" or "<0x0A>".
  virtual std::string token(TokenId id) const = 0;

  virtual uint32_t vocab_size() const noexcept = 0;
  virtual TokenId bos() const noexcept = 0;  // -1: none
  virtual TokenId eos() const noexcept = 0;  // -1: none
  /// Every token that ends a turn (eos, eot, end-of-message), sorted.
  virtual std::span<const TokenId> stop_tokens() const noexcept = 0;
  virtual bool is_control(TokenId id) const noexcept = 0;
  /// Id of an exact vocabulary spelling, or -1.
  virtual TokenId find(std::string_view token) const noexcept = 0;
  /// Jinja source from the model file; empty if there is none.
  virtual const std::string& chat_template() const noexcept = 0;
};

/// Holds back the bytes of an unfinished UTF-8 character so that streamed output never cuts one.
class Utf8Stream {
 public:
  /// Adds bytes and returns the longest prefix that ends on a character border; invalid sequences become
  /// U+FFFD.
  std::string push(std::string_view bytes);
  /// What is left at the end (an unfinished character becomes U+FFFD).
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace mneme
