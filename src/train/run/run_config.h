// RunConfig: one training run as plain validated data, read from strict JSON (docs/training.md has the table
// of fields). An unknown field is refused with the nearest known name, a contradiction with both names; a
// document that RunConfig writes (to_json) holds every field, so that two runs can be compared field by
// field.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "mneme/model_config.h"
#include "train/blocks/experts.h"

namespace mneme::train {

struct DataConfig {
  /// Folders of shards, or texts, JSONL files and folders of them, which become shards under OUT/shards.
  std::vector<fs::path> train, validation;
  /// Share of the documents of `train` that are held out and validated on, where `validation` is empty.
  double hold_out = 0;
  uint32_t length = 512;            // tokens of a sequence that are predicted
  std::string text_field = "text";  // of a JSONL line
  bool operator==(const DataConfig&) const = default;
};

struct BatchConfig {
  uint32_t sequences = 8;   // in one pass forward and backward
  uint32_t accumulate = 1;  // passes whose gradients make one step
  /// Sequences of one step, over all processes.
  uint64_t global() const noexcept { return uint64_t{sequences} * accumulate; }
  bool operator==(const BatchConfig&) const = default;
};

/// How the rows of Engram tables are updated; both kinds touch the rows of the batch and nothing else.
struct RowOptimiserConfig {
  enum class Type {
    adam,   // two moments a value
    scalar  // one mean square a row (row-wise RMS), no momentum
  };
  Type type = Type::adam;
  double lr_scale = 5.0;                   // times the learning rate of the step (Engram, section 4.1)
  std::array<double, 2> betas{0.9, 0.95};  // scalar: the second alone
  double eps = 1e-8;
  bool operator==(const RowOptimiserConfig&) const = default;
};

struct OptimiserConfig {
  enum class Type {
    adamw,  // every tensor
    muon    // the two-dimensional tensors of layers; all else by AdamW
  };
  Type type = Type::adamw;
  double lr = 1e-3;
  std::array<double, 2> betas{0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;  // of matrices; never of norms, biases, embeddings' rows of Engram
  double clip = 1.0;          // of the norm of all gradients together; 0 = off
  double momentum = 0.95;     // muon
  uint32_t iterations = 5;    // muon: of Newton and Schulz
  RowOptimiserConfig rows;
  bool operator==(const OptimiserConfig&) const = default;
};

struct ScheduleConfig {
  enum class Type {
    cosine,   // from 1 to `floor` along half a cosine
    wsd,      // 1, and over the last `decay` of the steps down to `floor` in a straight line
    constant  // 1
  };
  Type type = Type::cosine;
  uint64_t warmup = 0;  // steps from 0 to 1; absent in JSON: a twentieth of the steps, at most 200
  double floor = 0.1;   // of the learning rate
  double decay = 0.2;   // wsd
  bool operator==(const ScheduleConfig&) const = default;
};

enum class Precision {
  f32,
  bf16  // matrix products in bf16; weights, sums and everything else in f32
};

struct ValidateConfig {
  uint64_t every = 0;       // steps; 0 = never
  uint64_t tokens = 65536;  // at most, always the same ones
  bool operator==(const ValidateConfig&) const = default;
};

struct SamplesConfig {
  uint64_t every = 0;  // steps; 0 = never
  std::vector<std::string> prompts;
  uint32_t tokens = 64;
  double temperature = 0.8;  // 0 = the likeliest token
  bool operator==(const SamplesConfig&) const = default;
};

struct SaveConfig {
  uint64_t every = 500;  // steps; the last step is always saved; 0 = it alone
  uint32_t keep = 3;     // newest checkpoints; 0 = all
  bool operator==(const SaveConfig&) const = default;
};

/// Ends a run after `patience` validations in a row that are not better than the best by `min_delta` nats.
struct EarlyStopConfig {
  uint32_t patience = 0;  // 0 = off
  double min_delta = 0.0;
  bool operator==(const EarlyStopConfig&) const = default;
};

struct RunConfig {
  /// One of the two: a description, or a description's or checkpoint's path (whose weights are the start).
  std::optional<ModelConfig> model;
  fs::path model_path;
  fs::path tokenizer;  // tokenizer.json, a checkpoint that has one, or empty: that of model_path
  DataConfig data;
  BatchConfig batch;
  uint64_t steps = 0;  // in all; JSON may say "tokens" instead, which is rounded up to whole steps
  OptimiserConfig optimiser;
  ScheduleConfig schedule;
  BalanceConfig experts;  // of models that have some
  Precision precision = Precision::f32;
  bool checkpoint_layers = false;  // keep the inputs of layers alone and compute them again in backward
  ValidateConfig validate;
  SamplesConfig samples;
  SaveConfig save;
  EarlyStopConfig early_stop;
  uint64_t seed = 1;     // of the first weights, the order of data and samples
  uint32_t threads = 0;  // 0 = one per core
  std::string device = "cpu";
  fs::path out;

  /// Tokens that one step predicts.
  uint64_t tokens_per_step() const noexcept { return batch.global() * data.length; }

  /// Throws Error(invalid_argument) naming the field that is out of range or contradicts another.
  void check() const;
  /// Every field with its value, defaults included; paths as they are.
  Json to_json() const;
  /// Parses and checks. Relative paths are made relative to `folder`. Throws Error(corrupt) for malformed
  /// JSON and Error(invalid_argument) for unknown or bad fields; `name` stands for the file in messages.
  static RunConfig from_json(std::string_view json, const fs::path& folder, std::string_view name);
  /// As from_json() with a document that is parsed already.
  static RunConfig from_document(const Json& document, const fs::path& folder, std::string_view name);
  /// Reads a file; the fields of the object `instead` replace those of the file at the top level (--steps on
  /// the command line). Throws also Error(not_found | io).
  static RunConfig load(const fs::path& file, const Json& instead = Json::object());
};

/// The learning rate of step `step` (the first is 1) as a share of OptimiserConfig::lr.
double schedule_factor(const ScheduleConfig& schedule, uint64_t step, uint64_t steps);

/// The first field (its path) in which `resumed` would compute other numbers than `saved`, or "". Fields that
/// only watch (validate, samples, save, early_stop, threads, out, device) may differ; so may the number of
/// steps and the schedule, as long as no step up to `done` had another learning rate. Data is compared by its
/// checksums elsewhere, not by path; so is a model that is a path (first_difference_of_models). Both
/// arguments are documents of to_json().
std::string first_difference(const Json& saved, const Json& resumed, uint64_t done);
/// What a model computes: to_json() without its name, which may be that of its folder.
Json model_fields(const ModelConfig& model);
/// The first of them ("model.norm.eps") in which two models differ, or "".
std::string first_difference_of_models(const ModelConfig& saved, const ModelConfig& resumed);

}  // namespace mneme::train
