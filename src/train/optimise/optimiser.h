// How the dense tensors of a model move. AdamW (Loshchilov and Hutter 2019) for all of them, or Muon (Jordan
// et al. 2024, "Muon: An optimizer for hidden layers in neural networks") for the matrices of layers: their
// momentum is replaced by the nearest matrix whose singular values are all about one, found by five steps of
// a quintic Newton-Schulz iteration, and scaled by 0.2 sqrt(max(rows, columns)) so that its values are as
// large as Adam's (Liu et al. 2025, "Muon is scalable for LLM training"); one learning rate then serves both.
//
// f32 tensors on the CPU are updated in one pass over memory on all threads; on any other device the same
// formulas run as libtorch operations. Equal gradients give equal bits, whatever the number of threads
// (Muon's matrix products: for an equal number of threads).
#pragma once
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "train/blocks/parameters.h"
#include "train/run/run_config.h"

namespace mneme::train {

/// State by name, as it lies in a checkpoint.
using NamedTensors = std::map<std::string, Tensor, std::less<>>;

/// sqrt of the sum of squares of all values together; undefined tensors count as nothing. Not finite if a
/// value is not.
double gradient_norm(std::span<const Tensor> gradients);

/// What is done with one tensor.
struct UpdateRule {
  bool muon = false;   // else AdamW
  bool decay = false;  // pulled towards zero by lr * weight_decay a step
};
/// Decay: matrices that multiply (not embeddings that are only looked up, not convolutions). Muon, where it
/// is chosen: those of them that belong to a layer and are at least 16 wide both ways; routers never.
UpdateRule update_rule(const OptimiserConfig& config, bool tied, const std::string& name,
                       const Tensor& value);

/// Refers to the parameters, which must outlive it. Not thread-safe.
class Optimiser {
 public:
  /// `tied`: ModelConfig::tied, which makes the embedding a matrix that multiplies.
  Optimiser(const OptimiserConfig& config, const Parameters& parameters, bool tied);

  /// Moves every parameter that has a gradient. `lr` is this step's; gradients are multiplied by
  /// `gradient_scale` (clipping) on the way and are kept.
  void step(double lr, double gradient_scale = 1.0);
  /// Steps taken.
  uint64_t steps() const noexcept { return steps_; }

  /// The state itself, not copies: "m.NAME" and "v.NAME" (AdamW), "momentum.NAME" (Muon).
  NamedTensors state() const;
  /// Overwrites the state. Throws Error(mismatch) for a tensor that is missing or has another shape.
  void restore(const NamedTensors& state, uint64_t steps);

 private:
  struct Slot {
    std::string name;
    Tensor value;  // shares memory with the parameter
    UpdateRule rule;
    Tensor first, second;  // Muon: the momentum alone
  };
  OptimiserConfig config_;
  std::vector<Slot> slots_;
  uint64_t steps_ = 0;

  void adamw(Slot& slot, const Tensor& gradient, double lr, double scale) const;
  void muon(Slot& slot, const Tensor& gradient, double lr, double scale) const;
};

/// The orthogonal factor of a matrix [rows, columns], nearly: singular values between about 0.7 and 1.2.
Tensor newton_schulz(const Tensor& matrix, uint32_t iterations);

/// One step of AdamW on any tensors of equal shape; `step` counts from 1. CPU f32 in one pass, else by
/// libtorch.
struct AdamSettings {
  double lr = 0, beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0, gradient_scale = 1;
};
void adamw_step(const Tensor& value, const Tensor& gradient, const Tensor& first, const Tensor& second,
                const AdamSettings& settings, uint64_t step);

}  // namespace mneme::train
