// A whole model as differentiable operations: the same ModelConfig, the same tensors and the same numbers as
// the engine's plan, over whole sequences. Each kind of block is one file block_*.cpp with one function;
// decoder.cpp strings them together by the config. Tested against the engine block by block
// (tests/train/parity_test.cpp).
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "mneme/model_config.h"
#include "train/parameters.h"
#include "train/row_table.h"

namespace mneme::train {

/// The tables of a model while it is trained, by their name in ModelConfig::tables.
using RowTables = std::map<std::string, RowTable>;

/// The rows that a batch reads, by table name and layer: made before the pass, because all ids are known
/// then.
using BatchRows = std::map<std::string, std::map<uint32_t, TouchedRows>>;

/// Discrete choices of a pass (the blocks that sparse attention picked), by layer: recorded in one pass and
/// forced in another, or on the engine.
struct Choices {
  std::map<uint32_t, Tensor> blocks;  // int64 [batch, heads, length, top_k], -1 where fewer exist
};

struct PassOptions {
  bool checkpoint_layers = false;  // keep only the inputs of layers and compute them again in backward
  bool bfloat16 = false;           // matrix products in bf16, everything else in f32
  Choices* record = nullptr;
  const Choices* forced = nullptr;
};

/// Immutable but for the parameters, which it refers to; they must outlive it.
class Decoder {
 public:
  /// Throws Error(mismatch) for parameters that are missing or have another shape.
  Decoder(ModelConfig config, const Parameters& parameters);

  const ModelConfig& config() const noexcept { return config_; }
  /// tokens int64 [batch, length], each sequence a context of its own from position 0 -> [batch, length,
  /// d_model] after the output norm.
  Tensor hidden(const Tensor& tokens, const BatchRows& rows = {}, const PassOptions& options = {}) const;
  /// hidden() times the head: [batch, length, vocab].
  Tensor logits(const Tensor& tokens, const BatchRows& rows = {}, const PassOptions& options = {}) const;
  /// Mean cross-entropy of targets int64 [batch, length], -1 where there is none: a scalar.
  Tensor loss(const Tensor& tokens, const Tensor& targets, const BatchRows& rows = {},
              const PassOptions& options = {}) const;

 private:
  ModelConfig config_;
  const Parameters* parameters_;
};

}  // namespace mneme::train
