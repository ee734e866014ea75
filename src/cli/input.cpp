#include "cli/input.h"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "cli/verb.h"
#include "core/fail.h"
#include "text/stream_encoder.h"

namespace mneme::cli {
namespace {

constexpr size_t kMaxText = size_t{1} << 30;  // as much as a tokenizer takes at once

bool is_white(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/// Reads a list of ids as its text comes in: numbers with white space or one comma between them, [ ] around
/// them all or not.
class IdList {
 public:
  explicit IdList(std::string_view option) : option_(option) {}

  void push(std::string_view text) {
    for (const char c : text) push(c);
  }
  std::vector<TokenId> finish() {
    end_word();
    if (bracket_ == Bracket::open)
      throw UsageError(fmt::format("{}: the list begins with [ and does not end with ]", option_));
    if (commas_ > 0) refuse_end();
    if (ids_.empty()) throw UsageError(fmt::format("{}: no token id; write for example 1,2,3", option_));
    return std::move(ids_);
  }

 private:
  enum class Bracket { none, open, closed };

  std::string_view option_;
  std::vector<TokenId> ids_;
  std::string word_;   // the item that is being read; of an overlong one the beginning
  size_t commas_ = 0;  // since the last item
  Bracket bracket_ = Bracket::none;

  void push(char c) {
    const bool begins = ids_.empty() && word_.empty() && commas_ == 0;
    if (is_white(c)) return end_word();
    if (c == '[' && begins && bracket_ == Bracket::none) {
      bracket_ = Bracket::open;
    } else if (c == ']' && bracket_ == Bracket::open) {
      end_word();
      bracket_ = Bracket::closed;
    } else if (c == ',' && bracket_ != Bracket::closed) {
      end_word();
      if (ids_.empty()) refuse_word();
      if (++commas_ > 1) refuse_end();
    } else {
      if (bracket_ == Bracket::closed) word_ = "]";
      if (word_.size() < 64) word_ += c;
      if (bracket_ == Bracket::closed) refuse_word();
    }
  }

  void end_word() {
    if (word_.empty()) return;
    TokenId id = -1;
    const char* end = word_.data() + word_.size();
    const auto [stop, error] = std::from_chars(word_.data(), end, id);
    if (error != std::errc() || stop != end || id < 0) refuse_word();
    ids_.push_back(id);
    word_.clear();
    commas_ = 0;
  }

  [[noreturn]] void refuse_word() const {
    throw UsageError(fmt::format(
        "{}: item {} is \"{}\"; token ids are whole numbers from 0 to 2147483647, separated by commas",
        option_, ids_.size() + 1, word_.substr(0, 40)));
  }
  [[noreturn]] void refuse_end() const {
    throw UsageError(
        fmt::format("{}: no id between or after the commas behind item {}", option_, ids_.size()));
  }
};

}  // namespace

TextSource::TextSource(const std::string& value) {
  if (!value.starts_with('@')) {
    text_ = value;
  } else if (value.starts_with("@@")) {
    text_ = value.substr(1);
  } else if (value == "@-") {
    stream_.emplace(ByteStream::standard_input());
  } else {
    try {
      stream_.emplace(fs::path(value.substr(1)));
    } catch (const Error& error) {
      fail(error.code(), "{} (a text that itself begins with @ is written with @@)", error.what());
    }
  }
}

std::string_view TextSource::next() {
  if (stream_) return stream_->next();
  return std::exchange(given_, true) ? std::string_view() : std::string_view(text_);
}

std::string read_stdin() {
  return text_argument("@-");
}

std::string text_argument(const std::string& value) {
  std::string text;
  TextSource source(value);
  for (auto piece = source.next(); !piece.empty(); piece = source.next()) {
    require(text.size() + piece.size() <= kMaxText, ErrorCode::limit, "{} holds more than {} bytes of text",
            value.substr(1), kMaxText);
    text.append(piece);
  }
  return text;
}

std::vector<TokenId> encode_argument(const std::string& value, const Tokenizer& tokenizer,
                                     const EncodeOptions& options,
                                     const std::function<void(uint64_t done, uint64_t total)>& progress) {
  std::vector<TokenId> ids;
  TextSource source(value);
  StreamEncoder encoder(tokenizer, options);
  for (auto piece = source.next(); !piece.empty(); piece = source.next()) {
    encoder.push(piece, ids);
    if (progress) progress(source.done(), source.total());
  }
  encoder.finish(ids);
  return ids;
}

std::vector<TokenId> ids_argument(const std::string& value, std::string_view option) {
  IdList list(option);
  TextSource source(value);
  for (auto piece = source.next(); !piece.empty(); piece = source.next()) list.push(piece);
  return list.finish();
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
