// GPT-2's byte alphabet: printable Latin-1 characters stand for themselves, the other 68 bytes for U+0100 and
// on, in byte order.
#include <array>

#include "text/utf8.h"
#include "text/word_model.h"

namespace mneme {

namespace {

struct Alphabet {
  std::array<char32_t, 256> forward{};
  std::array<int16_t, 0x144> backward{};
  constexpr Alphabet() {
    for (auto& entry : backward) entry = -1;
    char32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      forward[byte] = printable ? byte : next++;
      backward[forward[byte]] = static_cast<int16_t>(byte);
    }
  }
};
constexpr Alphabet kAlphabet;

}  // namespace

char32_t byte_to_alphabet(uint8_t byte) noexcept {
  return kAlphabet.forward[byte];
}

int alphabet_to_byte(char32_t code) noexcept {
  return code < kAlphabet.backward.size() ? kAlphabet.backward[code] : -1;
}

void append_byte_alphabet(std::string& out, std::string_view bytes) {
  for (const char c : bytes) append_utf8(out, byte_to_alphabet(static_cast<uint8_t>(c)));
}

std::vector<TokenId> find_byte_pieces(const Vocabulary& vocab) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::vector<TokenId> ids(256);
  std::string piece = "<0x00>";
  for (size_t byte = 0; byte < 256; ++byte) {
    piece[3] = kHex[byte >> 4];
    piece[4] = kHex[byte & 15];
    ids[byte] = vocab.find(piece);
  }
  return ids;
}

}  // namespace mneme
