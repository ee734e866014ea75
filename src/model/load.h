// From a checkpoint to a ModelImpl: every weight is packed once into the layout that the kernels read, tensor
// by tensor, so that memory never holds more than the file and one tensor.
#pragma once
#include <memory>

#include "model/model_impl.h"

namespace mneme {

std::unique_ptr<ModelImpl> load_model(const std::string& path, const LoadOptions& options);
/// With memories that are open already, instead of those of options.memory.
std::unique_ptr<ModelImpl> load_model(const std::string& path, const LoadOptions& options,
                                      std::vector<OpenedMemory> memories);

/// Numbers the neurons of projections that read the same input: equal ones fire once.
void share_neurons(const std::vector<Linear*>& readers);

/// SHA-256 (hex) of config JSON, tensor directory and per-tensor SHA-256 of the checkpoint at `path`; kept in
/// the cache folder under path, sizes and times of its files.
std::string checkpoint_hash(const std::string& path);

}  // namespace mneme
