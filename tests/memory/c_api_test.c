// The C interface from C: what a program in that language sees, compiled by a C compiler.
// tests/memory/c_api_test.cpp runs it.
#include <mneme/mneme_memory.h>
#include <string.h>

// 0, or the number of the first check that failed.
int check_memory_from_c(const char* file, uint64_t rows, uint32_t row_bytes, const unsigned char* expected) {
  mneme_memory_options options = mneme_memory_default_options();
  if (options.queue_depth == 0 || options.placement != MNEME_MEMORY_AUTO) return 1;
  for (int placement = MNEME_MEMORY_AUTO; placement <= MNEME_MEMORY_CACHE; ++placement) {
    options.placement = placement;
    mneme_memory* table = mneme_memory_open_rows(file, 0, rows, row_bytes, &options);
    if (table == NULL) return 2;
    if (mneme_memory_row_count(table) != rows || mneme_memory_row_bytes(table) != row_bytes) return 3;
    if (placement != MNEME_MEMORY_AUTO && mneme_memory_placement(table) != placement) return 4;
    if (strstr(mneme_memory_describe(table), file) == NULL) return 5;
    mneme_memory_batch* batch = mneme_memory_batch_new();
    const uint64_t ids[3] = {rows - 1, 0, rows - 1};
    if (mneme_memory_start(table, ids, 3, batch) != 0 || mneme_memory_wait(table, batch) != 0) return 6;
    if (mneme_memory_batch_size(batch) != 3) return 7;
    const void* const* found = mneme_memory_rows(batch);
    if (found[0] != found[2] || memcmp(found[1], expected, row_bytes) != 0) return 8;
    if (memcmp(found[0], expected + (rows - 1) * row_bytes, row_bytes) != 0) return 9;
    unsigned char copy[512];
    if (mneme_memory_read(table, ids, 1, copy, row_bytes) != 0) return 10;
    if (memcmp(copy, expected + (rows - 1) * row_bytes, row_bytes) != 0) return 11;
    const uint64_t outside = rows;
    if (mneme_memory_start(table, &outside, 1, batch) != MNEME_MEMORY_INVALID_ARGUMENT) return 12;
    if (mneme_memory_error_code() != MNEME_MEMORY_INVALID_ARGUMENT ||
        strstr(mneme_memory_error(), "outside") == NULL)
      return 13;
    if (mneme_memory_read(table, ids, 1, copy, 1) != MNEME_MEMORY_INVALID_ARGUMENT) return 14;
    mneme_memory_statistics statistics;
    if (mneme_memory_get_statistics(table, &statistics) != 0 || statistics.reads != 2 || statistics.rows != 4)
      return 15;
    mneme_memory_batch_free(batch);
    mneme_memory_close(table);
  }
  if (mneme_memory_open_pack(file, NULL) != NULL || mneme_memory_error_code() != MNEME_MEMORY_CORRUPT)
    return 16;
  if (mneme_memory_open_pack("/nowhere/at/all", NULL) != NULL ||
      mneme_memory_error_code() != MNEME_MEMORY_NOT_FOUND)
    return 17;
  options.placement = 77;
  if (mneme_memory_open_rows(file, 0, rows, row_bytes, &options) != NULL) return 18;
  options.placement = MNEME_MEMORY_CACHE;
  options.budget_bytes = 10;
  if (mneme_memory_open_rows(file, 0, rows, row_bytes, &options) != NULL ||
      mneme_memory_error_code() != MNEME_MEMORY_LIMIT)
    return 19;
  mneme_memory_close(NULL);
  mneme_memory_batch_free(NULL);
  return 0;
}
