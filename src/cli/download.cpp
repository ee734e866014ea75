#include "cli/download.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "core/fail.h"
#include "core/file.h"
#include "core/json.h"
#include "core/sha256.h"

namespace mneme::cli {
namespace {

bool is_sha256(std::string_view text) {
  return text.size() == 64 &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

std::string sha256_of(const fs::path& path, const CancelToken* cancel) {
  return sha256_file(path,
                     [cancel](uint64_t, uint64_t) { return cancel == nullptr || !cancel->cancelled(); });
}

/// The growing file and what it belongs to. Holds a lock while it lives.
class PartFile {
 public:
  explicit PartFile(const fs::path& target)
      : target_(target), path_(target.string() + ".part"), note_(target.string() + ".part.json") {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
    require(fd_ >= 0, ErrorCode::io, "cannot write {}: {}", path_.string(), std::strerror(errno));
    if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
      ::close(fd_);
      fail(ErrorCode::limit, "{} is being fetched by another process", target.string());
    }
    const off_t end = ::lseek(fd_, 0, SEEK_END);
    size_ = end > 0 ? static_cast<uint64_t>(end) : 0;
    try {
      const Json note = parse_json(read_text_file(note_, 1 << 16), note_.string());
      if (note.is_object() && note.contains("identity") && note["identity"].is_string())
        identity_ = note["identity"].get<std::string>();
    } catch (const Error&) {
      identity_.clear();  // no note, or a damaged one: the part cannot be trusted
    }
    if (identity_.empty()) truncate();
  }
  ~PartFile() { ::close(fd_); }
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  uint64_t size() const { return size_; }
  const std::string& identity() const { return identity_; }
  const fs::path& path() const { return path_; }

  /// From now on the part belongs to this content.
  void set_identity(const std::string& identity) {
    if (identity == identity_) return;
    AtomicFile note(note_);
    note.write(Json{{"identity", identity}}.dump());
    note.commit();
    identity_ = identity;
  }

  void truncate() {
    require(::ftruncate(fd_, 0) == 0 && ::lseek(fd_, 0, SEEK_SET) == 0, ErrorCode::io, "cannot write {}: {}",
            path_.string(), std::strerror(errno));
    size_ = 0;
  }

  void append(std::string_view data) {
    while (!data.empty()) {
      const ssize_t n = ::write(fd_, data.data(), data.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        const int error = errno;
        const bool full = error == ENOSPC || error == EDQUOT;
        if (full) remove();
        fail(ErrorCode::io, "cannot write {}: {}{}", path_.string(), std::strerror(error),
             full ? " (what had arrived was removed; free some space and run the command again)" : "");
      }
      data.remove_prefix(static_cast<size_t>(n));
      size_ += static_cast<uint64_t>(n);
    }
  }

  void remove() {
    ::unlink(path_.c_str());
    ::unlink(note_.c_str());
  }

  /// The part becomes the target.
  void finish() {
    require(::fsync(fd_) == 0, ErrorCode::io, "cannot write {}: {}", path_.string(), std::strerror(errno));
    fs::rename(path_, target_);
    ::unlink(note_.c_str());
    if (const int folder = ::open(target_.parent_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        folder >= 0) {
      ::fsync(folder);
      ::close(folder);
    }
  }

 private:
  fs::path target_, path_, note_;
  int fd_ = -1;
  uint64_t size_ = 0;
  std::string identity_;
};

enum class Step { done, again, restart };

class Download {
 public:
  explicit Download(const DownloadRequest& request)
      : request_(request), part_(request.target), total_(request.bytes), sha256_(lower(request.sha256)) {}

  DownloadResult run() {
    int fruitless = 0, restarts = 0;
    for (;;) {
      const uint64_t before = received_;
      const Step step = attempt();
      if (step == Step::done) {
        if (verify(restarts)) break;
        ++restarts;
      } else if (step == Step::restart) {
        require(++restarts <= 3, ErrorCode::network, "{}: the host keeps changing the file; try again later",
                name());
        part_.truncate();
      } else {
        fruitless = received_ > before ? 0 : fruitless + 1;
        require(fruitless <= request_.retries, ErrorCode::network,
                "{}: {} ({} attempts); run the same command again to go on at {} bytes", name(), reason_,
                fruitless, part_.size());
        if (request_.on_retry) request_.on_retry(reason_);
        wait(retry_after_s_.value_or(0.125 * static_cast<double>(1 << std::min(fruitless, 7))));
      }
    }
    const uint64_t bytes = part_.size();
    part_.finish();
    return {.bytes = bytes, .verified = !sha256_.empty(), .was_there = false};
  }

 private:
  std::string name() const { return request_.target.filename().string(); }

  /// One request, from where the part ends.
  Step attempt() {
    reason_.clear();
    retry_after_s_.reset();
    Step step = Step::again;
    if (!sha256_.empty() && part_.identity() != sha256_) part_.truncate();
    const uint64_t from = part_.size();
    if (from > 0 && total_ && from == *total_) return Step::done;
    if (from > 0 && total_ && from > *total_) return Step::restart;
    const auto on_head = [&](const HttpHead& head) { return accept(head, from, step); };
    const auto on_body = [&](std::string_view data) {
      if (total_ && part_.size() + data.size() > *total_) {
        reason_ = "the host sends more than it announced";
        step = Step::restart;
        return false;
      }
      part_.append(data);
      received_ += data.size();
      if (request_.progress) request_.progress(part_.size(), total_.value_or(0));
      return true;
    };
    const HttpResult result = http_get(request_.url, from > 0 ? std::optional(from) : std::nullopt,
                                       request_.http, on_head, on_body);
    if (result.stopped) return step;
    if (!result.error.empty()) {
      reason_ = result.error;
      return Step::again;
    }
    const bool knows_end = total_.has_value() || result.head->chunked || !sha256_.empty();
    require(knows_end, ErrorCode::network,
            "{}: the host tells neither length nor hash, so it cannot be known whether all has arrived",
            name());
    if (total_ && part_.size() < *total_) {
      reason_ = "the connection ended early";
      return Step::again;
    }
    return Step::done;
  }

  /// Judges an answer by its head: true to read the body; otherwise `step` says what next.
  bool accept(const HttpHead& head, uint64_t from, Step& step) {
    step = Step::again;
    if (head.status == 416 && from > 0) {
      // Everything is there already, or the part is longer than the file.
      step = head.range_total == from && (!sha256_.empty() || head.etag == part_.identity()) ? Step::done
                                                                                             : Step::restart;
      return false;
    }
    if (head.status == 408 || head.status == 429 || head.status >= 500) {
      reason_ = fmt::format("the host answers with status {}", head.status);
      if (head.retry_after_s) retry_after_s_ = std::min(*head.retry_after_s, 60.0);
      return false;
    }
    refuse_failures(head.status);
    if (sha256_.empty() && is_sha256(head.etag)) sha256_ = lower(head.etag);
    const std::string identity = sha256_.empty() ? head.etag : sha256_;
    if (head.status == 206) {
      if (from == 0 || head.range_start != from || identity.empty() || identity != part_.identity()) {
        step = Step::restart;
        return false;
      }
      learn_total(head.range_total);
    } else {
      if (from > 0) part_.truncate();  // the host ignores ranges
      learn_total(head.linked_size ? head.linked_size : head.content_length);
      part_.set_identity(identity);
    }
    check_space();
    return true;
  }

  void refuse_failures(int status) const {
    const std::string where = request_.url.origin();
    require(
        status != 401 && status != 403, ErrorCode::network,
        "{}: {} does not allow it (status {}): private or gated; set HF_TOKEN to a token that may read it",
        name(), where, status);
    require(status != 404 && status != 410, ErrorCode::not_found, "{}: {} has no such file", name(), where);
    require(status == 200 || status == 206, ErrorCode::network, "{}: {} answers with status {}", name(),
            where, status);
  }

  void learn_total(std::optional<uint64_t> total) {
    if (!total) return;
    require(!request_.bytes || *request_.bytes == *total, ErrorCode::corrupt,
            "{}: the host lists {} bytes, but offers {}", name(), request_.bytes.value_or(0), *total);
    total_ = total;
  }

  void check_space() {
    std::error_code error;
    const fs::space_info space = fs::space(request_.target.parent_path(), error);
    if (error || !total_ || space.available >= *total_ - std::min(*total_, part_.size())) return;
    const uint64_t needed = *total_ - part_.size();
    if (part_.size() == 0) part_.remove();
    fail(
        ErrorCode::io,
        "{} needs {} bytes more, but {} has only {} free; free some space, or set MNEME_HOME to another disk",
        name(), needed, request_.target.parent_path().string(), space.available);
  }

  /// True if the content is right. A wrong one is removed; if it was put together from pieces it may be
  /// fetched once more from the start.
  bool verify(int restarts) {
    if (sha256_.empty()) return true;
    const std::string found = sha256_of(part_.path(), request_.http.cancel);
    if (found == sha256_) return true;
    if (part_.size() > received_ && restarts == 0) {
      part_.truncate();
      received_ = 0;
      return false;
    }
    part_.remove();
    fail(ErrorCode::corrupt, "{}: SHA-256 is {}, but the host says {}; the file was removed", name(), found,
         sha256_);
  }

  void wait(double seconds) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end) {
      require(request_.http.cancel == nullptr || !request_.http.cancel->cancelled(), ErrorCode::cancelled,
              "the download was interrupted; run the same command again to go on");
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  const DownloadRequest& request_;
  PartFile part_;
  std::optional<uint64_t> total_;
  std::string sha256_;     // expected, "" if not known
  uint64_t received_ = 0;  // in this call
  std::string reason_;     // why the last attempt has to be repeated
  std::optional<double> retry_after_s_;
};

/// An earlier download of the same content.
bool already_there(const DownloadRequest& request) {
  std::error_code error;
  if (!fs::is_regular_file(request.target, error) || !request.bytes) return false;
  if (fs::file_size(request.target, error) != *request.bytes) return false;
  return request.sha256.empty() || sha256_of(request.target, request.http.cancel) == lower(request.sha256);
}

}  // namespace

DownloadResult download(const DownloadRequest& request) {
  std::error_code error;
  fs::create_directories(request.target.parent_path(), error);
  require(!error, ErrorCode::io, "cannot make the folder {}: {}", request.target.parent_path().string(),
          error.message());
  if (already_there(request))
    return {.bytes = *request.bytes, .verified = !request.sha256.empty(), .was_there = true};
  return Download(request).run();
}

}  // namespace mneme::cli
