#include "train/convert/converted_model.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "core/fail.h"
#include "model/rope_frequencies.h"
#include "model/tensor_names.h"
#include "train/blocks/model_files.h"
#include "train/convert/recipe.h"

namespace mneme::train {
namespace {

std::string blk(uint32_t layer) {
  return fmt::format("blk.{}.", layer);
}

/// Xavier's uniform rule for a matrix [out, in] with a gain of 2^-2.5.
Tensor xavier(const std::vector<uint64_t>& shape, at::Generator& generator) {
  const double bound = std::exp2(-2.5) * std::sqrt(6.0 / static_cast<double>(shape[0] + shape[1]));
  return at::rand({static_cast<int64_t>(shape[0]), static_cast<int64_t>(shape[1])}, generator) * (2 * bound) -
         bound;
}

/// New tensors of one layer, by their names in it ("attn_gate_a.weight"): what Parameters::create() makes of
/// a model that has this layer alone, with smaller gates.
std::map<std::string, Tensor> new_tensors(const ModelConfig& config, uint32_t layer, uint64_t seed) {
  ModelConfig one = config;
  one.layers = {config.layers[layer]};
  one.vocab = 1;
  one.sink_tokens = 0;
  if (one.layers[0].memory) {  // the size of its projections depends on the table
    const std::string name = one.layers[0].memory->table;
    one.tables = {{name, config.tables.at(name)}};
  } else {
    one.tables.clear();
  }
  const Parameters fresh = Parameters::create(one, seed);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  std::map<std::string, Tensor> out;
  for (const ExpectedTensor& tensor : expected_tensors(one)) {
    if (!tensor.name.starts_with("blk.0.")) continue;
    const bool gate = tensor_group(tensor.name) == "gate" && tensor.shape.size() == 2;
    out.emplace(tensor.name.substr(6),
                gate ? xavier(tensor.shape, generator) : fresh.at(tensor.name).detach());
  }
  return out;
}

/// "attn_q.weight" of "blk.3.mix1.attn_q.weight": where a branch's tensor was before there were branches.
std::string without_branch(const std::string& name) {
  for (const char* branch : {".mix0.", ".mix1."})
    if (const size_t at = name.find(branch); at != std::string::npos)
      return name.substr(0, at + 1) + name.substr(at + 6);
  return {};
}

bool fits(const Tensor& tensor, const std::vector<uint64_t>& shape) {
  return tensor.sizes().vec() == std::vector<int64_t>(shape.begin(), shape.end());
}

}  // namespace

ConvertedModel load_original(const fs::path& path) {
  TrainedModel loaded = load_model(path);
  ConvertedModel out{std::move(loaded.config), std::move(loaded.parameters), {}, {}};
  const fs::path folder = fs::is_directory(path) ? path : path.parent_path();
  for (const auto& [name, table] : out.config.tables) {
    require(!table.file.empty(), ErrorCode::unsupported,
            "{}: table \"{}\" has no file; attach its pack before converting the model", path.string(), name);
    LoadedRows rows = load_table(folder / table.file);
    out.ids.emplace(name, EngramIds(table, rows.map));
    out.tables.emplace(name, std::move(rows.rows));
  }
  return out;
}

ConvertedModel with_config(const ConvertedModel& model, const ModelConfig& config, uint64_t seed) {
  ConvertedModel out{config, {}, model.tables, model.ids};
  std::optional<size_t> made_for;
  std::map<std::string, Tensor> made;
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    const std::string before = without_branch(expected.name);
    if (model.parameters.has(expected.name) && fits(model.parameters.at(expected.name), expected.shape)) {
      out.parameters.add(expected.name, model.parameters.at(expected.name));
    } else if (!before.empty() && model.parameters.has(before) &&
               fits(model.parameters.at(before), expected.shape)) {
      out.parameters.add(expected.name, model.parameters.at(before).detach().clone());
    } else {
      const auto at = layer_tensor_name_of(expected.name);
      if (!at) fail(ErrorCode::internal, "a conversion asks for a new tensor {}", expected.name);
      if (made_for != at->layer) {
        made_for = at->layer;
        made = new_tensors(config, static_cast<uint32_t>(at->layer), seed * 4096 + at->layer);
      }
      out.parameters.add(expected.name, made.at(std::string(at->part)));
    }
  }
  return out;
}

