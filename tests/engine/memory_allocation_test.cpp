// Decoding with a memory allocates nothing more than decoding without one, once buffers have their sizes. The
// replaced operator new counts; it is the one of this whole test program, but for sanitizers, whose own must
// stay.
#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/memory_models.h"
#include "mneme/session.h"

namespace {
std::atomic<uint64_t> allocations{0};
}  // namespace

#ifndef MNEME_SANITIZED
namespace {
void* counted(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(std::size_t bytes) {
  return counted(bytes);
}
void* operator new[](std::size_t bytes) {
  return counted(bytes);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, std::size_t) noexcept {
  std::free(memory);
}
#endif

namespace mneme::memory_allocation_test {
namespace {

// Allocations of 300 steps of one token each, after 300 others.
uint64_t allocations_of_decoding(const std::shared_ptr<const Model>& model) {
  SessionOptions options;
  options.max_context = 1024;
  Session session(model, options);
  const auto vocab = static_cast<TokenId>(model->config().vocab);
  const auto step = [&](int i) {
    const TokenId id = static_cast<TokenId>((i * 37 + i * i % 101) % vocab);
    session.append({&id, 1});
  };
  for (int i = 0; i < 300; ++i) step(i);
  const uint64_t before = allocations;
  for (int i = 300; i < 600; ++i) step(i);
  return allocations - before;
}

TEST(MemoryAllocation, DecodingWithRowsFromAnywhereAllocatesNothingMore) {
#ifdef MNEME_SANITIZED
  GTEST_SKIP() << "allocations are counted in builds without sanitizers";
#endif
  const uint64_t alone = allocations_of_decoding(load_tiny("llama"));
  EXPECT_GT(allocations, 0u);  // they are counted
  EXPECT_LT(alone, 3 * 300u);  // of a step itself, whatever the model
  for (const Placement placement : {Placement::ram, Placement::mmap, Placement::direct, Placement::cache}) {
    LoadOptions options;
    options.memory.push_back({golden_pack(), placement});
    if (placement == Placement::cache) options.memory_budget = 4 << 20;
    std::shared_ptr<const Model> model;
    try {
      model = load_tiny("llama", options);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unsupported) throw;  // a filesystem without direct reads
      continue;
    }
    EXPECT_LE(allocations_of_decoding(model), alone) << to_string(placement);
    if (placement == Placement::direct) {
      EXPECT_GT(model->memories().at(0).statistics.disk_reads, 600u);
    }
  }
}

}  // namespace
}  // namespace mneme::memory_allocation_test
