// TensorSource: a checkpoint as named tensors, whatever file it comes from. GGUF files and Hugging Face
// folders both become one of these; the model loader sees nothing else of them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"
#include "core/file.h"

namespace mneme {

struct TensorInfo {
  std::string name;  // the file's own name, e.g. "blk.0.attn_q.weight"
  DType type = DType::f32;
  std::vector<uint64_t> shape;  // outermost first: [rows, cols]; rank 0 is a scalar
  uint64_t bytes = 0;           // checked: = values / block_size * block_bytes, inside the file

  uint64_t values() const {
    uint64_t n = 1;
    for (const uint64_t d : shape) n *= d;
    return n;
  }
};

/// Immutable and thread-safe after construction.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  /// All tensors in file order.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  /// The description of a tensor or nullptr.
  virtual const TensorInfo* find(std::string_view name) const = 0;
  /// The bytes of a tensor of this source, row-major, innermost dimension contiguous. Throws Error(io) if the
  /// file has shrunk since it was opened.
  virtual Bytes data(const TensorInfo& tensor) const = 0;
  /// The tensor's pages may leave memory (it has been copied).
  virtual void release(const TensorInfo& tensor) const = 0;
  /// Total size of the files on disk, bytes.
  virtual uint64_t file_bytes() const = 0;
  /// The files, for messages and hashing.
  virtual std::vector<fs::path> paths() const = 0;
};

}  // namespace mneme
