// A TensorStore as a TensorSource, and the ways in which the formats of Hugging Face folders are opened: one
// file, the shards of an index, or a buffer. A format says what its files are called and how the tensors of
// one part are found; all else is the same for safetensors and torch checkpoints.
#pragma once
#include <memory>
#include <utility>

#include "files/tensor_store.h"

namespace mneme {

/// `Interface` is TensorSource or derived from it.
template <class Interface>
class StoreSource : public Interface {
 public:
  explicit StoreSource(TensorStore store) : store_(std::move(store)) {}

  const std::vector<TensorInfo>& tensors() const override { return store_.tensors(); }
  const TensorInfo* find(std::string_view name) const override { return store_.find(name); }
  Bytes data(const TensorInfo& tensor) const override { return store_.data(tensor); }
  void release(const TensorInfo& tensor) const override { store_.release(tensor); }
  uint64_t file_bytes() const override { return store_.file_bytes(); }
  std::vector<fs::path> paths() const override { return store_.paths(); }

 protected:
  TensorStore store_;
};

struct TensorFormat {
  const char* single;  // the file of a checkpoint that is not cut
  const char* index;   // names the shards of one that is
  const char* buffer;  // what a buffer is called in messages
  /// Adds the tensors of a part to its store. Throws what the format's reader throws.
  void (*add_tensors)(TensorStore& store, size_t part);
};

std::unique_ptr<TensorSource> open_tensor_file(const TensorFormat& format, const fs::path& file,
                                               LoadMode mode);
/// The caller keeps the buffer alive.
std::unique_ptr<TensorSource> parse_tensor_buffer(const TensorFormat& format, Bytes bytes);
/// Throws Error: not_found (neither file, or a missing shard), mismatch (the index and the shards disagree).
std::unique_ptr<TensorSource> open_tensor_folder(const TensorFormat& format, const fs::path& folder,
                                                 LoadMode mode);

}  // namespace mneme
