#include "cli/options.h"

#include <fmt/format.h>

#include "cli/sizes.h"
#include "cli/verb.h"
#include "core/dtype.h"
#include "core/fail.h"
#include "core/file.h"

namespace mneme::cli {

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("--threads", options.threads, "Threads; 0: one per available core")
      ->type_name("N")
      ->check(CLI::Range(0, 1024).description(""))
      ->group("Common");
  app.add_flag("--json", options.json, "Print one JSON document on standard output")->group("Common");
  app.add_flag("-q,--quiet", options.quiet, "No progress bars and notes on standard error")->group("Common");
}

void add_model_options(CLI::App& app, ModelOptions& options, bool positional) {
  if (positional)
    app.add_option("model", options.model, "A GGUF file, a Hugging Face folder, or a name of `mneme list`")
        ->type_name("MODEL")
        ->required();
  app.add_option("--activation", options.activation,
                 "What the inputs of projections are rounded to: auto, float, int8, spike or int4; auto: "
                 "what the model says, mostly int8 for quantized weights, else float. With a colon come a "
                 "neuron and projections apart: spike:k=2.5,dead_zone=0.5,down=int8 (docs/config.md)")
      ->type_name("POLICY")
      ->group("Model");
  app.add_option(
         "--type", options.type,
         "Quantize the weights of a float checkpoint to this at load (q8_0, q4_0, f16, ...); default: "
         "as stored")
      ->type_name("TYPE")
      ->group("Model");
  app.add_option("--load", options.load,
                 "How weights come into memory: mapped from the file, or read at once")
      ->check(CLI::IsMember({"mmap", "read"}))
      ->group("Model");
  app.add_option(
         "--memory", options.memory,
         "Engram memory: a pack, or a JSON file or folder that says where rows are (docs/memory.md); "
         "placement: auto (default), ram, mmap, direct or cache; files of changed rows. May be repeated")
      ->type_name("SOURCE[:placement][+OVERLAY...]")
      ->allow_extra_args(false)
      ->group("Model");
  app.add_option("--memory-budget", options.memory_budget,
                 "Most RAM for the rows of memory packs, such as 512M or 4G; default: no bound")
      ->type_name("BYTES")
      ->group("Model");
  app.add_option(
         "--experts", options.experts,
         "Where the experts of mixtures are: ram; or on disk, those used recently in memory: mmap, direct")
      ->check(CLI::IsMember({"ram", "mmap", "direct"}))
      ->group("Model");
  app.add_option("--experts-budget", options.experts_budget,
                 "RAM for experts with mmap and direct, such as 4G; default: half of what is free")
      ->type_name("BYTES")
      ->group("Model");
  app.add_flag("--no-read-ahead", options.no_read_ahead,
               "With mmap and direct: do not read what the next layer will probably choose")
      ->group("Model");
}

void add_session_options(CLI::App& app, SessionFlags& options, bool with_context) {
  app.add_option("--kv", options.kv, "Number format of the KV cache")
      ->check(CLI::IsMember({"f16", "int8", "f32"}))
      ->group("Model");
  if (with_context)
    app.add_option("--ctx", options.context, "Longest context in tokens; 0: what the model was made for")
        ->type_name("N")
        ->group("Model");
  app.add_option("--chunk", options.chunk, "Prompt tokens per pass")
      ->type_name("N")
      ->check(CLI::Range(1, 65536).description(""))
      ->group("Model");
}

KvType kv_type(std::string_view name) {
  if (name == "int8") return KvType::int8;
  return name == "f32" ? KvType::f32 : KvType::f16;
}

SessionOptions session_options(const SessionFlags& flags) {
  SessionOptions options;
  options.kv = kv_type(flags.kv);
  options.max_context = flags.context;
  options.chunk = flags.chunk;
  return options;
}

SessionOptions session_options(const SessionFlags& flags, const Model& model) {
  SessionOptions options = session_options(flags);
  if (options.max_context == 0 && model.state_is_bounded()) options.max_context = UINT32_MAX;
  return options;
}

void note_long_context(const Model& model, uint64_t tokens, const CommonOptions& common) {
  const uint32_t context = model.config().context;
  if (common.quiet || context == 0 || tokens <= context) return;
  fmt::print(stderr, "note: {} tokens are more than the {} that this model was made for\n", tokens, context);
}

namespace {

// An empty one: what the model's config says.
std::optional<ActivationPolicy> activation_argument(const std::string& text) {
  if (text == "auto") return {};
  try {
    return ActivationPolicy::parse(text);
  } catch (const Error& refused) {
    throw UsageError(fmt::format("--activation: {}", refused.what()));
  }
}

bool is_there(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

// SOURCE[:placement]. A file may have a colon in its name.
MemoryPackOptions source_argument(const std::string& text, const std::string& whole) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || is_there(text)) return {text};
  MemoryPackOptions source{text.substr(0, colon)};
  try {
    source.placement = placement_from(text.substr(colon + 1));
  } catch (const Error& refused) {
    throw UsageError(fmt::format("--memory {}: {}", whole, refused.what()));
  }
  return source;
}

// Where the last overlay of the text begins, at its plus sign; npos if there is none. Names may have plus
// signs too: the shortest end that is a file is taken, and if none is, whatever follows the last plus sign.
size_t last_overlay(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (is_there(text)) return std::string::npos;
  if (colon != std::string::npos && text.find('+', colon) == std::string::npos &&
      is_there(text.substr(0, colon)))
    return std::string::npos;
  for (size_t plus = text.rfind('+'); plus != std::string::npos && plus > 0; plus = text.rfind('+', plus - 1))
    if (is_there(text.substr(plus + 1))) return plus;
  return text.rfind('+');
}

}  // namespace

LoadOptions load_options(const ModelOptions& model, const CommonOptions& common) {
  if (!model.type.empty() && !dtype_from_name(model.type))
    throw UsageError("--type: \"" + model.type +
                     "\" is no weight type; for example q8_0, q4_0, f16, bf16, f32");
  LoadOptions options;
  options.threads = common.threads;
  options.mmap = model.load == "mmap";
  options.type = model.type;
  options.activation = activation_argument(model.activation);
  for (const std::string& pack : model.memory) options.memory.push_back(memory_argument(pack));
  options.memory_budget = size_argument(model.memory_budget, "--memory-budget");
  options.expert_group = model.expert_group;
  options.experts = placement_from(model.experts);
  options.experts_budget = size_argument(model.experts_budget, "--experts-budget");
  options.experts_read_ahead = !model.no_read_ahead;
  const bool in_ram = options.experts == Placement::ram;
  if (in_ram && (options.experts_budget > 0 || model.no_read_ahead))
    throw UsageError("--experts-budget and --no-read-ahead are for --experts mmap and --experts direct");
  if (!in_ram && !options.mmap)
    throw UsageError("--experts " + model.experts + " leaves experts on disk; --load read is not for it");
  return options;
}

MemoryPackOptions memory_argument(const std::string& text) {
  std::vector<fs::path> overlays;
  std::string rest = text;
  for (size_t plus = last_overlay(rest); plus != std::string::npos; plus = last_overlay(rest)) {
    if (plus + 1 == rest.size())
      throw UsageError(
          fmt::format("--memory {}: a file of changed rows is wanted after the plus sign", text));
    overlays.insert(overlays.begin(), rest.substr(plus + 1));
    rest.resize(plus);
  }
  MemoryPackOptions out = source_argument(rest, text);
  out.overlays = std::move(overlays);
  return out;
}

}  // namespace mneme::cli
