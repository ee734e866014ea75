// mneme_memory.h: the table in C. Each function turns exceptions into a code and a text of the thread.
#include <exception>
#include <new>
#include <string>

#include "mneme/error.h"
#include "mneme/memory.h"
#include "mneme/mneme_memory.h"

struct mneme_memory {
  std::unique_ptr<mneme::MemoryTable> table;
  std::string description;
};

struct mneme_memory_batch {
  mneme::RowBatch batch;
};

namespace {

thread_local std::string last_error;
thread_local int last_code = MNEME_MEMORY_OK;

int code_of(mneme::ErrorCode code) {
  using mneme::ErrorCode;
  switch (code) {
    case ErrorCode::invalid_argument:
      return MNEME_MEMORY_INVALID_ARGUMENT;
    case ErrorCode::not_found:
      return MNEME_MEMORY_NOT_FOUND;
    case ErrorCode::io:
      return MNEME_MEMORY_IO;
    case ErrorCode::corrupt:
      return MNEME_MEMORY_CORRUPT;
    case ErrorCode::unsupported:
      return MNEME_MEMORY_UNSUPPORTED;
    case ErrorCode::mismatch:
      return MNEME_MEMORY_MISMATCH;
    case ErrorCode::limit:
      return MNEME_MEMORY_LIMIT;
    case ErrorCode::out_of_memory:
      return MNEME_MEMORY_OUT_OF_MEMORY;
    default:
      return MNEME_MEMORY_OTHER;
  }
}

template <class Action>
int guarded(Action action) noexcept {
  try {
    action();
    return MNEME_MEMORY_OK;
  } catch (const mneme::Error& error) {
    last_code = code_of(error.code());
    last_error = error.what();
  } catch (const std::bad_alloc&) {
    last_code = MNEME_MEMORY_OUT_OF_MEMORY;
    last_error = "out of memory";
  } catch (const std::exception& error) {
    last_code = MNEME_MEMORY_OTHER;
    last_error = error.what();
  }
  return last_code;
}

mneme::MemoryOptions options_of(const mneme_memory_options* given) {
  mneme::MemoryOptions out;
  if (given == nullptr) return out;
  static constexpr mneme::Placement kPlacements[] = {mneme::Placement::automatic, mneme::Placement::ram,
                                                     mneme::Placement::mmap, mneme::Placement::direct,
                                                     mneme::Placement::cache};
  if (given->placement < 0 || given->placement > MNEME_MEMORY_CACHE)
    throw mneme::Error(mneme::ErrorCode::invalid_argument,
                       "placement is " + std::to_string(given->placement) + ", but must be 0 to 4");
  out.placement = kPlacements[given->placement];
  out.budget_bytes = given->budget_bytes;
  out.batch_ids = given->batch_ids;
  out.queue_depth = given->queue_depth;
  out.gap_pages = given->gap_pages;
  for (uint32_t i = 0; i < given->overlay_count; ++i) out.overlays.emplace_back(given->overlays[i]);
  return out;
}

template <class Open>
mneme_memory* opened(Open open) noexcept {
  mneme_memory* out = nullptr;
  guarded([&] {
    auto made = std::make_unique<mneme_memory>();
    made->table = open();
    made->description = made->table->describe();
    out = made.release();
  });
  return out;
}

}  // namespace

mneme_memory_options mneme_memory_default_options(void) {
  const mneme::MemoryOptions defaults;
  return {MNEME_MEMORY_AUTO, defaults.queue_depth, defaults.gap_pages, 0, 0, 0, nullptr};
}

mneme_memory* mneme_memory_open_pack(const char* path, const mneme_memory_options* options) {
  return opened([&] { return mneme::MemoryTable::open_pack(path, options_of(options)); });
}

mneme_memory* mneme_memory_open_rows(const char* path, uint64_t offset, uint64_t rows, uint32_t row_bytes,
                                     const mneme_memory_options* options) {
  return opened([&] {
    return mneme::MemoryTable::open(mneme::RowRegion{path, offset, rows, row_bytes}, options_of(options));
  });
}

void mneme_memory_close(mneme_memory* table) {
  delete table;
}

uint64_t mneme_memory_row_count(const mneme_memory* table) {
  return table->table->rows();
}
uint32_t mneme_memory_row_bytes(const mneme_memory* table) {
  return table->table->row_bytes();
}
int mneme_memory_placement(const mneme_memory* table) {
  switch (table->table->placement()) {
    case mneme::Placement::ram:
      return MNEME_MEMORY_RAM;
    case mneme::Placement::mmap:
      return MNEME_MEMORY_MMAP;
    case mneme::Placement::direct:
      return MNEME_MEMORY_DIRECT;
    case mneme::Placement::cache:
      return MNEME_MEMORY_CACHE;
    case mneme::Placement::automatic:
      break;
  }
  return MNEME_MEMORY_AUTO;
}
const char* mneme_memory_describe(const mneme_memory* table) {
  return table->description.c_str();
}

mneme_memory_batch* mneme_memory_batch_new(void) {
  return new (std::nothrow) mneme_memory_batch;
}
void mneme_memory_batch_free(mneme_memory_batch* batch) {
  delete batch;
}

int mneme_memory_start(const mneme_memory* table, const uint64_t* ids, size_t count,
                       mneme_memory_batch* batch) {
  return guarded([&] { table->table->start({ids, count}, batch->batch); });
}
int mneme_memory_wait(const mneme_memory* table, mneme_memory_batch* batch) {
  return guarded([&] { table->table->wait(batch->batch); });
}
const void* const* mneme_memory_rows(const mneme_memory_batch* batch) {
  return reinterpret_cast<const void* const*>(batch->batch.rows().data());
}
size_t mneme_memory_batch_size(const mneme_memory_batch* batch) {
  return batch->batch.rows().size();
}

int mneme_memory_read(const mneme_memory* table, const uint64_t* ids, size_t count, void* out,
                      size_t out_bytes) {
  return guarded([&] { table->table->read({ids, count}, {static_cast<std::byte*>(out), out_bytes}); });
}

int mneme_memory_get_statistics(const mneme_memory* table, mneme_memory_statistics* out) {
  return guarded([&] {
    const mneme::MemoryStatistics s = table->table->statistics();
    *out = {s.reads,      s.rows,
            s.bytes,      s.distinct,
            s.hits,       s.misses,
            s.overlaid,   s.disk_reads,
            s.disk_bytes, s.batch.p50,
            s.batch.p99,  s.disk.p50,
            s.disk.p99,   table->table->resident_bytes()};
  });
}

const char* mneme_memory_error(void) {
  return last_error.c_str();
}
int mneme_memory_error_code(void) {
  return last_code;
}
