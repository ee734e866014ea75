/* The memory table from C: reads the rows named on the command line out of a pack and prints a checksum of
 * each. memory_c PACK [auto|ram|mmap|direct|cache] ROW... */
#include <mneme/mneme_memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int placement_of(const char* word) {
  static const char* const names[] = {"auto", "ram", "mmap", "direct", "cache"};
  for (int i = 0; i < 5; ++i)
    if (strcmp(word, names[i]) == 0) return i;
  return -1;
}

static unsigned long long checksum(const unsigned char* row, uint32_t bytes) {
  unsigned long long sum = 1469598103934665603ull; /* FNV-1a */
  for (uint32_t i = 0; i < bytes; ++i) sum = (sum ^ row[i]) * 1099511628211ull;
  return sum;
}

int main(int argc, char** argv) {
  if (argc < 4) {
    fprintf(stderr, "usage: %s PACK auto|ram|mmap|direct|cache ROW...\n", argv[0]);
    return 2;
  }
  mneme_memory_options options = mneme_memory_default_options();
  options.placement = placement_of(argv[2]);
  mneme_memory* table = mneme_memory_open_pack(argv[1], &options);
  if (table == NULL) {
    fprintf(stderr, "error %d: %s\n", mneme_memory_error_code(), mneme_memory_error());
    return 1;
  }
  fprintf(stderr, "%s\n", mneme_memory_describe(table));
  const size_t count = (size_t)argc - 3;
  uint64_t* ids = malloc(count * sizeof(uint64_t));
  mneme_memory_batch* batch = mneme_memory_batch_new();
  int failed = ids == NULL || batch == NULL;
  for (size_t i = 0; !failed && i < count; ++i) ids[i] = strtoull(argv[i + 3], NULL, 10);
  if (!failed) failed = mneme_memory_start(table, ids, count, batch) || mneme_memory_wait(table, batch);
  if (failed)
    fprintf(stderr, "error %d: %s\n", mneme_memory_error_code(), mneme_memory_error());
  else
    for (size_t i = 0; i < count; ++i)
      printf("row %llu %016llx\n", (unsigned long long)ids[i],
             checksum(mneme_memory_rows(batch)[i], mneme_memory_row_bytes(table)));
  mneme_memory_batch_free(batch);
  mneme_memory_close(table);
  free(ids);
  return failed ? 1 : 0;
}