NamedTensors rope_gates(const ModelConfig& old, const ModelConfig& config,
                        const std::vector<uint32_t>& layers) {
  NamedTensors out;
  for (const uint32_t layer : layers) {
    const MixerConfig &before = old.layers[layer].mixer.branches().front(),
                      &kind = config.layers[layer].mixer;
    const RopeConfig& rope = before.rope ? *before.rope : old.rope;
    const std::vector<float> turns = rope_inverse_frequencies(rope, before.head_dim);
    for (size_t b = 0; b < kind.branches().size(); ++b) {
      const MixerConfig& branch = kind.branches()[b];
      if (branch.type != MixerType::gla || branch.gate == GateType::tied) continue;
      const Tensor bias = at::empty({branch.kv_heads, branch.head_dim});
      for (uint32_t channel = 0; channel < branch.head_dim; ++channel) {
        const size_t pair = rope.style == RopeConfig::Style::half ? channel % turns.size() : channel / 2;
        const bool turned = channel < 2 * turns.size();
        const double reach = turned ? std::numbers::pi / 2 / turns[pair] : config.context;
        const double tokens = std::clamp(reach, 1.0, static_cast<double>(config.context));
        // logsigmoid(z) / normalizer = -1 / tokens: z = -log(e^a - 1), here without the overflow of e^a
        const double a = branch.gate_normalizer / tokens;
        bias.select(1, channel).fill_(-(a + std::log(-std::expm1(-a))));
      }
      const char* name = branch.gate == GateType::low_rank ? "attn_gate_b.bias" : "attn_gate_a.bias";
      out.emplace(mixer_prefix(blk(layer), kind, b) + name, bias.flatten());
    }
  }
  return out;
}

ConvertedModel with_mixers_of(const ConvertedModel& model, const ConvertedModel& donor,
                              const std::vector<uint32_t>& layers) {
  ConvertedModel out{model.config, {}, model.tables, model.ids};
  for (const uint32_t layer : layers) out.config.layers[layer].mixer = donor.config.layers[layer].mixer;
  for (const ExpectedTensor& expected : expected_tensors(out.config)) {
    const auto at = layer_tensor_name_of(expected.name);
    const bool taken = at && std::find(layers.begin(), layers.end(), at->layer) != layers.end();
    out.parameters.add(expected.name, (taken ? donor : model).parameters.at(expected.name));
  }
  return out;
}

void make_trainable(ConvertedModel& model, const std::function<bool(const std::string&)>& trained) {
  Parameters out;
  for (const std::string& name : model.parameters.names()) {
    const Tensor value = model.parameters.at(name).detach();
    const bool train = trained(name);
    out.add(name, train ? value.clone() : value);
    if (!train) Tensor(out.at(name)).requires_grad_(false);
  }
  model.parameters = std::move(out);
}

void replace(ConvertedModel& model, const NamedTensors& tensors) {
  Parameters out;
  for (const std::string& name : model.parameters.names()) {
    const auto found = tensors.find(name);
    out.add(name, found == tensors.end() ? model.parameters.at(name) : found->second);
  }
  model.parameters = std::move(out);
}

Tensor embed_tokens(const ConvertedModel& model, const Tensor& tokens) {
  const ModelConfig& config = model.config;
  Tensor x = at::embedding(model.parameters.at("token_embd.weight"), tokens);
  if (config.embedding_scale != 1) x = x * config.embedding_scale;
  if (config.sink_tokens == 0) return x;
  return at::cat({model.parameters.at("sink_embd.weight").expand({x.size(0), -1, -1}), x}, 1);
}

Tensor run_mixer(const ConvertedModel& model, uint32_t layer, const Tensor& normed,
                 const PassContext& context) {
  const LayerConfig& kind = model.config.layers[layer];
  return mixer(model.config, kind.mixer, context.weights(model.parameters, blk(layer), kind), normed,
               context);
}

Tensor run_layer(const ConvertedModel& model, uint32_t layer, Tensor x, const BatchRows& rows,
                 const PassContext& context, const MixerTap& tap) {
  const ModelConfig& config = model.config;
  const LayerConfig& kind = config.layers[layer];
  const Weights weights = context.weights(model.parameters, blk(layer), kind);
  if (kind.memory) x = x + engram(config, *kind.memory, weights, x, rows.at(kind.memory->table).at(layer));
  const Tensor normed = norm(config, x, weights["attn_norm.weight"]);
  Tensor out = run_mixer(model, layer, normed, context);
  if (tap) tap(layer, normed, out);
  if (kind.post_norm) out = norm(config, out, weights["post_attention_norm.weight"]);
  x = x + out;
  out =
      feed_forward(kind.ffn, weights, norm(config, x, weights["ffn_norm.weight"]), context.for_layer(layer));
  if (kind.post_norm) out = norm(config, out, weights["post_ffw_norm.weight"]);
  return x + out;
}

const Tensor& output_head(const ConvertedModel& model) {
  return model.parameters.at(model.config.tied ? "token_embd.weight" : "output.weight");
}

}  // namespace mneme::train
