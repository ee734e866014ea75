// `mneme inspect`: what a model is: config, tensors, sizes, memory per token of context, the plan.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>

#include "cli/options.h"
#include "cli/terminal.h"
#include "cli/verb.h"
#include "cost/traffic.h"

namespace mneme::cli::inspect_verb {
namespace {

struct Options {
  CommonOptions common;
  ModelOptions model;
  SessionFlags session;
  bool tensors = false;
  bool plan = false;
  bool config = false;
  bool hash = false;
};

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) all.push_back(line);
  return all;
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("{}", fmt::join(shape, " x "));
}

uint64_t kv_bytes(const Model& model, const Options& options) {
  return kv_bytes_written(model.config(), kv_type(options.session.kv));
}

Json memories_json(const Model& model) {
  Json out = Json::array();
  for (const MemoryDescription& memory : model.memories(true))
    out.push_back({{"name", memory.name},
                   {"path", memory.path},
                   {"placement", memory.placement},
                   {"layers", memory.layers},
                   {"rows", memory.rows},
                   {"bytes", memory.bytes},
                   {"resident", memory.resident},
                   {"resident_fraction", memory.resident_fraction}});
  return out;
}

Json as_json(const Model& model, const Options& options) {
  Json tensors = Json::array();
  for (const TensorDescription& t : model.tensors())
    tensors.push_back(
        {{"name", t.name}, {"type", t.type}, {"layout", t.layout}, {"shape", t.shape}, {"bytes", t.bytes}});
  const ModelBytes bytes = model.bytes();
  const Session session(std::shared_ptr<const Model>(&model, [](const Model*) {}),
                        session_options(options.session));
  Json json{{"path", model.path()},
            {"config", Json::parse(model.config().to_json())},
            {"tensors", tensors},
            {"unused_tensors", model.unused_tensors()},
            {"bytes", {{"resident", bytes.resident}, {"mapped", bytes.mapped}, {"disk", bytes.disk}}},
            {"memory", memories_json(model)},
            {"bytes_per_token", model.bytes_per_token()},
            {"state_bytes", session.state_bytes()},
            {"kv_bytes_per_token", kv_bytes(model, options)},
            {"recurrent_state_bytes", state_bytes(model.config())},
            {"isa", model.isa()},
            {"threads", model.threads()},
            {"has_tokenizer", model.has_tokenizer()},
            {"plan",
             {{"decode", lines(model.describe_plan(false))}, {"prefill", lines(model.describe_plan(true))}}}};
  if (options.hash) json["hash"] = model.hash();
  add_experts(json, model);
  return json;
}

std::string mixer_text(const MixerConfig& mixer) {
  if (mixer.type == MixerType::parallel)
    return fmt::format("{} beside {}{}", mixer_text(mixer.of.at(0)), mixer_text(mixer.of.at(1)),
                       mixer.learned ? ", learned weights" : "");
  const char* name = mixer.type == MixerType::full     ? "full attention"
                     : mixer.type == MixerType::window ? "window attention"
                     : mixer.type == MixerType::sparse ? "sparse attention"
                     : mixer.type == MixerType::gla    ? "gated linear attention"
                                                       : "gated delta rule";
  std::string text =
      fmt::format("{}, {} heads, {} KV heads of {}", name, mixer.heads, mixer.kv_heads, mixer.head_dim);
  if (mixer.type == MixerType::window)
    text += fmt::format(", window {}{}", mixer.window, mixer.edge == WindowEdge::exact ? "" : " + 1");
  if (mixer.type == MixerType::sparse)
    text += fmt::format(", {} blocks of {}{}", mixer.top_k, mixer.block, mixer.shared ? " a KV head" : "");
  if (mixer.type == MixerType::gla && mixer.gate == GateType::low_rank)
    text += fmt::format(", gate rank {}", mixer.gate_rank);
  if (mixer.type == MixerType::gla && mixer.gate == GateType::tied) text += ", gate tied to the key";
  if (mixer.sinks > 0) text += fmt::format(", {} sinks", mixer.sinks);
  if (mixer.qk_norm) text += mixer.qk_norm_over == QkNormOver::all ? ", QK norm over all heads" : ", QK norm";
  return text;
}

std::string ffn_text(const FfnConfig& ffn) {
  if (!ffn.moe()) return fmt::format("feed-forward {}", ffn.hidden);
  std::string text = fmt::format("{} of {} experts of {}", ffn.top_k, ffn.experts, ffn.hidden);
  if (ffn.null_experts > 0) text += fmt::format(" and {} null", ffn.null_experts);
  if (ffn.top_p > 0) text += fmt::format(", top-p {:g}", ffn.top_p);
  if (ffn.groups > 1) text += fmt::format(", {} of {} groups", ffn.top_groups, ffn.groups);
  if (ffn.shared > 0) text += fmt::format(", shared {}", ffn.shared_width());
  return text + (ffn.router == RouterScore::sigmoid ? ", sigmoid router" : ", softmax router");
}

// Equal layers are folded: "24 x full attention, ...; 6 x window ...".
std::string layers_text(const ModelConfig& config) {
  std::vector<std::pair<std::string, int>> kinds;
  for (const LayerConfig& layer : config.layers) {
    const std::string text = mixer_text(layer.mixer) + "; " + ffn_text(layer.ffn);
    auto at = std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) { return kind.first == text; });
    if (at == kinds.end()) at = kinds.insert(kinds.end(), {text, 0});
    ++at->second;
  }
  std::string all;
  for (const auto& [text, count] : kinds)
    all += fmt::format("{}{} x {}", all.empty() ? "" : "\n                   ", count, text);
  return all;
}

