#include "text/tokenizer_fingerprint.h"

#include <fmt/format.h>

#include "core/sha256.h"

namespace mneme {
namespace {

// Apart in merges, added spaces, digits, contractions, runs of white space, scripts without spaces, composed
// and decomposed letters, pictographs of several code points, broken bytes.
constexpr std::string_view kProbe =
    "The quick brown fox's 12 jumps over 3,456,789 lazy dogs; don't WE'RE they'll!\n\n\tif (x <= 0x1F) {\r\n"
    "    return \"a_b-c.d\" + 'e';  // \\n }   \n  unbelievably internationalization "
    "antidisestablishmentarianism "
    "Stra\xc3\x9f"
    "e \xc3\xa9 e\xcc\x81 \xe4\xbd\xa0\xe5\xa5\xbd\xe4\xb8\x96\xe7\x95\x8c "
    "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xd7\xa9\xd7\x9c\xd7\x95\xd7\x9d "
    "\xe2\x96\x81\xc4\xa0 \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb \xef\xac\x81 \xff\xc3 end ";

}  // namespace

std::string tokenizer_fingerprint(const Tokenizer& tokenizer) {
  Sha256 sum;
  sum.update(fmt::format("mneme tokenizer 1\n{}\n", tokenizer.vocab_size()));
  for (uint32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string token = tokenizer.token(static_cast<TokenId>(id));
    sum.update(fmt::format("{}\n", token.size())).update(token);
  }
  for (const TokenId id : tokenizer.encode(kProbe, {.add_special = false, .parse_special = false}))
    sum.update(fmt::format(" {}", id));
  return sum.hex();
}

}  // namespace mneme
