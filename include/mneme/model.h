// Model: config + weights in their run-time layout + chosen kernels. Immutable once loaded and shared by all
// sessions.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mneme/memory.h"
#include "mneme/model_config.h"
#include "mneme/tokenizer.h"

namespace mneme {

/// A memory pack that is put to a model.
struct MemoryPackOptions {
  std::filesystem::path path;
  Placement placement = Placement::automatic;
  std::vector<std::filesystem::path> overlays = {};  // of changed rows, the last one first in precedence
};

class ExpertGroup;

struct LoadOptions {
  int threads = 0;   // 0 = one per available core
  bool mmap = true;  // false: read the file into memory first
  std::string type;  // weights of a float checkpoint are quantized to this ("" = as stored)
  std::optional<ActivationPolicy> activation = {};  // overrides the config, in every layer
  /// Packs whose modules are inserted, or that serve tables which the config names.
  std::vector<MemoryPackOptions> memory;
  /// Processes that divide the experts; this one leads them. Null: all experts are here.
  std::shared_ptr<ExpertGroup> expert_group = {};
  uint64_t memory_budget = 0;  // bytes of RAM for the rows of all packs together; 0 = no bound
  /// Where experts of mixtures lie: ram; or mmap or direct, with as many in memory as the budget allows and
  /// the others read when a router chooses them (docs/experts.md). Results do not depend on it.
  Placement experts = Placement::ram;
  uint64_t experts_budget = 0;     // mmap, direct: bytes of RAM for experts; 0 = half of what is free
  bool experts_read_ahead = true;  // mmap, direct: also what the next layer will probably choose
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes of weights prepared; may be empty
};

struct TensorDescription {
  std::string name;
  std::string type;             // as stored in the file
  std::string layout;           // as held in memory
  std::vector<uint64_t> shape;  // outermost first: [rows, cols]
  uint64_t bytes = 0;           // in the file
};

/// A memory table that the model reads.
struct MemoryDescription {
  std::string name;              // in config().tables
  std::string path;              // of the pack
  std::string placement;         // "ram", "mmap", ...
  std::string text;              // one line for people: where rows are, how many bytes, and why
  std::vector<uint32_t> layers;  // of the model that read it
  uint64_t rows = 0, bytes = 0, resident = 0;
  double resident_fraction = -1;  // of the file, in the system's memory
  MemoryStatistics statistics;    // since loading
};

/// Experts that do not all stay in memory, and what was done to have them, since loading.
struct ExpertStatistics {
  std::string placement;      // "mmap" or "direct"
  std::string path;           // of the file that they are read from
  uint64_t experts = 0;       // of all layers
  uint64_t slots = 0;         // of them in memory at a time
  uint64_t expert_bytes = 0;  // of the largest one
  uint64_t resident = 0;      // memory for all slots
  uint64_t hits = 0;          // wanted by a layer of a pass, and in memory
  uint64_t misses = 0;        // wanted, and read for it (a little ahead or not)
  uint64_t bytes_read = 0;    // mmap: or found in the file cache
  uint64_t ahead = 0;         // experts read ahead, and of these
  uint64_t ahead_used = 0;    // the layer they were read for wanted them
  double hit_rate() const noexcept {
    return hits + misses == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(hits + misses);
  }
};

struct ModelBytes {
  uint64_t resident = 0;  // weights copied into memory
  uint64_t mapped = 0;    // weights used in place from a mapped file
  uint64_t disk = 0;      // size of the files
};

struct ModelImpl;

/// Thread-safe. Loading throws mneme::Error: not_found, io, corrupt, unsupported, mismatch, out_of_memory.
class Model {
 public:
  /// Opens a GGUF file (any of its split parts) or a Hugging Face folder.
  static std::shared_ptr<const Model> load(const std::string& path, const LoadOptions& options = {});
  ~Model();
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  const ModelConfig& config() const noexcept;
  const Tokenizer& tokenizer() const;  // throws Error(not_found) if the file carries none
  bool has_tokenizer() const noexcept;
  const std::string& path() const noexcept;
  int threads() const noexcept;
  /// Instruction set of the chosen kernels, e.g. "avx512-vnni".
  std::string_view isa() const noexcept;
  ModelBytes bytes() const noexcept;
  std::vector<TensorDescription> tensors() const;
  /// Tensors that the file holds and the model does not use, by the file's names: a vision tower, or the
  /// scales of W8ASpike, whose integer spikes this version does not compute.
  const std::vector<std::string>& unused_tensors() const noexcept;
  /// With `residency`, also how much of each file lies in memory, which looks at all of its pages.
  std::vector<MemoryDescription> memories(bool residency = false) const;
  /// Nothing if all experts are in memory, or there are none.
  std::optional<ExpertStatistics> experts() const;
  /// Weight bytes that decoding one token reads.
  uint64_t bytes_per_token() const noexcept;
  /// Bytes of KV cache that one more token of context adds over all layers, with values of `kv_type_bytes`
  /// bytes.
  uint64_t kv_bytes_per_token(double kv_type_bytes = 2.0) const noexcept;
  /// Whether a session's memory stays the same however long the context grows: no layer keeps all keys.
  bool state_is_bounded() const noexcept;
  /// One line per fused stage of the decode (or prefill) plan.
  std::string describe_plan(bool prefill = false) const;
  /// SHA-256 (hex) of config, tensor directory and per-tensor checksums, of the memory packs, and of the load
  /// options that change results (type, activation) where they are not the default. Computed on
  /// first use and cached on disk by path, size and time; a first use reads the whole file.
  const std::string& hash() const;

  const ModelImpl& impl() const noexcept { return *impl_; }

 private:
  explicit Model(std::unique_ptr<ModelImpl> impl);
  std::unique_ptr<ModelImpl> impl_;
};

}  // namespace mneme
