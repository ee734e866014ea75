// HugeBuffer: zeroed memory for weights and caches, on huge pages where the system gives them (a 2 MB page
// needs one TLB entry where 4 KB pages need 512, which is worth some 5-10 % of read bandwidth).
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

namespace mneme {

class HugeBuffer {
 public:
  HugeBuffer() = default;
  /// Throws Error(out_of_memory) that says how much was asked for. Aligned to 2 MB when ≥ 2 MB, else to a
  /// page.
  explicit HugeBuffer(uint64_t bytes);
  ~HugeBuffer();
  HugeBuffer(HugeBuffer&& other) noexcept { *this = std::move(other); }
  HugeBuffer& operator=(HugeBuffer&& other) noexcept;

  std::byte* data() const noexcept { return data_; }
  uint64_t size() const noexcept { return size_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  void* map_ = nullptr;
  uint64_t map_size_ = 0;
};

}  // namespace mneme
