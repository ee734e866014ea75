// What the original's mixers read and give on some text, on disk, so that layers learn from it many times for
// one pass of the original: that pass costs as much as forty layers learning from the same text once.
//
//   FOLDER/layer-07   for each sequence what the mixer of layer 7 reads, then what it gives; bfloat16,
//                     [sequences, 2, positions, d_model]
#pragma once
#include <cstdint>
#include <utility>
#include <vector>

#include "core/file.h"
#include "train/tensor.h"

namespace mneme::train {

/// One process writes; not thread-safe.
class Activations {
 public:
  /// Opens the files of these layers, made and given their full size where they are not there yet. Throws
  /// Error(io) naming the file and its size, for a full disk too.
  Activations(fs::path folder, const std::vector<uint32_t>& layers, uint64_t sequences, uint64_t positions,
              uint64_t d_model);
  ~Activations();
  Activations(const Activations&) = delete;
  Activations& operator=(const Activations&) = delete;

  /// Whether every file was there already, whole. What it holds is the caller's to know.
  bool reopened() const noexcept { return reopened_; }
  /// normed, mixed [1, positions, d_model].
  void put(uint32_t layer, uint64_t sequence, const Tensor& normed, const Tensor& mixed);
  /// f32 [1, positions, d_model] each.
  std::pair<Tensor, Tensor> get(uint32_t layer, uint64_t sequence) const;
  /// Makes durable what was put.
  void sync() const;
  /// Removes the files; nothing can be put or got after that.
  void remove();

 private:
  struct File {
    uint32_t layer;
    fs::path path;
    int descriptor;
  };
  fs::path folder_;
  uint64_t sequences_, positions_, d_model_;
  std::vector<File> files_;
  bool reopened_ = true;
  uint64_t bytes_of_sequence() const noexcept { return 2 * positions_ * d_model_ * 2; }
  const File& file(uint32_t layer, uint64_t sequence) const;
};

}  // namespace mneme::train
