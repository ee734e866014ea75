#include "text/documents.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "core/fail.h"
#include "core/json.h"
#include "text/utf8.h"

namespace mneme {

namespace fs = std::filesystem;

namespace {

constexpr uint64_t kReadBytes = uint64_t{1} << 20;
constexpr uint64_t kMaxLine = uint64_t{64} << 20;
constexpr uint64_t kInvalidAlways = 16;  // so few broken bytes are replaced whatever the size of the file
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

TextFile stamp_of(const fs::path& path) {
  struct stat info {};
  require(::stat(path.c_str(), &info) == 0, errno == ENOENT ? ErrorCode::not_found : ErrorCode::io,
          "cannot read {}: {}", path.string(), std::strerror(errno));
  const std::string extension = path.extension().string();
  return {path, static_cast<uint64_t>(info.st_size),
          std::max<int64_t>(0, int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec),
          extension == ".jsonl" || extension == ".ndjson"};
}

void add_folder(const fs::path& folder, std::vector<TextFile>& files) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::recursive_directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().filename().string().starts_with('.')) {
      if (at->is_directory()) at.disable_recursion_pending();
    } else if (at->is_regular_file()) {
      found.push_back(at->path());
    }
  }
  require(!error, ErrorCode::io, "cannot list {}: {}", folder.string(), error.message());
  std::sort(found.begin(), found.end());
  const size_t before = files.size();
  for (const fs::path& path : found)
    if (TextFile file = stamp_of(path); file.bytes > 0) files.push_back(std::move(file));
  require(files.size() > before, ErrorCode::invalid_argument, "{}: the folder holds no file with text",
          folder.string());
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f\v") == std::string_view::npos;
}

uint64_t count_invalid(std::string_view text) {
  uint64_t count = 0;
  while (!text.empty()) {
    const Utf8Char c = decode_utf8(text);
    if (!c.valid) count += c.length;
    text.remove_prefix(c.length);
  }
  return count;
}

// Where a piece of at most text.size() bytes ends: after the last blank line, or line, of its second half, or
// at the border of a character.
size_t piece_end(std::string_view text) {
  const size_t half = text.size() / 2;
  for (const std::string_view mark : {std::string_view("\n\n"), std::string_view("\n")})
    if (const size_t found = text.rfind(mark); found != std::string_view::npos && found >= half)
      return found + mark.size();
  const size_t end = text.size() - unfinished_utf8(text);
  return end > 0 ? end : text.size();
}

}  // namespace

std::vector<TextFile> list_text_files(const std::vector<std::string>& paths) {
  require(!paths.empty(), ErrorCode::invalid_argument,
          "no text is named; name files, folders or JSON lines (*.jsonl)");
  std::vector<TextFile> files;
  for (const std::string& name : paths) {
    const fs::path path(name);
    std::error_code error;
    if (fs::is_directory(path, error)) {
      add_folder(path, files);
      continue;
    }
    TextFile file = stamp_of(path);
    require(fs::is_regular_file(path, error), ErrorCode::invalid_argument, "{} is no file or folder", name);
    require(file.bytes > 0, ErrorCode::invalid_argument, "{} is empty; name a file with text", name);
    files.push_back(std::move(file));
  }
  return files;
}

struct DocumentReader::State {
  State(const TextFile& text, const DocumentOptions& wanted, uint64_t begin)
      : file(text), options(wanted), in(text.path, std::ios::binary), position(begin) {
    require(in.is_open(), fs::exists(text.path) ? ErrorCode::io : ErrorCode::not_found, "cannot read {}: {}",
            text.path.string(), std::strerror(errno));
    require(begin <= file.bytes, ErrorCode::mismatch,
            "{} has {} bytes, but was read up to byte {}; it changed", file.path.string(), file.bytes, begin);
    options.piece_bytes = std::max<uint64_t>(options.piece_bytes, 16);
    if (file.json_lines) count_lines(begin);
    in.seekg(static_cast<std::streamoff>(begin));
  }

  TextFile file;
  DocumentOptions options;
  std::ifstream in;
  std::string buffer;  // from `at` on: read, but not given out
  size_t at = 0;
  uint64_t position;  // of buffer[at] in the file
  uint64_t line = 0;  // lines before it
  uint64_t taken = 0, invalid = 0;
  bool ended = false, skipped = false;

  // For messages of a reader that begins in the middle.
  void count_lines(uint64_t end) {
    std::string part;
    for (uint64_t done = 0; done < end; done += part.size()) {
      part.resize(std::min(kReadBytes, end - done));
      in.read(part.data(), static_cast<std::streamsize>(part.size()));
      require(static_cast<size_t>(in.gcount()) == part.size(), ErrorCode::mismatch, "{}: became shorter",
              file.path.string());
      line += static_cast<uint64_t>(std::count(part.begin(), part.end(), '\n'));
    }
  }

