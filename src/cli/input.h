// Text and token ids from the command line, a file (@FILE) or standard input (@-).
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/byte_stream.h"
#include "mneme/tokenizer.h"

namespace mneme::cli {

/// What a TEXT option stands for, piece by piece, so that a file of any size can be read: see text_argument.
class TextSource {
 public:
  /// Throws Error(not_found | io).
  explicit TextSource(const std::string& value);
  /// The next bytes; empty at the end. Throws Error(io).
  std::string_view next();
  uint64_t done() const noexcept { return stream_ ? stream_->bytes_read() : text_.size(); }
  uint64_t total() const noexcept { return stream_ ? stream_->total_bytes() : text_.size(); }  // 0: unknown

 private:
  std::optional<ByteStream> stream_;
  std::string text_;  // without a stream
  bool given_ = false;
};

/// "@FILE" gives the content of FILE, "@-" all of standard input, "@@..." the text with one @ less; anything
/// else is the text itself. Throws Error(not_found | io), and Error(limit) beyond 1 GiB.
std::string text_argument(const std::string& value);
/// All of standard input. Throws Error(io).
std::string read_stdin();
/// The ids of a text, which is never held as a whole. `progress` is called after each piece: bytes so far and
/// in all (0: unknown); it may throw to stop.
std::vector<TokenId> encode_argument(const std::string& value, const Tokenizer& tokenizer,
                                     const EncodeOptions& options,
                                     const std::function<void(uint64_t done, uint64_t total)>& progress);
/// Ids separated by commas or white space, with or without [ ] around them; `value` may be @FILE or @-.
/// `option` names it in messages. Throws UsageError for anything that is not a non-negative 31-bit number, or
/// if there is no id at all.
std::vector<TokenId> ids_argument(const std::string& value, std::string_view option = "--ids");
/// Numbers separated by commas, e.g. "512,2048". Throws UsageError unless each lies in [least, most].
std::vector<uint64_t> number_list(const std::string& value, std::string_view option, uint64_t least,
                                  uint64_t most);
/// Throws Error(invalid_argument) that names the first id outside [0, vocab).
void check_ids(const std::vector<TokenId>& ids, uint64_t vocab);

}  // namespace mneme::cli
