#include "cost/bandwidth.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <fstream>
#include <latch>
#include <string>
#include <thread>

#include "core/fail.h"
#include "simd/isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mneme {
namespace {

constexpr uint64_t kHugePage = uint64_t{2} << 20;
constexpr size_t kStep = 64;  // words per turn of the vector loops

uint64_t sum_portable(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i < count; i += 8)
    for (size_t k = 0; k < 8; ++k) sums[k] += words[i + k];
  uint64_t sum = 0;
  for (const uint64_t s : sums) sum += s;
  return sum;
}

#if defined(__x86_64__)
// Eight independent sums hide the latency of the adds; the loop is then bound by loads alone.
__attribute__((target("avx2"))) uint64_t sum_avx2(const uint64_t* words, size_t count) {
  __m256i s0 = _mm256_setzero_si256(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (size_t i = 0; i < count; i += 32) {
    const auto* at = reinterpret_cast<const __m256i*>(words + i);
    s0 = _mm256_add_epi64(s0, _mm256_load_si256(at));
    s1 = _mm256_add_epi64(s1, _mm256_load_si256(at + 1));
    s2 = _mm256_add_epi64(s2, _mm256_load_si256(at + 2));
    s3 = _mm256_add_epi64(s3, _mm256_load_si256(at + 3));
    s4 = _mm256_add_epi64(s4, _mm256_load_si256(at + 4));
    s5 = _mm256_add_epi64(s5, _mm256_load_si256(at + 5));
    s6 = _mm256_add_epi64(s6, _mm256_load_si256(at + 6));
    s7 = _mm256_add_epi64(s7, _mm256_load_si256(at + 7));
  }
  const __m256i sum = _mm256_add_epi64(_mm256_add_epi64(_mm256_add_epi64(s0, s1), _mm256_add_epi64(s2, s3)),
                                       _mm256_add_epi64(_mm256_add_epi64(s4, s5), _mm256_add_epi64(s6, s7)));
  alignas(32) uint64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sum);
  return parts[0] + parts[1] + parts[2] + parts[3];
}

__attribute__((target("avx512f"))) uint64_t sum_avx512(const uint64_t* words, size_t count) {
  __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0, s4 = s0, s5 = s0, s6 = s0, s7 = s0;
  for (size_t i = 0; i < count; i += 64) {
    const auto* at = reinterpret_cast<const __m512i*>(words + i);
    s0 = _mm512_add_epi64(s0, _mm512_load_si512(at));
    s1 = _mm512_add_epi64(s1, _mm512_load_si512(at + 1));
    s2 = _mm512_add_epi64(s2, _mm512_load_si512(at + 2));
    s3 = _mm512_add_epi64(s3, _mm512_load_si512(at + 3));
    s4 = _mm512_add_epi64(s4, _mm512_load_si512(at + 4));
    s5 = _mm512_add_epi64(s5, _mm512_load_si512(at + 5));
    s6 = _mm512_add_epi64(s6, _mm512_load_si512(at + 6));
    s7 = _mm512_add_epi64(s7, _mm512_load_si512(at + 7));
  }
  const __m512i sum = _mm512_add_epi64(_mm512_add_epi64(_mm512_add_epi64(s0, s1), _mm512_add_epi64(s2, s3)),
                                       _mm512_add_epi64(_mm512_add_epi64(s4, s5), _mm512_add_epi64(s6, s7)));
  alignas(64) uint64_t parts[8];
  _mm512_store_si512(parts, sum);
  uint64_t total = 0;
  for (const uint64_t part : parts) total += part;
  return total;
}
#endif

uint64_t meminfo(std::string_view field) {
  std::ifstream file("/proc/meminfo");
  std::string name;
  uint64_t kib = 0;
  for (std::string rest; file >> name >> kib; std::getline(file, rest))
    if (name == field) return kib * 1024;
  return 0;
}

// Whether nearly all of the mapping at `data` lies on huge pages, as /proc/self/smaps tells.
bool lies_on_huge_pages(const std::byte* data, uint64_t bytes) {
  std::ifstream file("/proc/self/smaps");
  const std::string begin = fmt::format("{:x}-", reinterpret_cast<uintptr_t>(data));
  bool ours = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(begin)) ours = true;
    if (!ours || !line.starts_with("AnonHugePages:")) continue;
    const uint64_t kib = std::strtoull(line.c_str() + 14, nullptr, 10);
    return kib * 1024 >= bytes / 10 * 9;
  }
  return false;
}

