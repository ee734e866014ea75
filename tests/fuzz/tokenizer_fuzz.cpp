// tokenizer.json from any bytes: loaded or refused with mneme::Error; what loads encodes and decodes the
// first bytes of the file and a fixed text, and streams the result as valid UTF-8.
#include <algorithm>
#include <cstdlib>

#include "mneme/error.h"
#include "text/tokenizer_json.h"
#include "text/utf8.h"

namespace {

void round_trip(const mneme::Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text);
  mneme::Utf8Stream stream;
  std::string out;
  for (const mneme::TokenId id : ids) out += stream.push(tokenizer.piece(id));
  out += stream.finish();
  if (!mneme::is_valid_utf8(out)) std::abort();  // a bug, not bad input
  tokenizer.decode(ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto tokenizer = mneme::make_tokenizer(mneme::spec_from_tokenizer_json(text));
    round_trip(*tokenizer, "Hello  wörld 123 <s>\xF0\x9F\x98\x80\n\t\xFF abcab");
    round_trip(*tokenizer, text.substr(0, std::min<size_t>(size, 200)));
  } catch (const mneme::Error&) {
  }
  return 0;
}
