// Where the rows of a new pack come from: a checkpoint's tensors, or random numbers for benchmarks.
#pragma once
#include <functional>
#include <string>

#include "files/tensor_source.h"
#include "memory/engram_hash.h"
#include "mneme/memory.h"

namespace mneme {

/// Writes the records of rows [first, first + count) of a table back to back.
using RowProducer = std::function<void(uint64_t first, uint64_t count, std::byte* out)>;

/// Finite values of moderate size in every format, from `seed`; the same row is the same on every run. Not
/// compressible, and no page is a hole: reading them costs what reading real rows costs.
RowProducer random_rows(const EngramHash& hash, uint64_t seed);

/// How a checkpoint names its rows; "{layer}" stands for a layer id. Without it one tensor holds all layers.
struct RowTensorNames {
  std::string weight;
  std::string scale;  // empty: there is none, or it is in the records
};

/// Rows of a checkpoint, in the config's format. Accepted: F32, F16 and BF16 [rows, head_dim]; F8_E4M3 [rows,
/// head_dim] with scales F8_E8M0 or U8 [rows, head_dim / 32]; I8 [rows, head_dim] with scales F32 [rows]; and
/// finished records I8 or U8 [rows, bytes of a record]. The same format is copied, any other is rounded to
/// the config's. A tensor may have more rows than the layer (padding), or as many as its primes. The source
/// must outlive the producer. Throws Error: not_found (no such tensor), mismatch (shapes or types that do not
/// fit), and while rows are made invalid_argument (a value that is not finite).
RowProducer checkpoint_rows(const EngramHash& hash, const TensorSource& source, const RowTensorNames& names);

/// The rows where they lie in the shards of a released checkpoint, for MemoryTable::open: nothing is
/// converted or copied. Needs tensors whose records are those of the config's format. Throws as
/// checkpoint_rows().
RowLayout checkpoint_layout(const EngramHash& hash, const fs::path& checkpoint, const RowTensorNames& names);

}  // namespace mneme