// Runs work(t) on `threads` threads that start together; returns the seconds until the last one is done.
template <class Work>
double timed(int threads, const Work& work) {
  std::latch ready(threads), go(1);
  std::vector<std::jthread> pool;
  pool.reserve(static_cast<size_t>(threads));
  for (int t = 0; t < threads; ++t)
    pool.emplace_back([&, t] {
      ready.count_down();
      go.wait();
      work(t);
    });
  ready.wait();
  const auto start = std::chrono::steady_clock::now();
  go.count_down();
  pool.clear();  // joins
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

uint64_t sum_words(std::span<const uint64_t> words) {
#if defined(__x86_64__)
  if (active_isa() >= Isa::avx512) return sum_avx512(words.data(), words.size());
  if (active_isa() >= Isa::avx2) return sum_avx2(words.data(), words.size());
#endif
  return sum_portable(words.data(), words.size());
}

uint64_t bandwidth_buffer_bytes(uint64_t wanted) {
  const uint64_t available = meminfo("MemAvailable:");
  return available == 0 ? wanted : std::clamp<uint64_t>(available / 4, uint64_t{64} << 20, wanted);
}

std::vector<int> thread_counts_up_to(int cores) {
  std::vector<int> counts;
  for (int n = 1; n < cores; n *= 2) counts.push_back(n);
  counts.push_back(std::max(1, cores));
  return counts;
}

ReadBandwidth::ReadBandwidth(uint64_t bytes) {
  bytes_ = (std::max<uint64_t>(bytes, 1) + kHugePage - 1) / kHugePage * kHugePage;
  // One huge page more than needed, so that the buffer can begin on a border; the rest is given back.
  const uint64_t mapped = bytes_ + kHugePage;
  void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  require(memory != MAP_FAILED, ErrorCode::out_of_memory, "cannot allocate {} bytes to measure bandwidth",
          bytes_);
  const uint64_t past_border = reinterpret_cast<uintptr_t>(memory) % kHugePage;
  const uint64_t before = past_border == 0 ? 0 : kHugePage - past_border;
  data_ = static_cast<std::byte*>(memory) + before;
  if (before > 0) ::munmap(memory, before);
  if (const uint64_t behind = kHugePage - before; behind > 0) ::munmap(data_ + bytes_, behind);
  ::madvise(data_, bytes_, MADV_HUGEPAGE);
  auto* words = reinterpret_cast<uint64_t*>(data_);
  for (uint64_t i = 0; i < bytes_ / 8; ++i) {
    words[i] = i * 0x9E3779B97F4A7C15ULL + 1;
    sum_of_one_ += words[i];
  }
  huge_pages_ = lies_on_huge_pages(data_, bytes_);
}

ReadBandwidth::~ReadBandwidth() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

double ReadBandwidth::pass(int threads) {
  const auto count = static_cast<uint64_t>(std::max(1, threads));
  const std::span words(reinterpret_cast<const uint64_t*>(data_), bytes_ / 8);
  std::vector<uint64_t> sums(count);
  const double seconds = timed(static_cast<int>(count), [&](int t) {
    const auto border = [&](uint64_t part) { return words.size() / kStep * part / count * kStep; };
    const uint64_t first = border(static_cast<uint64_t>(t)), last = border(static_cast<uint64_t>(t) + 1);
    sums[static_cast<size_t>(t)] = sum_words(words.subspan(first, last - first));
  });
  for (const uint64_t s : sums) sum_ += s;
  return static_cast<double>(bytes_) / seconds / 1e9;
}

BandwidthResult ReadBandwidth::best(std::span<const int> thread_counts, int passes) {
  BandwidthResult best;
  for (const int threads : thread_counts) {
    pass(threads);
    std::vector<double> rates;
    rates.reserve(static_cast<size_t>(std::max(0, passes)));
    for (int i = 0; i < passes; ++i) rates.push_back(pass(threads));
    std::sort(rates.begin(), rates.end());
    const size_t n = rates.size();
    const double median = (rates[(n - 1) / 2] + rates[n / 2]) / 2;
    if (median <= best.gbps) continue;
    double mean = 0, squares = 0;
    for (const double rate : rates) mean += rate / static_cast<double>(n);
    for (const double rate : rates) squares += (rate - mean) * (rate - mean);
    best = {median, n > 1 ? std::sqrt(squares / static_cast<double>(n - 1)) : 0, threads};
  }
  return best;
}

}  // namespace mneme
