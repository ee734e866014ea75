#include "cost/disk_reads.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <memory>
#include <string>
#include <thread>

#include "core/fail.h"

namespace mneme {
namespace {

namespace fs = std::filesystem;
constexpr size_t kDiskBlock = 4096;

/// SplitMix64: any seed gives a full-period stream, good enough for offsets and incompressible bytes.
uint64_t next_random(uint64_t& state) {
  uint64_t z = state += 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return z ^ (z >> 31);
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

// A file without a name, so that nothing can be left behind, whatever ends the process.
int open_nameless(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (fd >= 0) return fd;
  std::string name = (folder / ".mneme-doctor-XXXXXX").string();
  const int named = ::mkostemp(name.data(), O_CLOEXEC);
  require(named >= 0, ErrorCode::io, "cannot write to {} to measure the disk: {}", folder.string(),
          std::strerror(errno));
  ::unlink(name.c_str());
  return named;
}

void fill_random(int fd, uint64_t bytes, const fs::path& folder) {
  std::vector<uint64_t> buffer((size_t{1} << 20) / 8);
  uint64_t state = 1;
  for (uint64_t done = 0; done < bytes;) {
    for (uint64_t& word : buffer) word = next_random(state);
    const ssize_t got = ::write(fd, buffer.data(), buffer.size() * 8);
    if (got < 0 && errno == EINTR) continue;
    require(got > 0, ErrorCode::io, "cannot write {} bytes to {}: {}", bytes, folder.string(),
            std::strerror(errno));
    done += static_cast<uint64_t>(got);
  }
  require(::fsync(fd) == 0, ErrorCode::io, "cannot write to {}: {}", folder.string(), std::strerror(errno));
}

// Reads per second of `threads` threads for `seconds`.
double read_at_random(int fd, uint64_t bytes, int threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  std::atomic<uint64_t> reads{0};
  std::atomic<int> problem{0};  // errno of a read that failed; that of another thread says nothing here
  std::latch ready(threads), go(1);
  std::vector<std::jthread> pool;
  pool.reserve(static_cast<size_t>(threads));
  const auto length = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      const std::unique_ptr<void, decltype(&std::free)> block(std::aligned_alloc(kDiskBlock, kDiskBlock),
                                                              &std::free);
      uint64_t state = static_cast<uint64_t>(t) * 7919 + 17, done = 0;
      ready.count_down();
      go.wait();
      const auto end = Clock::now() + length;
      while (block != nullptr && Clock::now() < end) {
        const uint64_t offset = next_random(state) % (bytes / kDiskBlock) * kDiskBlock;
        const ssize_t got = ::pread(fd, block.get(), kDiskBlock, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got != static_cast<ssize_t>(kDiskBlock)) {
          problem = got < 0 ? errno : EIO;  // the file ends there: it has been cut
          break;
        }
        ++done;
      }
      reads += done;
    });
  ready.wait();
  const auto start = Clock::now();
  go.count_down();
  pool.clear();
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  require(problem == 0, ErrorCode::io, "a random read of the test file failed: {}", std::strerror(problem));
  return static_cast<double>(reads.load()) / elapsed;
}

}  // namespace

DiskReadResult measure_random_reads(const fs::path& folder, uint64_t file_bytes,
                                    const std::vector<int>& thread_counts, double seconds) {
  DiskReadResult result;
  std::error_code ignored;
  result.folder = fs::absolute(folder);
  while (!fs::is_directory(result.folder, ignored) && result.folder.has_relative_path())
    result.folder = result.folder.parent_path();
  const Descriptor file(open_nameless(result.folder));
  std::error_code error;
  if (const fs::space_info space = fs::space(result.folder, error); !error)
    file_bytes = std::min<uint64_t>(file_bytes, space.available / 2);
  file_bytes = std::max<uint64_t>(file_bytes >> 20, 1) << 20;
  fill_random(file.get(), file_bytes, result.folder);

  const std::string path = fmt::format("/proc/self/fd/{}", file.get());
  const Descriptor direct(::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
  result.direct = direct.get() >= 0;
  for (const int threads : thread_counts) {
    if (!result.direct) ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    const int fd = result.direct ? direct.get() : file.get();
    result.rates.push_back({threads, read_at_random(fd, file_bytes, threads, seconds)});
  }
  return result;
}

}  // namespace mneme
