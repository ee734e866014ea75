// The memory table in C, for programs in other languages and for other engines: rows by number from a pack or
// from any file of equal records, wherever they lie. What the functions do, and when, is said in
// mneme/memory.h; here is how they say it in C.
//
//   mneme_memory_options options = mneme_memory_default_options();
//   options.placement = MNEME_MEMORY_CACHE;
//   options.budget_bytes = 512u << 20;
//   mneme_memory* table = mneme_memory_open_pack("facts.engram", &options);
//   if (!table) { puts(mneme_memory_error()); ... }
//   mneme_memory_batch* batch = mneme_memory_batch_new();
//   mneme_memory_start(table, ids, count, batch);   // returns at once
//   mneme_memory_wait(table, batch);
//   const void* const* rows = mneme_memory_rows(batch);
//
// Functions that can fail return 0 for success and an error code otherwise, or NULL. A table may be used by
// many threads at once; a batch by one, and it must be freed before its table is closed. No exception leaves
// a function.
#ifndef MNEME_MEMORY_C_H
#define MNEME_MEMORY_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct mneme_memory mneme_memory;
typedef struct mneme_memory_batch mneme_memory_batch;

enum {
  MNEME_MEMORY_AUTO = 0,
  MNEME_MEMORY_RAM = 1,
  MNEME_MEMORY_MMAP = 2,
  MNEME_MEMORY_DIRECT = 3,
  MNEME_MEMORY_CACHE = 4
};

// Error codes, those of mneme/error.h plus one.
enum {
  MNEME_MEMORY_OK = 0,
  MNEME_MEMORY_INVALID_ARGUMENT = 1,
  MNEME_MEMORY_NOT_FOUND = 2,
  MNEME_MEMORY_IO = 3,
  MNEME_MEMORY_CORRUPT = 4,
  MNEME_MEMORY_UNSUPPORTED = 5,
  MNEME_MEMORY_MISMATCH = 6,
  MNEME_MEMORY_LIMIT = 7,
  MNEME_MEMORY_OUT_OF_MEMORY = 8,
  MNEME_MEMORY_OTHER = 9
};

typedef struct mneme_memory_options {
  int32_t placement;
  uint32_t queue_depth;
  uint32_t gap_pages;
  uint32_t overlay_count;
  uint64_t budget_bytes;  // 0: no bound
  uint64_t batch_ids;     // 0: unknown
  const char* const* overlays;
} mneme_memory_options;

typedef struct mneme_memory_statistics {
  uint64_t reads, rows, bytes, distinct, hits, misses, overlaid, disk_reads, disk_bytes;
  double batch_p50_us, batch_p99_us, disk_p50_us, disk_p99_us;
  uint64_t resident_bytes;
} mneme_memory_statistics;

// automatic placement, no budget, 128 reads in flight.
mneme_memory_options mneme_memory_default_options(void);

// Opens a pack (.engram), or `rows` records of `row_bytes` bytes that lie back to back in a file from
// `offset` on. `options` may be NULL. NULL on failure: mneme_memory_error() says why,
// mneme_memory_error_code() which kind.
mneme_memory* mneme_memory_open_pack(const char* path, const mneme_memory_options* options);
mneme_memory* mneme_memory_open_rows(const char* path, uint64_t offset, uint64_t rows, uint32_t row_bytes,
                                     const mneme_memory_options* options);
void mneme_memory_close(mneme_memory* table);  // NULL is nothing

uint64_t mneme_memory_row_count(const mneme_memory* table);
uint32_t mneme_memory_row_bytes(const mneme_memory* table);
// What was chosen, one of MNEME_MEMORY_RAM ...
int mneme_memory_placement(const mneme_memory* table);
// One line; valid until the table is closed.
const char* mneme_memory_describe(const mneme_memory* table);

mneme_memory_batch* mneme_memory_batch_new(void);  // NULL: no memory
void mneme_memory_batch_free(mneme_memory_batch* batch);

// Begins to bring rows and returns; `ids` may be reused at once.
int mneme_memory_start(const mneme_memory* table, const uint64_t* ids, size_t count,
                       mneme_memory_batch* batch);
// Waits for them.
int mneme_memory_wait(const mneme_memory* table, mneme_memory_batch* batch);
// After wait: one address for each id as given, valid until the batch is started again or freed.
const void* const* mneme_memory_rows(const mneme_memory_batch* batch);
size_t mneme_memory_batch_size(const mneme_memory_batch* batch);

// All at once, copied: `out` has count * row_bytes bytes, `out_bytes` says so.
int mneme_memory_read(const mneme_memory* table, const uint64_t* ids, size_t count, void* out,
                      size_t out_bytes);

int mneme_memory_get_statistics(const mneme_memory* table, mneme_memory_statistics* out);

// Of the last failure in this thread; "" and 0 if there was none. Valid until the next failure in this
// thread.
const char* mneme_memory_error(void);
int mneme_memory_error_code(void);

#ifdef __cplusplus
}
#endif
#endif
