// What a tokenizer can do that tells the beginning of a text from its middle.
#pragma once
#include <string_view>
#include <vector>

#include "mneme/tokenizer.h"

namespace mneme {

/// Implemented by the tokenizers of tokenizer_spec.h. Thread-safe.
class PieceEncoding {
 public:
  virtual ~PieceEncoding() = default;
  /// Tokenizer::encode() for a piece of a longer text that begins (ends) there or not: where it does not, the
  /// tokens that the post-processor adds on that side are left out, and nothing is put in front of the first
  /// word.
  virtual std::vector<TokenId> encode_piece(std::string_view text, const EncodeOptions& options, bool begins,
                                            bool ends) const = 0;
};

}  // namespace mneme
