// The tensors of a W8ASpike checkpoint as its model uses them. The file holds float weights and, beside the
// projections, scales of groups of 128 inputs; the model rounds at run time,
//
//   w = round(weight / scale) * scale      ties to even, symmetric, not clamped
//
// so this source shows the rounded weights to everybody who reads the checkpoint: the loader, `quantize`,
// `convert` and training. down_proj has scales too, but the published code never rounds it: its feed-forward
// hands the raw matrix to a fused product. Here it keeps its floats.
//
// A rounded tensor exists in memory from data() to release(). Thread-safe, as every TensorSource.
#pragma once
#include <map>
#include <memory>
#include <mutex>

#include "files/tensor_source.h"

namespace mneme {

class RoundedWeights final : public TensorSource {
 public:
  /// Takes over the tensors of a gla_swa checkpoint that has_weight_scales(). Throws Error(mismatch) naming a
  /// list of scales that is missing or has another shape than [rows, columns / 128, 1].
  explicit RoundedWeights(std::unique_ptr<TensorSource> file);

  /// The scales that `weight` was rounded to, [rows, columns / 128, 1], or null if it was not.
  const TensorInfo* scales_of(const TensorInfo& weight) const;

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(std::string_view name) const override;
  /// Throws Error(corrupt) naming a tensor with a scale that is not a number above 0, or a weight that is
  /// more than 32,767 of its scales.
  Bytes data(const TensorInfo& tensor) const override;
  void release(const TensorInfo& tensor) const override;
  uint64_t file_bytes() const override { return file_->file_bytes(); }
  std::vector<fs::path> paths() const override { return file_->paths(); }

 private:
  std::vector<float> rounded(const TensorInfo& weight, const TensorInfo& scales) const;

  std::unique_ptr<TensorSource> file_;
  std::vector<TensorInfo> infos_;  // as the file's, but rounded weights are F32
  std::map<std::string, const TensorInfo*, std::less<>> by_name_;
  std::map<std::string, const TensorInfo*, std::less<>> scales_;  // of a weight's name
  mutable std::mutex mutex_;
  mutable std::map<std::string, std::vector<float>, std::less<>> values_;
};

/// Whether a gla_swa checkpoint is W8ASpike: its projections come with scales.
bool has_weight_scales(const TensorSource& tensors);

}  // namespace mneme
