// Text and token ids from the command line, a file (@FILE) or standard input (@-).
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "mneme/tokenizer.h"

namespace mneme::cli {

/// "@FILE" gives the content of FILE, "@-" all of standard input, "@@..." the text with one @ less; anything
/// else is the text itself. Throws Error(not_found | io).
std::string text_argument(const std::string& value);
/// All of standard input. Throws Error(io).
std::string read_stdin();
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
