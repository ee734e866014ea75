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
  /// empty). Throws what Model::load throws, and Error(invalid_argument) unless there is a valid policy for
  /// every layer.
  TunableModel(const std::string& path, const LoadOptions& options, std::vector<ActivationPolicy> layers);

  const std::shared_ptr<const Model>& model() const noexcept { return model_; }
  const std::vector<ActivationPolicy>& layers() const noexcept { return layers_; }

  /// Sets k and dead zone of every projection that spikes. No session of the model may exist: their states,
  /// and that of its sink tokens, belong to the neurons that computed them. Throws Error(invalid_argument)
  /// for a value out of range, or if a projection would spike that does not, or the other way round.
  void set(std::vector<ActivationPolicy> layers);

 private:
  ModelImpl* impl_;  // of model_
  std::shared_ptr<const Model> model_;
  std::vector<ActivationPolicy> layers_;
};

/// Numbers the neurons of projections that read the same input: equal ones fire once.
void share_neurons(const std::vector<Linear*>& readers);

}  // namespace mneme
