// Texts as documents: files, folders and JSON lines become one stream of documents of bounded size, in an
// order that depends on nothing but the names.
//
//   *.jsonl, *.ndjson   one document a line: the string in the member `field`
//   any other file      text. One document, unless it is longer than `piece_bytes`: then it is cut at the
//   last
//                       blank line of each piece (or line, or character), so that gigabytes need little
//                       memory
//   a folder            its files, sorted by path, hidden ones left out, links to folders not followed
//
// What is not text is refused by name: a NUL byte marks binary files (and UTF-16). Invalid UTF-8 is replaced
// by U+FFFD and counted; a file where more than 1 byte in 100 is invalid is in another encoding and refused.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace mneme {

struct DocumentOptions {
  std::string field = "text";                // of JSON lines
  uint64_t piece_bytes = uint64_t{1} << 16;  // a longer text file becomes several documents
  bool skip_binary = false;                  // files that are not text are left out, not refused
};

/// One input file. The stamp tells whether it is still the file that was read.
struct TextFile {
  std::filesystem::path path;
  uint64_t bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  bool json_lines = false;
  bool operator==(const TextFile&) const = default;
};

/// The files behind `paths`, in their order; those of a folder sorted by path. Throws Error(not_found) for a
/// path that is not there, Error(invalid_argument) for an empty list, an empty file or a folder without text.
std::vector<TextFile> list_text_files(const std::vector<std::string>& paths);

/// Reads the documents of one file. Not thread-safe.
class DocumentReader {
 public:
  /// `begin`: a position() of an earlier reader of the same file. Throws Error(not_found | io).
  DocumentReader(const TextFile& file, const DocumentOptions& options, uint64_t begin = 0);
  ~DocumentReader();
  DocumentReader(DocumentReader&&) noexcept;
  DocumentReader& operator=(DocumentReader&&) noexcept;

  /// The next document that is not empty, as valid UTF-8; false at the end. Throws Error(corrupt) with file
  /// and line for JSON that is none, without the field or with a field that is no string; Error(unsupported)
  /// for binary text; Error(limit) for a line beyond 64 MiB; Error(mismatch) if the file became shorter.
  bool next(std::string& document);

  /// Bytes of the file that are done: where the document after the last one begins.
  uint64_t position() const noexcept;
  /// Bytes that were not UTF-8, so far.
  uint64_t invalid_bytes() const noexcept;
  /// True if the file proved to be binary and options.skip_binary left it out.
  bool skipped() const noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mneme
