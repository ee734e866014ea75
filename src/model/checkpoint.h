// A checkpoint on disk, opened and understood: a GGUF file or a Hugging Face folder, its ModelConfig, and its
// tensors under their canonical names. The loader needs nothing else and never asks which of the two it was.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "files/gguf.h"
#include "files/tensor_source.h"
#include "mneme/model_config.h"
#include "model/rounded_weights.h"
#include "model/tensor_names.h"

namespace mneme {

/// Makes other tensors of a checkpoint's, which stay alive inside of them.
using ChangeTensors = std::function<std::unique_ptr<TensorSource>(std::unique_ptr<TensorSource> tensors)>;

/// Movable; immutable and thread-safe once open.
class Checkpoint {
 public:
  const fs::path& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  const TensorSource& tensors() const { return *tensors_; }
  /// How the source names its tensors; `gguf` for a GGUF file.
  NameStyle style() const { return style_; }
  /// The GGUF metadata, or nullptr for a folder.
  const GgufMetadata* metadata() const { return metadata_; }

  /// The tensor with this canonical name, or nullptr if the config has none such. Its `name` is the file's
  /// own.
  const TensorInfo* find(std::string_view canonical) const;
  /// As find(), but throws Error(not_found).
  const TensorInfo& at(std::string_view canonical) const;
  /// The scales of groups of 128 columns, [rows, groups, 1], that this matrix of a W8ASpike checkpoint is
  /// rounded to, or null if it is none such.
  const TensorInfo* scales_of(const TensorInfo& weight) const;
  /// Tensors that the file holds and the config does not use (a vision tower, say), by the file's names.
  const std::vector<std::string>& leftovers() const { return match_.leftovers; }
  /// Text of a small file beside config.json ("tokenizer.json"), or "" if there is none or this is a GGUF
  /// file.
  std::string folder_file(std::string_view name) const;

 private:
  friend Checkpoint open_checkpoint(const fs::path& path, LoadMode mode);
  friend Checkpoint changed_checkpoint(Checkpoint in, ModelConfig config, const ChangeTensors& change);

  fs::path path_;
  ModelConfig config_;
  std::unique_ptr<TensorSource> tensors_;
  NameStyle style_ = NameStyle::gguf;
  const GgufMetadata* metadata_ = nullptr;   // inside tensors_
  const RoundedWeights* rounded_ = nullptr;  // tensors_, if it is that
  TensorMatch match_;                        // points into tensors_
};

/// Opens a GGUF file (any part of a split one) or a Hugging Face folder, imports its config and checks every
/// tensor against it. Throws Error: not_found (with the nearest name in the same folder), unsupported (a kind
/// of file or model that this version does not know), corrupt, mismatch, io.
Checkpoint open_checkpoint(const fs::path& path, LoadMode mode = LoadMode::mmap);

/// `in` as a checkpoint of another config. The tensors must have the names of its style. Throws
/// Error(mismatch) if they are not what `config` asks for.
Checkpoint changed_checkpoint(Checkpoint in, ModelConfig config, const ChangeTensors& change);

}  // namespace mneme
