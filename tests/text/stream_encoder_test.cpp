#include "text/stream_encoder.h"

#include <gmock/gmock.h>

#include <set>

namespace mneme::stream_encoder_test {
namespace {

using testing::ElementsAre;

/// One id a byte. What is special about a place in the text can be told from the ids: see the fields.
class ByteTokenizer final : public Tokenizer, public PieceEncoding {
 public:
  static constexpr TokenId kBegin = 1000, kEnd = 1001, kPair = 1002, kCall = 1003;
  std::set<std::string> joined;  // pairs of bytes that are one token
  bool tells_calls = false;      // every call begins with kCall, so that no cut is possible without a trace
  mutable size_t longest = 0;

  std::vector<TokenId> encode(std::string_view text, const EncodeOptions& options) const override {
    return encode_piece(text, options, true, true);
  }
  std::vector<TokenId> encode_piece(std::string_view text, const EncodeOptions& options, bool begins,
                                    bool ends) const override {
    longest = std::max(longest, text.size());
    std::vector<TokenId> ids;
    if (tells_calls) ids.push_back(kCall);
    if (options.add_special && begins) ids.push_back(kBegin);
    for (size_t i = 0; i < text.size(); ++i) {
      const bool pair = joined.contains(std::string(text.substr(i, 2)));
      ids.push_back(pair ? kPair : static_cast<uint8_t>(text[i]));
      i += pair ? 1 : 0;
    }
    if (options.add_special && ends) ids.push_back(kEnd);
    return ids;
  }
  std::string decode(std::span<const TokenId>, const DecodeOptions&) const override { return {}; }
  std::string piece(TokenId) const override { return {}; }
  std::string token(TokenId) const override { return {}; }
  uint32_t vocab_size() const noexcept override { return 1004; }
  TokenId bos() const noexcept override { return kBegin; }
  TokenId eos() const noexcept override { return kEnd; }
  std::span<const TokenId> stop_tokens() const noexcept override { return {}; }
  bool is_control(TokenId) const noexcept override { return false; }
  TokenId find(std::string_view) const noexcept override { return -1; }
  const std::string& chat_template() const noexcept override { return none_; }

 private:
  std::string none_;
};

std::vector<TokenId> streamed(const Tokenizer& tokenizer, std::string_view text, size_t piece, size_t longest,
                              size_t push) {
  StreamEncoder encoder(tokenizer, {}, piece, longest);
  std::vector<TokenId> ids;
  for (size_t at = 0; at < text.size(); at += push) encoder.push(text.substr(at, push), ids);
  encoder.finish(ids);
  return ids;
}

/// The texts between the calls of a tokenizer that tells them.
std::vector<std::string> pieces_of(std::string_view text, size_t piece, size_t longest) {
  ByteTokenizer tokenizer;
  tokenizer.tells_calls = true;
  std::vector<std::string> out;
  for (const TokenId id : streamed(tokenizer, text, piece, longest, 7)) {
    if (id == ByteTokenizer::kCall) out.emplace_back();
    if (id < 256) out.back() += static_cast<char>(id);
  }
  return out;
}

TEST(StreamEncoder, AShortTextIsEncodedAtOnce) {
  const ByteTokenizer tokenizer;
  EXPECT_THAT(streamed(tokenizer, "ab", 16, 16, 1),
              ElementsAre(ByteTokenizer::kBegin, 'a', 'b', ByteTokenizer::kEnd));
  EXPECT_THAT(streamed(tokenizer, "", 16, 16, 1), ElementsAre(ByteTokenizer::kBegin, ByteTokenizer::kEnd));
}

TEST(StreamEncoder, ALongTextEqualsTheWholeWhateverThePieces) {
  std::string text;
  for (int i = 0; i < 2000; ++i) text += (i % 9 == 0 ? "line\n" : i % 4 == 0 ? "a  b " : "word ");
  ByteTokenizer tokenizer;
  tokenizer.joined = {"\nw", " w", "e\n", "  ", "li"};
  const auto whole = tokenizer.encode(text, {});
  for (const size_t piece : {16u, 50u, 333u, 4000u})
    for (const size_t push : {1u, 13u, 5000u}) {
      tokenizer.longest = 0;
      EXPECT_EQ(streamed(tokenizer, text, piece, 100000, push), whole) << piece << " " << push;
      EXPECT_LE(tokenizer.longest, 2 * piece + 1024);
    }
}

TEST(StreamEncoder, PlacesThatTheTokenizerMindsAreLeftOut) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += "x y\n";
  ByteTokenizer tokenizer;
  tokenizer.joined = {"\nx"};
  EXPECT_EQ(streamed(tokenizer, text, 64, 100000, 10), tokenizer.encode(text, {}));
  tokenizer.joined = {"\nx",
                      "x "};  // no place is left, and the text is not yet long enough to be cut by force
  tokenizer.longest = 0;
  EXPECT_EQ(streamed(tokenizer, text, 64, 100000, 10), tokenizer.encode(text, {}));
  EXPECT_EQ(tokenizer.longest, text.size());
}

TEST(StreamEncoder, ATextWithoutAPlaceIsCutBehindWhiteSpace) {
  EXPECT_THAT(pieces_of("abcdefghi jkl  mnopqrstuv", 16, 16), ElementsAre("abcdefghi jkl  ", "mnopqrstuv"));
}

TEST(StreamEncoder, NeverCutsACharacter) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += i % 3 == 0 ? "é" : i % 3 == 1 ? "中" : "🙂";
  for (size_t longest = 16; longest < 40; ++longest) {
    std::string joined;
    for (const auto& piece : pieces_of(text, 16, longest)) {
      if (piece.empty()) continue;
      EXPECT_NE(static_cast<unsigned char>(piece[0]) & 0xC0u, 0x80u);
      joined += piece;
    }
    EXPECT_EQ(joined, text);
  }
}

TEST(StreamEncoder, BytesThatAreNotTextStillArriveWhole) {
  const std::string text(100, '\x80');
  std::string joined;
  for (const auto& piece : pieces_of(text, 16, 16)) joined += piece;
  EXPECT_EQ(joined, text);
}

}  // namespace
}  // namespace mneme::stream_encoder_test
