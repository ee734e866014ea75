// Options that many verbs share, and what they become.
#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "mneme/model.h"
#include "mneme/session.h"

namespace mneme::cli {

/// --threads, --json, --quiet: every verb.
struct CommonOptions {
  int threads = 0;
  bool json = false;
  bool quiet = false;
};
void add_common_options(CLI::App& app, CommonOptions& options);

/// MODEL and how its weights are loaded: every verb that loads one.
struct ModelOptions {
  std::string model;
  std::string activation = "auto";
  std::string type;
  std::string load = "mmap";
  std::vector<std::string> memory;
  std::string memory_budget;
  // Under mpirun (expert_processes.h).
  std::string expert_messages = "auto";
  double lost_after = 20;
  std::shared_ptr<ExpertGroup> expert_group = {};
  std::string experts = "ram";
  std::string experts_budget;
  bool no_read_ahead = false;
};
/// `positional` false leaves MODEL to the verb.
void add_model_options(CLI::App& app, ModelOptions& options, bool positional = true);

/// --kv, --ctx, --chunk: verbs that run a session.
struct SessionFlags {
  std::string kv = "f16";
  uint32_t context = 0;
  uint32_t chunk = 512;
};
/// `with_context` false leaves --ctx to the verb.
void add_session_options(CLI::App& app, SessionFlags& options, bool with_context = true);

/// Throws UsageError for an unknown --type, a bad placement or budget.
LoadOptions load_options(const ModelOptions& model, const CommonOptions& common);
SessionOptions session_options(const SessionFlags& flags);
/// The same for a model: where no --ctx is given, a model whose memory does not grow with the context (no
/// layer attends to everything) has no limit.
SessionOptions session_options(const SessionFlags& flags, const Model& model);
/// Says on stderr that `tokens` are more than the model was made for, if they are.
void note_long_context(const Model& model, uint64_t tokens, const CommonOptions& common);
KvType kv_type(std::string_view name);

/// Resolves and loads the model, with a bar on a terminal. Throws what Model::load throws.
std::shared_ptr<const Model> load_model(const ModelOptions& model, const CommonOptions& common);
/// What a picture calls a model: its own name, or else that of its file.
std::string model_name(const ModelConfig& config, const std::string& path);
/// "avx512-vnni, 2 threads, 12 MB resident, 79 MB mapped, 90 MB on disk; memory bandwidth allows about 350
/// tokens/s (estimate)": the one line that a model prints at start.
std::string describe_model(const Model& model);
/// That line, one for each memory, and one for experts that are read from disk, on stderr.
void print_start(const Model& model);
/// Hits, misses and bytes of experts that are read from disk, as --json shows them.
Json experts_json(const ExpertStatistics& experts);
/// Adds "experts" to what a verb prints with --json, if the model's are read from disk.
void add_experts(Json& json, const Model& model);
/// What experts_json() says, in words on stderr, if the model's are read from disk.
void print_experts(const Model& model);
/// "facts.engram", "facts.engram:cache", "facts.engram:cache+edit.overlay+more.overlay". Throws UsageError
/// for a placement that there is not, or a plus sign with nothing after it.
MemoryPackOptions memory_argument(const std::string& text);

}  // namespace mneme::cli
