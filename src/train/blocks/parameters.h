// The trainable tensors of a model, by the canonical names that the engine's loader uses (tensor_names.h). A
// block asks for its own tensors through a view with a prefix, so that a checkpoint needs no table of names
// per block: whatever expected_tensors() lists is created, saved and loaded.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mneme/model_config.h"
#include "train/blocks/spiking.h"
#include "train/tensor.h"

namespace mneme::train {

/// Leaf tensors that require gradients, in the order of expected_tensors(): f32, or f64 in tests of
/// gradients. Not thread-safe while a tensor is replaced; reading is.
class Parameters {
 public:
  Parameters() = default;
  /// Every tensor of a valid config, initialised: projections N(0, 0.02) and those that write into the
  /// residual stream N(0, 0.02 / sqrt(2 layers)); norms 1 (less NormConfig::weight_offset); biases 0; gates,
  /// decays and Engram modules as docs/training.md says. Equal seeds give equal values, whatever the number
  /// of threads.
  static Parameters create(const ModelConfig& config, uint64_t seed, at::Device device = at::kCPU);

  /// Throws Error(not_found) for a name that is not there.
  const Tensor& at(std::string_view name) const;
  bool has(std::string_view name) const { return by_name_.find(name) != by_name_.end(); }
  const std::vector<std::string>& names() const noexcept { return names_; }
  /// Adds a leaf (detached, f32 unless it is f64, requires grad). Throws Error(invalid_argument) for a name
  /// that is taken.
  void add(std::string name, Tensor value);
  /// Copies of all tensors as leaves of another floating type (f64: what gradients are tested in).
  Parameters to(at::ScalarType type) const;
  /// Values in all tensors.
  uint64_t count() const;

 private:
  std::vector<std::string> names_;
  std::map<std::string, Tensor, std::less<>> by_name_;
};

/// The tensors whose names begin with a prefix ("blk.3."), as a block sees them; `bfloat16` says how products
/// with them are computed, `inputs` what they read.
class Weights {
 public:
  Weights(const Parameters& all, std::string prefix, bool bfloat16 = false, const LayerInputs& inputs = {})
      : all_(&all), prefix_(std::move(prefix)), bfloat16_(bfloat16), inputs_(inputs) {}
  const Tensor& operator[](std::string_view name) const { return all_->at(prefix_ + std::string(name)); }
  bool has(std::string_view name) const { return all_->has(prefix_ + std::string(name)); }
  /// x [..., in], or the spikes of it where the projection reads spikes, times NAME.weight [out, in], plus
  /// NAME.bias where there is one: [..., out]. `share`: the part of the pass's tokens that x is.
  Tensor linear(std::string_view name, const Tensor& x, double share = 1) const;
  Weights below(std::string_view more) const {
    return {*all_, prefix_ + std::string(more), bfloat16_, inputs_};
  }
  bool bfloat16() const noexcept { return bfloat16_; }

 private:
  const Parameters* all_;
  std::string prefix_;
  bool bfloat16_;
  LayerInputs inputs_;
};

}  // namespace mneme::train
