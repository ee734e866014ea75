// A text file of any length, in pieces of bounded size that are cut where no tokenizer joins: after a line
// feed between two characters that are not white space. A file up to the piece size comes as one piece.
#pragma once
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace mneme {

class TextPieces {
 public:
  static constexpr size_t kPieceBytes = size_t{4} << 20;

  /// Throws Error: not_found, io.
  explicit TextPieces(const std::filesystem::path& path, size_t piece_bytes = kPieceBytes);

  /// The next piece; empty at the end. A file without such a line feed within a piece is cut after its last
  /// white space there, else at the piece size before an unfinished UTF-8 character. Throws Error(io).
  std::string next();
  uint64_t bytes_read() const noexcept { return read_; }
  uint64_t total_bytes() const noexcept { return total_; }

 private:
  std::filesystem::path path_;
  std::ifstream file_;
  size_t piece_bytes_;
  std::string rest_;  // read and not yet given out
  uint64_t read_ = 0, total_ = 0;
};

}  // namespace mneme