std::string memory_text(const Model& model, const MemoryDescription& memory) {
  const EngramTableConfig& table = model.config().tables.at(memory.name);
  std::string conv;
  for (const uint32_t layer : memory.layers)
    if (const auto& module = model.config().layers[layer].memory; module && module->conv)
      conv = fmt::format(", convolution {} x {}", module->conv->kernel, module->conv->dilation);
  return fmt::format(
      "\"{}\" before the mixers of layers {}: orders 2 to {}, {} heads of {}{}\n{:19}{} rows, {}",
      memory.name, fmt::join(memory.layers, ", "), table.max_ngram, table.heads, table.head_dim, conv, "",
      memory.rows, memory.text);
}

std::string unused_text(const std::vector<std::string>& names) {
  const bool scales = std::all_of(names.begin(), names.end(), [](const std::string& name) {
    return name.ends_with(".weight_quantizer.scales");
  });
  if (scales)
    return fmt::format("{} x weight_quantizer.scales of down_proj, which is not rounded", names.size());
  return fmt::format("{} tensors of the file, such as {}", names.size(), names.front());
}

void print_summary(const Model& model, const Options& options) {
  const ModelConfig& config = model.config();
  const auto line = [](std::string_view name, const std::string& value) {
    print(fmt::format("{:<19}{}\n", name, value));
  };
  const auto size = [](uint64_t bytes) { return human_bytes(static_cast<double>(bytes)); };
  std::map<std::string, std::pair<int, uint64_t>> types;
  uint64_t values = 0;
  for (const TensorDescription& t : model.tensors()) {
    auto& [count, bytes] = types[t.type];
    ++count;
    bytes += t.bytes;
    uint64_t n = 1;
    for (const uint64_t d : t.shape) n *= d;
    values += n;
  }
  std::string type_text;
  for (const auto& [name, sum] : types)
    type_text +=
        fmt::format("{}{} x {} ({})", type_text.empty() ? "" : ", ", sum.first, name, size(sum.second));
  const ModelBytes bytes = model.bytes();
  const uint64_t kv = kv_bytes(model, options);
  if (!config.name.empty()) line("Name", config.name);
  line("File", model.path());
  line("Parameters", fmt::format("{:.1f} million", static_cast<double>(values) / 1e6));
  line("Width", fmt::format("{}, {} layers, vocabulary {}{}", config.d_model, config.layers.size(),
                            config.vocab, config.tied ? " (head tied to the embedding)" : ""));
  line("Layers", layers_text(config));
  for (const MemoryDescription& memory : model.memories()) line("Memory table", memory_text(model, memory));
  if (config.sink_tokens > 0) line("Sink tokens", fmt::format("{}, learned", config.sink_tokens));
  line("Context", fmt::format("{} tokens", config.context));
  line("Tensors", type_text);
  if (const auto& unused = model.unused_tensors(); !unused.empty()) line("Not used", unused_text(unused));
  line("Memory", fmt::format("{} resident, {} mapped, {} on disk", size(bytes.resident), size(bytes.mapped),
                             size(bytes.disk)));
  line("Read for a token", size(model.bytes_per_token()));
  if (kv > 0)
    line("KV cache", fmt::format("{} for a token of context, {} for all {} ({})", size(kv),
                                 size(kv_bytes_held(config, kv_type(options.session.kv), config.context)),
                                 config.context, options.session.kv));
  if (state_bytes(config) > 0)
    line("State", fmt::format("{} of recurrences, whatever the context", size(state_bytes(config))));
  line("Runs as", describe_model(model));
  if (options.hash) line("Hash", model.hash());
  print("--tensors, --plan and --config show more\n");
}

int run(const Options& options) {
  const auto model = load_model(options.model, options.common);
  if (options.common.json) {
    print_json(as_json(*model, options));
    return kDone;
  }
  if (options.config) print(Json::parse(model->config().to_json()).dump(2) + "\n");
  if (options.tensors) {
    std::vector<std::vector<std::string>> rows{{"name", "type", "layout", "shape", "bytes"}};
    for (const TensorDescription& t : model->tensors())
      rows.push_back({t.name, t.type, t.layout, shape_text(t.shape), std::to_string(t.bytes)});
    print(table(rows));
  }
  if (options.plan)
    print(
        fmt::format("decode:\n{}\nprefill:\n{}\n", model->describe_plan(false), model->describe_plan(true)));
  if (!options.config && !options.tensors && !options.plan) print_summary(*model, options);
  return kDone;
}

const VerbRegistration registration(
    {.name = "inspect",
     .summary = "Show what a model is: config, tensors, sizes, memory, plan",
     .group = Group::models,
     .examples = {{"mneme inspect MODEL", "one screen about a model"},
                  {"mneme inspect MODEL --tensors", "every tensor with type, layout and shape"},
                  {"mneme inspect MODEL --json", "everything, for scripts"}},
     .setup = [](CLI::App& app) -> Action {
       auto options = std::make_shared<Options>();
       add_model_options(app, options->model);
       app.add_flag("--tensors", options->tensors, "List the tensors");
       app.add_flag("--plan", options->plan, "List the stages of a forward pass");
       app.add_flag("--config", options->config, "Show the ModelConfig as JSON");
       app.add_flag("--hash", options->hash, "Also the model's hash (reads the whole file once)");
       add_session_options(app, options->session);
       add_common_options(app, options->common);
       return [options] { return run(*options); };
     }});

}  // namespace
}  // namespace mneme::cli::inspect_verb
