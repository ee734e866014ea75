// A model whose neurons can be set again without loading it: for whoever looks for k and dead zones
// (eval/spike_calibration.h) and needs many settings of the same weights, which lie in stripes from the
// start.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "mneme/model.h"
#include "model/model_impl.h"

namespace mneme {

class TunableModel {
 public:
  /// Loads a model with one policy a layer instead of those of its config (options.activation must be
  /// empty). Throws what Model::load throws, and what set() throws.
  TunableModel(const std::string& path, LoadOptions options, std::vector<ActivationPolicy> layers);

  const std::shared_ptr<const Model>& model() const noexcept { return model_; }

  /// Sets k and dead zone of every projection that spikes. No session of the model may exist: their states,
  /// and that of its sink tokens, belong to the neurons that computed them. Throws Error: invalid_argument (a
  /// value out of range, not one policy for every layer), unsupported (a projection whose kind of activation
  /// is not the same in every layer, or not that which it was loaded with).
  void set(const std::vector<ActivationPolicy>& layers);

 private:
  std::shared_ptr<const Model> model_;
  ActivationPolicy kinds_;  // of every layer
};

}  // namespace mneme