  std::string_view rest() const { return std::string_view(buffer).substr(at); }

  // At least `bytes` of rest(), or all there is.
  void want(uint64_t bytes) {
    if (rest().size() >= bytes || ended) return;
    buffer.erase(0, at);
    at = 0;
    while (buffer.size() < bytes && !ended) {
      const size_t before = buffer.size();
      buffer.resize(before + std::max(kReadBytes, bytes - before));
      in.read(buffer.data() + before, static_cast<std::streamsize>(buffer.size() - before));
      buffer.resize(before + static_cast<size_t>(in.gcount()));
      ended = in.eof();
      require(ended || in.good(), ErrorCode::io, "cannot read {}: {}", file.path.string(),
              std::strerror(errno));
    }
    require(!ended || position + rest().size() >= file.bytes, ErrorCode::mismatch,
            "{} had {} bytes and has {} now; it changed while it was read", file.path.string(), file.bytes,
            position + rest().size());
  }

  void skip(size_t bytes) {
    at += bytes;
    position += bytes;
  }

  // Valid UTF-8 in place of `raw`; false if the file is binary and is to be left out.
  bool check(std::string_view raw, std::string& text) {
    if (const size_t nul = raw.find('\0'); nul != std::string_view::npos) {
      require(
          options.skip_binary, ErrorCode::unsupported,
          "{} is not text: byte {} is zero, so it is binary or UTF-16; leave it out, or convert it to UTF-8",
          file.path.string(), position + nul);
      skipped = true;
      return false;
    }
    taken += raw.size();
    if (is_valid_utf8(raw)) {
      text.assign(raw);
      return true;
    }
    invalid += count_invalid(raw);
    require(invalid <= kInvalidAlways || invalid <= taken / 100, ErrorCode::unsupported,
            "{} is not UTF-8: {} of the first {} bytes are invalid; convert it (iconv -t UTF-8)",
            file.path.string(), invalid, taken);
    text = repair_utf8(raw);
    return true;
  }

  bool next_piece(std::string& document) {
    want(options.piece_bytes + 1);
    if (position == 0 && rest().starts_with(kByteOrderMark)) skip(kByteOrderMark.size());
    const std::string_view all = rest();
    if (all.empty()) return false;
    const size_t end =
        all.size() <= options.piece_bytes ? all.size() : piece_end(all.substr(0, options.piece_bytes));
    if (!check(all.substr(0, end), document)) return false;
    skip(end);
    return true;
  }

  bool next_line(std::string& document) {
    uint64_t wanted = kReadBytes;
    want(wanted);
    size_t end = rest().find('\n');
    while (end == std::string_view::npos && !ended) {
      const size_t searched = rest().size();
      require(searched <= kMaxLine, ErrorCode::limit, "{}: line {} is longer than {} MiB", file.path.string(),
              line + 1, kMaxLine >> 20);
      want(wanted = searched + kReadBytes);
      end = rest().find('\n', searched);
    }
    if (rest().empty()) return false;
    const size_t used = end == std::string_view::npos ? rest().size() : end + 1;
    std::string text;
    if (!check(rest().substr(0, used), text)) return false;
    document = is_blank(text) ? std::string() : member_of(text);
    skip(used);
    ++line;
    return true;
  }

  std::string member_of(const std::string& text) const {
    const std::string what = fmt::format("{}, line {}", file.path.string(), line + 1);
    const Json json = parse_json(text, what);
    require(json.is_object(), ErrorCode::corrupt, "{}: a JSON object with the member \"{}\" is wanted", what,
            options.field);
    const auto found = json.find(options.field);
    if (found == json.end()) {
      std::string names;
      for (const auto& [name, value] : json.items())
        names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", name);
      fail(ErrorCode::corrupt, "{}: there is no member \"{}\"; there is {}", what, options.field,
           names.empty() ? "none" : names);
    }
    require(found->is_string(), ErrorCode::corrupt, "{}: the member \"{}\" is no string", what,
            options.field);
    return found->get<std::string>();
  }
};

DocumentReader::DocumentReader(const TextFile& file, const DocumentOptions& options, uint64_t begin)
    : state_(std::make_unique<State>(file, options, begin)) {}
DocumentReader::~DocumentReader() = default;
DocumentReader::DocumentReader(DocumentReader&&) noexcept = default;
DocumentReader& DocumentReader::operator=(DocumentReader&&) noexcept = default;

bool DocumentReader::next(std::string& document) {
  State& state = *state_;
  do {
    if (state.skipped) return false;
    if (!(state.file.json_lines ? state.next_line(document) : state.next_piece(document))) return false;
  } while (is_blank(document));
  return true;
}

uint64_t DocumentReader::position() const noexcept {
  return state_->position;
}

uint64_t DocumentReader::invalid_bytes() const noexcept {
  return state_->invalid;
}

bool DocumentReader::skipped() const noexcept {
  return state_->skipped;
}

}  // namespace mneme
