#include "core/huge_buffer.h"

#include <sys/mman.h>

#include "core/fail.h"

namespace mneme {

HugeBuffer::HugeBuffer(uint64_t bytes) : size_(bytes) {
  if (bytes == 0) return;
  constexpr uint64_t kHuge = uint64_t{2} << 20;
  const bool huge = bytes >= kHuge;
  require(bytes < (uint64_t{1} << 46), ErrorCode::out_of_memory, "cannot allocate {} bytes", bytes);
  map_size_ = huge ? bytes + kHuge : bytes;
  map_ = ::mmap(nullptr, map_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map_ == MAP_FAILED) {
    map_ = nullptr;
    fail(ErrorCode::out_of_memory,
         "cannot allocate {:.1f} MB; close other programs or use a smaller model or context",
         static_cast<double>(bytes) / 1e6);
  }
  auto address = reinterpret_cast<uintptr_t>(map_);
  if (huge) address = (address + kHuge - 1) & ~(kHuge - 1);
  data_ = reinterpret_cast<std::byte*>(address);
  if (huge) ::madvise(data_, bytes, MADV_HUGEPAGE);
}

HugeBuffer::~HugeBuffer() {
  if (map_ != nullptr) ::munmap(map_, map_size_);
}

HugeBuffer& HugeBuffer::operator=(HugeBuffer&& other) noexcept {
  if (this == &other) return *this;
  if (map_ != nullptr) ::munmap(map_, map_size_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  map_ = std::exchange(other.map_, nullptr);
  map_size_ = std::exchange(other.map_size_, 0);
  return *this;
}

}  // namespace mneme
