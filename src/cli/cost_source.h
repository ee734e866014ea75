// What `mneme cost` counts: a config, the tensors of a model's files, or a loaded model.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "cli/options.h"
#include "cost/work.h"
#include "model/checkpoint.h"

namespace mneme::cli {

struct CostSource {
  ModelConfig config;
  std::optional<ActivationPolicy> activation;  // --activation
  std::optional<DType> type;                   // --type; of a config always
  std::optional<Checkpoint> checkpoint;        // of a model that is not loaded
  std::shared_ptr<const Model> model;          // of one that is

  bool is_config() const { return !checkpoint && !model; }
  /// The counts of `of`: the source's own config, or one that a sweep has changed, whose files nobody has.
  ModelShape shape(const ModelConfig& of, const std::optional<ActivationPolicy>& with) const;

 private:
  ModelShape own_shape(const std::optional<ActivationPolicy>& with) const;
  PackedType type_in_checkpoint(const std::string& name, uint64_t cols, bool spiking) const;
};

/// `load`: a model is loaded, because it will run; it is so too where packs are put to it. Throws UsageError
/// for a config that shall run, otherwise what reading the files throws.
CostSource open_cost_source(const ModelOptions& model, const CommonOptions& common, bool load);

}  // namespace mneme::cli
