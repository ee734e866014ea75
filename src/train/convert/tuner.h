// AdamW over some tensors of a model, for the stages of a conversion: they train few tensors for few steps,
// layers independently of each other, and all of their state must survive a stop.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "train/convert/converted_model.h"
#include "train/convert/recipe.h"

namespace mneme::train {

/// Whether groups of tensors (TuneSettings::train) name this one. A tensor of a layer must belong to
/// `layers`.
bool is_trained(const std::string& name, const std::vector<std::string>& groups,
                const std::vector<uint32_t>& layers);

/// Shares the tensors that it moves. Not thread-safe.
class Tuner {
 public:
  /// Those tensors of the model that need gradients (make_trainable()) and belong to `layers` (empty: all).
  Tuner(const ConvertedModel& model, const std::vector<uint32_t>& layers, const TuneSettings& settings);

  bool empty() const noexcept { return slots_.empty(); }
  uint64_t values() const noexcept;
  void zero_gradients();
  /// One step; `step` counts from 1. `others` are gradients that are clipped along and not applied here.
  /// Returns what gradients were multiplied by. Throws Error(corrupt) for a gradient that is not finite.
  double step(uint64_t step, const std::vector<Tensor>& others = {});
  double lr(uint64_t step) const;

  /// The moments, "m.NAME" and "v.NAME": the memory itself, not copies.
  NamedTensors state() const;
  /// Overwrites them. Throws Error(corrupt) for a tensor that is missing or has another shape.
  void restore(const NamedTensors& state);

 private:
  struct Slot {
    std::string name;
    Tensor leaf, value, first, second;
  };
  TuneSettings settings_;
  std::vector<Slot> slots_;
};

}  // namespace mneme::train
