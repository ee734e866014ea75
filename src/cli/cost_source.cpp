#include "cli/cost_source.h"

#include <fmt/format.h>

#include <map>

#include "cli/store.h"
#include "cli/verb.h"
#include "core/fail.h"
#include "core/file.h"
#include "core/json.h"
#include "model/import_hf.h"

namespace mneme::cli {
namespace {

bool names_config(const std::string& path) {
  std::error_code ignored;
  return fs::path(path).extension() == ".json" && !fs::is_directory(path, ignored);
}

/// A ModelConfig, a Hugging Face config.json, or a run of `mneme train` that holds its model's config.
ModelConfig read_config(const std::string& path) {
  const std::string text = read_text_file(path, uint64_t{64} << 20);
  const Json json = parse_json(text, path);
  if (json.is_object() && json.contains("mneme")) return ModelConfig::from_json(text);
  if (json.is_object() && json.contains("mneme_train") && json.contains("model")) {
    require(json["model"].is_object(), ErrorCode::unsupported,
            "{} names its model by a path; give that to mneme cost", path);
    return ModelConfig::from_json(json["model"].dump());
  }
  return config_from_hf(text);
}

}  // namespace

PackedType CostSource::type_in_checkpoint(const std::string& name, uint64_t cols, bool spiking) const {
  // A stack of experts is asked for by one name; a checkpoint has its experts one by one, all of one type.
  constexpr std::string_view kStack = "_exps.weight";
  const bool stacked = name.ends_with(kStack);
  const std::string one = stacked ? name.substr(0, name.size() - kStack.size()) + ".0.weight" : name;
  if (!checkpoint) return PackedType::f32;
  const TensorInfo* const found = checkpoint->find(one);
  if (found == nullptr) return PackedType::f32;
  if (spiking && checkpoint->scales_of(*found) != nullptr) return PackedType::w8;
  const DType wanted = type.value_or(found->type);
  const bool converted = !dtype_info(found->type).quantized && cols % dtype_info(wanted).block_size == 0;
  return packed_type(converted ? wanted : found->type);
}

ModelShape CostSource::own_shape(const std::optional<ActivationPolicy>& with) const {
  if (is_config() && type) return shape_of(config, *type, with);
  if (model) return shape_of(*model, with);
  ModelShape shape = shape_of(
      config,
      [this](const std::string& name, uint64_t cols, bool spiking) {
        return type_in_checkpoint(name, cols, spiking);
      },
      with);
  if (checkpoint) shape.disk = checkpoint->tensors().file_bytes();
  return shape;
}

ModelShape CostSource::shape(const ModelConfig& of, const std::optional<ActivationPolicy>& with) const {
  if (is_config() && type) return shape_of(of, *type, with);
  ModelShape own = own_shape(with);
  if (of == config) return own;
  std::map<std::string, PackedType, std::less<>> types;
  for (const WeightShape& weight : own.weights) types[weight.name + ".weight"] = weight.w.type;
  const PackedType other = own.weights.front().w.type;
  ModelShape shape = shape_of(
      of,
      [&](const std::string& name, uint64_t, bool) {
        const auto found = types.find(name);
        return found == types.end() ? other : found->second;
      },
      with);
  shape.disk = shape.resident;  // there is no file of it
  return shape;
}

CostSource open_cost_source(const ModelOptions& model, const CommonOptions& common, bool load) {
  CostSource source;
  const LoadOptions options = load_options(model, common);
  source.activation = options.activation;
  if (!options.type.empty()) source.type = dtype_from_name(options.type);
  if (names_config(model.model)) {
    if (load || !model.memory.empty())
      throw UsageError("--measure and --memory need a model; this is a config");
    source.config = read_config(model.model);
    if (!source.type) source.type = DType::q8_0;
  } else if (load || !model.memory.empty()) {
    source.model = load_model(model, common);
    source.config = source.model->config();
  } else {
    source.checkpoint = open_checkpoint(resolve_model(model.model));
    source.config = source.checkpoint->config();
  }
  return source;
}

}  // namespace mneme::cli
