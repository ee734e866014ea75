// What a recipe does to a config: every stage is applied to the description of the model first, by the same
// reader and the same checks as any other config, so that a recipe that cannot work says so before anything
// is computed.
#include <algorithm>

#include "core/fail.h"
#include "train/blocks/spiking.h"
#include "train/convert/recipe.h"

namespace mneme::train {
namespace {

/// A config of one layer in which only the fields in question are of interest, read by ModelConfig's reader.
/// Messages say `where` instead of the place in that config.
ModelConfig read_probe(const Json& json, std::initializer_list<std::pair<std::string, std::string>> names) {
  try {
    return ModelConfig::from_json(json.dump());
  } catch (const Error& error) {
    std::string text = error.what();
    for (const auto& [from, to] : names)
      if (const size_t at = text.find(from); at != std::string::npos) {
        text.replace(at, from.size(), to);
        break;
      }
    throw Error(error.code(), text);
  }
}

Json probe_of(const ModelConfig& config) {
  return {
      {"mneme", 1},
      {"d_model", config.d_model},
      {"vocab", config.vocab},
      {"context", config.context},
      {"layers", Json::array({{{"mixer", {{"type", "full"}, {"heads", 1}, {"kv_heads", 1}, {"head_dim", 2}}},
                               {"ffn", {{"type", "dense"}, {"hidden", 1}}}}})}};
}

/// The new mixer of a layer whose mixer was `old`: sizes and biases are the old one's, fields of softmax
/// attention stay where the new one is softmax attention too.
MixerConfig new_mixer(const ModelConfig& config, const MixerConfig& old, Json fields,
                      const std::string& where) {
  const MixerConfig& from = old.branches().front();
  const auto with_sizes = [&](Json& mixer) {
    for (const char* name : {"heads", "kv_heads", "head_dim", "qkv_bias", "o_bias"})
      require(!mixer.contains(name), ErrorCode::invalid_argument,
              "{}.{} cannot be chosen: the projections of the layer are reused as they are", where, name);
    mixer.update({{"heads", from.heads},
                  {"kv_heads", from.kv_heads},
                  {"head_dim", from.head_dim},
                  {"qkv_bias", from.qkv_bias},
                  {"o_bias", from.o_bias}});
  };
  if (fields.contains("of")) {
    require(fields["of"].is_array() && fields["of"].size() == 2, ErrorCode::invalid_argument,
            "{}.of must hold two mixers", where);
    for (Json& branch : fields["of"]) {
      require(branch.is_object(), ErrorCode::invalid_argument, "{}.of must hold two mixers", where);
      with_sizes(branch);
    }
  } else {
    with_sizes(fields);
  }
  Json probe = probe_of(config);
  probe["layers"][0]["mixer"] = fields;
  MixerConfig mixer = read_probe(probe, {{"layers[0].mixer", where}}).layers[0].mixer;
  for (MixerConfig& branch : mixer.branches()) {
    if (!branch.softmax()) continue;
    branch.sink_logits = from.sink_logits;
    branch.qk_norm = from.qk_norm;
    branch.softcap = from.softcap;
    if (branch.query == ActivationConfig()) branch.query = from.query;
    branch.kv_int8 |= from.kv_int8;
    branch.rope = from.rope;
    if (branch.scale == 0) branch.scale = from.scale;
  }
  return mixer;
}

void add_memory(ModelConfig& config, const Stage& stage, const std::string& where,
                const std::vector<uint32_t>& layers, uint32_t classes) {
  Json table = stage.table;
  require(!table.contains("file"), ErrorCode::invalid_argument,
          "{}.table.file cannot be chosen: the table is written beside the model", where);
  const std::string name =
      table.contains("name") && table["name"].is_string() ? table["name"].get<std::string>() : "memory";
  table.erase("name");
  require(!config.tables.contains(name), ErrorCode::invalid_argument,
          "{}.table.name is \"{}\", but the model has a table of that name", where, name);
  const bool raw = table.contains("raw_ids") && table["raw_ids"] == true;
  if (!table.contains("compressed_vocab")) table["compressed_vocab"] = raw ? config.vocab : classes;
  if (!table.contains("layer_ids")) table["layer_ids"] = layers;
  if (!table.contains("format")) table["format"] = "f32";
  table["file"] = name + ".engram";
  Json probe = probe_of(config);
  probe["tables"] = {{name, table}};
  Json module = stage.module;
  require(!module.contains("table") && !module.contains("layer_id"), ErrorCode::invalid_argument,
          "{}.module.{} cannot be chosen: the stage says it", where,
          module.contains("table") ? "table" : "layer_id");
  module["table"] = name;
  module["layer_id"] = layers.front();
  probe["layers"][0]["memory"] = module;
  const ModelConfig read = read_probe(
      probe, {{fmt::format("tables.{}", name), where + ".table"}, {"layers[0].memory", where + ".module"}});
  config.tables.emplace(name, read.tables.at(name));
  for (const uint32_t layer : layers) {
    require(!config.layers[layer].memory, ErrorCode::invalid_argument,
            "{}.layers names layer {}, which has a memory already", where, layer);
    config.layers[layer].memory = read.layers[0].memory;
    config.layers[layer].memory->layer_id = layer;
  }
}

}  // namespace

void set_neurons(ModelConfig& config, const SpikeSettings& spikes, const std::vector<uint32_t>& layers,
                 const ActivationConfig& neuron) {
  for (const uint32_t layer : layers)
    for (const Projection projection : spikes.projections)
      config.layers[layer].activation[projection] = neuron;
}

std::vector<uint32_t> candidate_layers(const LayerChoice& choice, const ModelConfig& config,
                                       const ModelConfig& original, std::string_view where) {
  using Of = LayerChoice::Of;
  const auto count = static_cast<uint32_t>(config.layers.size());
  std::vector<uint32_t> out;
  if (choice.of == Of::list) {
    require(choice.layers.back() < count, ErrorCode::invalid_argument,
            "{}.layers names layer {}, but the model has layers 0 to {}", where, choice.layers.back(),
            count - 1);
    out = choice.layers;
  } else {
    for (uint32_t i = 0; i < count; ++i) {
      const MixerConfig& mixer = config.layers[i].mixer;
      const auto branches = mixer.branches();
      if (choice.of == Of::all || (choice.of == Of::full && mixer.type == MixerType::full) ||
          (choice.of == Of::converted && !(mixer == original.layers[i].mixer)) ||
          (choice.of == Of::recurrent &&
           std::any_of(branches.begin(), branches.end(), [](const MixerConfig& b) { return b.recurrent(); })))
        out.push_back(i);
    }
  }
  require(!out.empty(), ErrorCode::invalid_argument, "{}.layers fits no layer of the model at that point",
          where);
  require(choice.choose <= out.size(), ErrorCode::invalid_argument,
          "{}.layers.choose is {}, but only {} layers are candidates at that point", where, choice.choose,
          out.size());
  require(choice.curve <= out.size(), ErrorCode::invalid_argument,
          "{}.layers.curve is {}, but only {} layers are candidates at that point", where, choice.curve,
          out.size());
  return out;
}

ModelConfig converted_config(const ModelConfig& config, const ModelConfig& original, const Stage& stage,
                             size_t number, const std::vector<uint32_t>& layers, uint32_t classes) {
  (void)original;
  ModelConfig out = config;
  const std::string where = fmt::format("stages[{}]", number);
  const std::string field = stage.kind == Stage::Kind::hybrid ? where + ".to" : where;
  switch (stage.kind) {
    case Stage::Kind::window:
    case Stage::Kind::hybrid:
    case Stage::Kind::parallel:
      for (const uint32_t layer : layers) {
        const MixerConfig& old = config.layers[layer].mixer;
        require(old.softmax(), ErrorCode::invalid_argument,
                "{}.layers names layer {}, which an earlier stage or the model itself has made a recurrence: "
                "only attention can be converted",
                where, layer);
        out.layers[layer].mixer = new_mixer(config, old, stage.mixer, field);
      }
      break;
    case Stage::Kind::engram:
      add_memory(out, stage, where, layers, classes);
      break;
    case Stage::Kind::transfer:
      for (const uint32_t layer : layers)
        require(!(config.layers[layer].mixer == original.layers[layer].mixer), ErrorCode::invalid_argument,
                "{}.layers names layer {}, which is still the original's: there is nothing to transfer",
                where, layer);
      break;
    case Stage::Kind::distill:
      break;
    case Stage::Kind::upcycle:
      try {
        out = upcycled_config(config, stage.upcycle);
      } catch (const Error& error) {
        throw Error(error.code(), fmt::format("{}: {}", where, error.what()));
      }
      break;
    case Stage::Kind::spike:
      set_neurons(out, stage.spikes, layers, stage.spikes.last());
      break;
  }
  try {
    out.validate();
    spiking_weights(out);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", where, error.what()));
  }
  return out;
}

void check_recipe(const Recipe& recipe, const ModelConfig& config, uint32_t classes) {
  ModelConfig now = config;
  for (size_t i = 0; i < recipe.stages.size(); ++i) {
    const Stage& stage = recipe.stages[i];
    std::vector<uint32_t> layers = candidate_layers(stage.layers, now, config, fmt::format("stages[{}]", i));
    // Of a choice nobody knows which layers it takes; any are as good for what follows.
    converted_config(now, config, stage, i, layers, classes);
    if (stage.layers.choose > 0) layers.resize(stage.layers.choose);
    now = converted_config(now, config, stage, i, layers, classes);
    for (const TuneSettings* tune : {&stage.tune, stage.layers.transfer ? &*stage.layers.transfer : nullptr})
      require(!tune || tune->steps == 0 || tune->length <= now.context, ErrorCode::invalid_argument,
              "stages[{}].length is {}, but the model's context is {}", i, tune ? tune->length : 0,
              now.context);
  }
  require(recipe.validation.empty() || recipe.context <= now.context, ErrorCode::invalid_argument,
          "data.context is {}, but the model's context is {}", recipe.context, now.context);
}

}  // namespace mneme::train
