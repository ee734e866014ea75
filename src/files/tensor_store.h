// What every TensorSource has in common: the bytes of one or more files, and where each named tensor lies in
// them. A reader fills one while it parses; afterwards it is immutable and thread-safe.
#pragma once
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "files/tensor_source.h"

namespace mneme {

class TensorStore {
 public:
  /// One file, or a buffer that the caller keeps alive.
  struct Part {
    MappedFile file;  // empty for a buffer
    Bytes bytes;
    std::string label;  // for messages
  };

  /// Opens a file and returns its number.
  size_t add_file(const fs::path& path, LoadMode mode);
  size_t add_buffer(Bytes bytes, std::string label);
  const Part& part(size_t number) const { return parts_[number]; }
  size_t parts() const noexcept { return parts_.size(); }

  /// Adds a tensor whose bytes begin at `offset` of a part; the reader has checked that they lie inside it.
  /// With `strides` (in values, one a dimension, outermost first) its values do not lie in order: data() then
  /// gives a copy that is made when it is first asked for. Throws Error(corrupt) if the name is taken.
  void add(size_t part, TensorInfo info, uint64_t offset, std::vector<uint64_t> strides = {});

  // See TensorSource.
  const std::vector<TensorInfo>& tensors() const noexcept { return tensors_; }
  const TensorInfo* find(std::string_view name) const;
  Bytes data(const TensorInfo& tensor) const;
  void release(const TensorInfo& tensor) const;
  uint64_t file_bytes() const noexcept;
  std::vector<fs::path> paths() const;

 private:
  struct Place {
    size_t part;
    uint64_t offset, bytes;
    std::vector<uint64_t> strides;  // empty: the values lie in order
  };
  /// Copies of tensors with strides, by their number, until they are released.
  struct Gathered {
    std::mutex mutex;
    std::unordered_map<size_t, std::vector<std::byte>> copies;
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const noexcept { return std::hash<std::string_view>{}(text); }
  };

  std::vector<Part> parts_;
  std::vector<TensorInfo> tensors_;
  std::vector<Place> places_;  // parallel to tensors_
  std::unordered_map<std::string, size_t, Hash, std::equal_to<>> index_;
  std::unique_ptr<Gathered> gathered_ = std::make_unique<Gathered>();

  size_t number_of(const TensorInfo& tensor) const;
  Bytes gathered(size_t number) const;
};

}  // namespace mneme
