// A whole model as differentiable operations: the same ModelConfig, the same tensors and the same numbers as
// the engine's plan, over whole sequences. Each kind of block is one file block_*.cpp with one function;
// decoder.cpp strings them together by the config. Tested against the engine block by block
// (tests/train/blocks/parity_test.cpp).
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mneme/model_config.h"
#include "train/blocks/experts.h"
#include "train/blocks/parameters.h"
#include "train/blocks/row_table.h"
#include "train/blocks/spiking.h"

namespace mneme::train {

class PassContext;

/// The tables of a model while it is trained, by their name in ModelConfig::tables.
using RowTables = std::map<std::string, RowTable>;

/// The rows that a batch reads, by table name and layer of the model: made before the pass
/// (engram_ids.h), because all ids are known then.
using BatchRows = std::map<std::string, std::map<uint32_t, TouchedRows>>;

/// Discrete choices of a pass. Recorded in one pass and forced in another, or on the engine.
struct Choices {
  /// The blocks that sparse attention picked, by mixer: counted over the layers in order, two for a parallel
  /// one, as the engine counts them.
  /// int64 [batch, heads, positions, top_k], each query's own block included, ascending; -1 in front where
  /// there are fewer. Positions begin with the model's sink tokens, which choose nothing.
  std::map<uint32_t, Tensor> blocks;
  /// The experts that a token passes, by layer: int64 [batch, positions, top_k] as in Route::expert, best
  /// first. Positions begin with the model's sink tokens, which choose too.
  std::map<uint32_t, Tensor> experts;
};

struct PassOptions {
  bool checkpoint_layers = false;  // keep only the inputs of layers and compute them again in backward
  bool bfloat16 = false;           // matrix products in bf16, everything else in f32
  Choices* record = nullptr;
  const Choices* forced = nullptr;  // must outlive the backward pass too
  SpikeOptions spikes;
  ExpertOptions experts;
};

/// Immutable but for the parameters, which it refers to. With checkpoint_layers both must outlive the
/// backward pass.
class Decoder {
 public:
  /// Throws Error(mismatch) for parameters that are missing or have another shape, and what
  /// ModelConfig::validate() and spiking_weights() throw.
  Decoder(ModelConfig config, const Parameters& parameters);

  const ModelConfig& config() const noexcept { return shape_->config; }
  /// tokens int64 [batch, length], each sequence a context of its own from position 0 -> [batch, length,
  /// d_model] after the output norm. Throws Error(invalid_argument) for tokens of another shape or type, and
  /// for a memory whose rows are not there.
  Tensor hidden(const Tensor& tokens, const BatchRows& rows = {}, const PassOptions& options = {}) const;
  /// hidden() times the head: [batch, length, vocab].
  Tensor logits(const Tensor& tokens, const BatchRows& rows = {}, const PassOptions& options = {}) const;
  /// Mean cross-entropy of targets int64 [batch, length], -1 where there is none: a scalar.
  Tensor loss(const Tensor& tokens, const Tensor& targets, const BatchRows& rows = {},
              const PassOptions& options = {}) const;

 private:
  Tensor embed(const Tensor& tokens) const;
  Tensor layer(size_t number, Tensor x, const BatchRows& rows, const PassContext& context) const;
  Tensor head() const;

  struct Shape {
    ModelConfig config;
    std::vector<uint32_t> first_mixer;  // of each layer, counted as in Choices
  };
  std::shared_ptr<const Shape> shape_;
  const Parameters* parameters_;
};

}  // namespace mneme::train
