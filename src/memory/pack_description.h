// The JSON of a pack: PackDescription, the constants that follow from its config, and the directory of
// tensors.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "memory/engram_hash.h"
#include "memory/pack.h"

namespace mneme {

/// Where a tensor lies: `offset` from the start of the tensor section.
struct PackEntry {
  TensorInfo info;
  uint64_t offset = 0;
  uint64_t checksum = 0;
};

std::string pack_description_json(const PackDescription& description, const EngramHash& hash,
                                  const std::vector<PackEntry>& tensors);

struct ParsedDescription {
  PackDescription description;
  std::vector<PackEntry> tensors;
  uint64_t rows = 0;
};
/// Throws Error: corrupt, invalid_argument (a config out of range), mismatch (constants that do not follow
/// from the config). Tensors are checked against `tensor_bytes`, the size of their section.
ParsedDescription parse_pack_description(std::string_view json, uint64_t tensor_bytes,
                                         const std::string& name);

/// Throws Error(invalid_argument) for two modules of a layer, or one whose layer the table does not have.
void check_modules(const PackDescription& description, const std::string& name);

}  // namespace mneme
