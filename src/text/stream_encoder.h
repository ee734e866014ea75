// Tokens of a text that comes in pieces: the same ids as encode() of the whole, in memory that does not grow
// with the text. A SentencePiece model sees a whole text as one word and needs some 50 bytes for each of its
// bytes; a text of four million tokens would take a gigabyte.
//
// The text is cut between lines, else before a space, and only where the tokens do not mind: 256 bytes on
// either side of the cut must have the same ids together and apart. A text in which there is no such place
// for `longest` bytes (a vocabulary whose normalizer strips ends, or a text without any white space) is cut
// behind white space or between two characters there, which may differ from encode() by a token or two.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_encoding.h"

namespace mneme {

class StreamEncoder {
 public:
  static constexpr size_t kPiece = size_t{1} << 17;
  static constexpr size_t kLongest = size_t{16} << 20;

  /// `tokenizer` must outlive the encoder; one that is no PieceEncoding gets the whole text at the end. A
  /// text is cut once `piece` bytes have come, and after every further `piece` bytes in which there was no
  /// place.
  explicit StreamEncoder(const Tokenizer& tokenizer, const EncodeOptions& options = {}, size_t piece = kPiece,
                         size_t longest = kLongest);

  /// Adds a piece of the text, cut anywhere, and appends the ids that are certain by now to `ids`. Throws
  /// what Tokenizer::encode throws.
  void push(std::string_view bytes, std::vector<TokenId>& ids);
  /// Appends the rest. The encoder is not used afterwards.
  void finish(std::vector<TokenId>& ids);

 private:
  const Tokenizer& tokenizer_;
  const PieceEncoding* pieces_;  // null: the tokenizer knows no pieces
  EncodeOptions options_;
  size_t piece_, longest_;
  std::string held_;     // not encoded yet
  size_t searched_ = 0;  // there is no place to cut before this byte of it
  size_t search_at_;     // size of held_ at which to look again
  bool begun_ = false;

  std::vector<TokenId> encode(std::string_view text, bool begins, bool ends) const;
  void encode_held(size_t bytes, bool last, std::vector<TokenId>& ids);
  size_t place_to_cut() const;
  bool may_cut(size_t at) const;
};

}  // namespace mneme
