#include "cli/input.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"

namespace mneme::cli {
namespace {

bool separates(char c) {
  return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && separates(text.front()) && text.front() != ',') text.remove_prefix(1);
  while (!text.empty() && separates(text.back()) && text.back() != ',') text.remove_suffix(1);
  return text;
}

}  // namespace

std::string read_stdin() {
  std::string text;
  std::string buffer(size_t{1} << 16, '\0');
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(ErrorCode::io, "cannot read standard input: {}", std::strerror(errno));
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
  }
}

std::string text_argument(const std::string& value) {
  if (!value.starts_with('@')) return value;
  if (value.starts_with("@@")) return value.substr(1);
  if (value == "@-") return read_stdin();
  try {
    return read_text_file(value.substr(1), uint64_t{16} << 30);
  } catch (const Error& error) {
    fail(error.code(), "{} (a text that itself begins with @ is written with @@)", error.what());
  }
}

std::vector<TokenId> ids_argument(const std::string& value, std::string_view option) {
  const std::string text = text_argument(value);
  std::string_view rest = trim(text);
  if (rest.starts_with('[') && rest.ends_with(']')) rest = trim(rest.substr(1, rest.size() - 2));
  std::vector<TokenId> ids;
  while (!rest.empty()) {
    size_t end = 0;
    while (end < rest.size() && !separates(rest[end])) ++end;
    const std::string_view word = rest.substr(0, end);
    TokenId id = -1;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || stop != word.data() + word.size() || id < 0)
      throw UsageError(fmt::format(
          "{}: item {} is \"{}\"; token ids are whole numbers from 0 to 2147483647, separated by commas",
          option, ids.size() + 1, word.substr(0, 40)));
    ids.push_back(id);
    size_t commas = 0;  // at most one, with white space around it
    for (; end < rest.size() && separates(rest[end]); ++end) commas += rest[end] == ',' ? 1 : 0;
    rest.remove_prefix(end);
    if (commas > 1 || (rest.empty() && commas > 0))
      throw UsageError(
          fmt::format("{}: no id between or after the commas behind item {}", option, ids.size()));
  }
  if (ids.empty()) throw UsageError(fmt::format("{}: no token id; write for example 1,2,3", option));
  return ids;
}

std::vector<uint64_t> number_list(const std::string& value, std::string_view option, uint64_t least,
                                  uint64_t most) {
  std::vector<uint64_t> numbers;
  for (std::string_view rest = value;;) {
    const size_t comma = rest.find(',');
    const std::string_view word = rest.substr(0, comma);
    uint64_t number = 0;
    const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || stop != word.data() + word.size() || number < least || number > most)
      throw UsageError(fmt::format("{}: \"{}\" is not a whole number from {} to {} (several: 512,2048)",
                                   option, word.substr(0, 40), least, most));
    numbers.push_back(number);
    if (comma == std::string_view::npos) return numbers;
    rest.remove_prefix(comma + 1);
  }
}

void check_ids(const std::vector<TokenId>& ids, uint64_t vocab) {
  for (size_t i = 0; i < ids.size(); ++i)
    require(ids[i] >= 0 && static_cast<uint64_t>(ids[i]) < vocab, ErrorCode::invalid_argument,
            "token id {} at position {} is outside the vocabulary; ids of this model are 0 to {}", ids[i], i,
            vocab - 1);
}

}  // namespace mneme::cli
