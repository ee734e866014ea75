#include "eval/text_pieces.h"

#include <algorithm>
#include <utility>

#include "core/fail.h"

namespace mneme {
namespace {

bool is_space(char c) noexcept {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

// Where to cut `text`, whose last byte belongs to the next piece: see TextPieces::next.
size_t cut_position(const std::string& text) noexcept {
  for (size_t i = text.size() - 1; i-- > 1;)
    if (text[i] == '\n' && !is_space(text[i - 1]) && !is_space(text[i + 1])) return i + 1;
  for (size_t i = text.size() - 1; i-- > 0;)
    if (is_space(text[i])) return i + 1;
  const auto continues = [&](size_t i) { return (static_cast<unsigned char>(text[i]) & 0xC0u) == 0x80u; };
  size_t at = text.size() - 1;
  for (int back = 0; back < 3 && continues(at); ++back) --at;
  return continues(at) ? text.size() - 1 : at;
}

}  // namespace

TextPieces::TextPieces(const std::filesystem::path& path, size_t piece_bytes)
    : path_(path), piece_bytes_(std::max<size_t>(piece_bytes, 16)) {
  std::error_code error;
  require(std::filesystem::exists(path, error), ErrorCode::not_found, "no such file: {}", path.string());
  require(std::filesystem::is_regular_file(path, error), ErrorCode::io,
          "cannot read {}: it is not a regular file", path.string());
  total_ = std::filesystem::file_size(path, error);
  file_.open(path, std::ios::binary);
  require(file_.is_open() && !error, ErrorCode::io, "cannot open {}", path.string());
}

std::string TextPieces::next() {
  const size_t held = rest_.size();
  rest_.resize(piece_bytes_ + 1);
  file_.read(rest_.data() + held, static_cast<std::streamsize>(rest_.size() - held));
  require(!file_.bad(), ErrorCode::io, "cannot read {} at byte {}", path_.string(), read_);
  const auto got = static_cast<size_t>(file_.gcount());
  read_ += got;
  rest_.resize(held + got);
  if (rest_.size() <= piece_bytes_) return std::exchange(rest_, {});
  const size_t cut = cut_position(rest_);
  std::string piece = rest_.substr(0, cut);
  rest_.erase(0, cut);
  return piece;
}

}  // namespace mneme
