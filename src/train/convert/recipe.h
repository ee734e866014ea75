// A recipe: how a model becomes another kind of model, as a list of stages in a strict JSON file.
// docs/conversion.md is its schema in prose. Reading a recipe checks everything that does not need the model;
// check_recipe() checks the rest before any work begins.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "convert/upcycle.h"
#include "core/file.h"
#include "core/json.h"
#include "mneme/model_config.h"
#include "train/blocks/experts.h"

namespace mneme::train {

/// How weights are trained in a stage.
struct TuneSettings {
  uint64_t steps = 0;
  uint32_t sequences = 1;  // of one step, one pass each
  uint32_t length = 512;   // tokens of a sequence
  double lr = 1e-3;
  uint64_t warmup = 10;  // steps from 0 to lr; then half a cosine down to a tenth of it
  double clip = 1.0;     // of the norm of all gradients (transfer: of a layer's); 0 = off
  double weight_decay = 0.0;
  std::vector<std::string> train;  // groups of tensors: tensor_group()
  uint64_t save_every = 100;       // steps
  uint64_t solve = 0;      // transfer: sequences from which the output projection is solved for at the start
  uint32_t at_once = 0;    // transfer: layers trained together; 0 = all
  uint32_t passes = 1;     // transfer: over the text; more than one: from activations on disk
  double temperature = 1;  // distill: of both distributions
  double cross_entropy = 0;        // distill: share of the text's own next token in the loss
  uint64_t measure_every = 0;      // distill: steps between measurements of held-out text; 0 = none
  uint64_t measure_tokens = 8192;  // distill: of it
  BalanceConfig experts;           // distill
  bool bfloat16 = false;           // matrix products in bf16
  bool checkpoint_layers = false;  // distill: keep the inputs of layers alone and compute them again
};

/// Spiking projections, and how a model learns to fire less in them.
struct SpikeSettings {
  std::vector<Projection> projections;
  double first_k = 3, k = 3;                  // of the neurons (NeuronSetting) at the first step, and at last
  double first_dead_zone = 0, dead_zone = 0;  // the same
  double anneal = 0.5;      // share of the steps in which both go from the first value to the last
  double penalty = 0;       // SpikeOptions::penalty, nats
  double width = 1;         // SpikeOptions::width
  uint64_t log_every = 10;  // steps between lines of the curve

  /// The neuron at step `step` of `steps` (from 1): k along a geometric line, the dead zone along a straight
  /// one.
  ActivationConfig neuron(uint64_t step, uint64_t steps) const;
  /// The neuron that is left at the end.
  ActivationConfig last() const;
};

/// Which layers a stage is about.
struct LayerChoice {
  enum class Of {
    list,       // `layers`
    all,        // every layer
    full,       // those with full attention at that point
    converted,  // those whose mixer is not the original's any more
    recurrent   // those with a recurrence in their mixer
  };
  Of of = Of::all;
  std::vector<uint32_t> layers;  // of Of::list, ascending
  uint32_t choose = 0;           // this many of them, the least sensitive ones; 0 = all of them
  uint32_t curve = 0;            // choose: layers up to which the loss is measured as more are converted
  uint64_t tokens = 8192;        // choose: of held-out text for each measurement
  bool greedy = false;    // choose: measure the rest again after each choice, together with those chosen
  bool untrained = true;  // choose with transfer: measure every candidate before it too
  std::optional<TuneSettings> transfer;  // choose: train every candidate before it is measured
};

struct Stage {
  enum class Kind { window, hybrid, parallel, engram, transfer, distill, spike, upcycle };
  Kind kind = Kind::window;
  LayerChoice layers;
  Json mixer;               // window, hybrid, parallel: fields of the new mixer, as in docs/config.md
  bool rope_decay = false;  // hybrid, parallel: gates of gla start at decays as long as pairs of RoPE see
  Json table;               // engram: fields of the table
  Json module;              // engram: fields of the module
  bool zero_values = true;  // engram: the value projection starts at zero, else the table
  double deviation = 0.02;  // engram: of the table's first values
  TuneSettings tune;        // transfer, distill, spike
  SpikeSettings spikes;     // spike
  UpcycleOptions upcycle;   // upcycle
};
std::string_view to_string(Stage::Kind kind) noexcept;

struct Recipe {
  std::vector<fs::path> train;       // texts, JSONL files and folders of them
  std::vector<fs::path> validation;  // text files; never trained on
  std::string text_field = "text";
  uint32_t context = 2048;  // tokens of a window of the perplexity that is reported
  uint64_t tokens = 32768;  // of held-out text for it
  uint64_t seed = 1;
  std::vector<Stage> stages;
  /// Of what decides the result, 16 hexadecimal digits each: all but the stages, then every stage.
  std::vector<std::string> hashes;

  /// `name` stands for the file in messages; relative paths are made relative to `folder`. Throws
  /// Error(corrupt) for malformed JSON, Error(invalid_argument) for unknown, missing or contradictory fields.
  static Recipe from_json(std::string_view json, const fs::path& folder, std::string_view name);
  static Recipe load(const fs::path& file);
};

/// The config after a stage, with all layers it names (not chosen yet) converted. Throws
/// Error(invalid_argument) naming the stage and field that do not go with this model.
ModelConfig converted_config(const ModelConfig& config, const ModelConfig& original, const Stage& stage,
                             size_t number, const std::vector<uint32_t>& layers, uint32_t classes);
/// Gives these layers' projections of a spike stage this neuron.
void set_neurons(ModelConfig& config, const SpikeSettings& spikes, const std::vector<uint32_t>& layers,
                 const ActivationConfig& neuron);
/// The layers that a choice is about, given the model as it is when the stage begins.
std::vector<uint32_t> candidate_layers(const LayerChoice& choice, const ModelConfig& config,
                                       const ModelConfig& original, std::string_view where);
/// Walks all stages with configs alone. `classes`: of the tokenizer's token map, for engram stages. Throws
/// Error(invalid_argument) for the first stage that cannot be done.
void check_recipe(const Recipe& recipe, const ModelConfig& config, uint32_t classes);

/// The group of a tensor by its canonical name: "gate", "norm" (of mixers), "qk", "v", "o", "engram", "ffn",
/// "router" (with its bias and the shared expert's gate), "norms" (of layers and output) or "embedding".
std::string_view tensor_group(std::string_view name) noexcept;

}  // namespace mneme::train
