#include "convert/upcycle.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <unordered_map>

#include "core/fail.h"
#include "core/json_fields.h"
#include "core/random.h"
#include "model/config_limits.h"
#include "model/config_words.h"
#include "model/gla_swa.h"
#include "simd/blocks.h"

namespace mneme {
namespace {

using namespace config_limits;

/// A tensor of the mixture: one of the dense model times a factor, or a router (no base).
struct Upcycled {
  const TensorInfo* base = nullptr;
  float factor = 1;
  uint32_t copies = 1;   // side by side: of shared experts
  bool columns = false;  // they stand beside each other in every row, else below each other
  uint64_t seed = 0;
  bool as_is() const { return base != nullptr && factor == 1 && copies == 1; }
};

class UpcycledTensors final : public TensorSource {
 public:
  UpcycledTensors(std::unique_ptr<TensorSource> source, double deviation)
      : source_(std::move(source)), deviation_(deviation) {}

  void add(TensorInfo info, Upcycled from) {
    index_.emplace(info.name, infos_.size());
    infos_.push_back(std::move(info));
    from_.push_back(from);
  }

  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  const TensorInfo* find(std::string_view name) const override {
    const auto at = index_.find(std::string(name));
    return at == index_.end() ? nullptr : &infos_[at->second];
  }
  Bytes data(const TensorInfo& tensor) const override {
    const size_t number = number_of(tensor);
    const Upcycled& from = from_[number];
    if (from.as_is()) return source_->data(*from.base);
    const std::lock_guard lock(mutex_);
    std::vector<float>& values = made_[number];
    if (values.empty()) from.base == nullptr ? draw(number, values) : scale(from, values);
    return std::as_bytes(std::span(values));
  }
  void release(const TensorInfo& tensor) const override {
    const size_t number = number_of(tensor);
    const Upcycled& from = from_[number];
    if (from.base != nullptr) source_->release(*from.base);
    const std::lock_guard lock(mutex_);
    made_.erase(number);
  }
  uint64_t file_bytes() const override { return source_->file_bytes(); }
  std::vector<fs::path> paths() const override { return source_->paths(); }
  const TensorSource& source() const { return *source_; }

 private:
  size_t number_of(const TensorInfo& tensor) const {
    const auto at = index_.find(tensor.name);
    require(at != index_.end(), ErrorCode::not_found, "there is no tensor \"{}\"", tensor.name);
    return at->second;
  }

  // Box and Muller (1958).
  void draw(size_t number, std::vector<float>& out) const {
    Pcg64 random(from_[number].seed);
    out.resize(infos_[number].values());
    for (float& value : out)
      value = static_cast<float>(deviation_ * std::sqrt(-2 * std::log(1 - random.uniform())) *
                                 std::cos(6.283185307179586 * random.uniform()));
  }
  void scale(const Upcycled& from, std::vector<float>& out) const {
    const Bytes bytes = source_->data(*from.base);
    out.resize(from.base->values());
    const size_t width = from.base->shape.back(), rows = out.size() / width, row = bytes.size() / rows;
    for (size_t r = 0; r < rows; ++r)
      dequantize_row(from.base->type, bytes.data() + r * row, out.data() + r * width, width);
    for (float& value : out) value *= from.factor;
    if (from.copies == 1) return;
    const std::vector<float> one = std::move(out);
    const size_t run = from.columns ? width : one.size();  // what is repeated before the next begins
    out.clear();
    for (size_t at = 0; at < one.size(); at += run)
      for (uint32_t copy = 0; copy < from.copies; ++copy)
        out.insert(out.end(), one.begin() + static_cast<int64_t>(at),
                   one.begin() + static_cast<int64_t>(at + run));
  }

  std::unique_ptr<TensorSource> source_;
  const double deviation_;
  std::vector<TensorInfo> infos_;
  std::vector<Upcycled> from_;  // parallel to infos_
  std::unordered_map<std::string, size_t> index_;
  mutable std::mutex mutex_;
  mutable std::map<size_t, std::vector<float>> made_;  // until released
};

std::vector<uint32_t> upcycled_layers(const ModelConfig& config, const UpcycleOptions& options) {
  if (!options.layers.empty()) return options.layers;
  std::vector<uint32_t> out;
  for (size_t i = 0; i < config.layers.size(); ++i)
    if (!config.layers[i].ffn.moe()) out.push_back(static_cast<uint32_t>(i));
  return out;
}

std::vector<uint32_t> read_upcycled_layers(JsonFields& stage) {
  if (!stage.has("layers")) return {};
  const Json* value = stage.find("layers");
  if (value->is_string()) {
    require(*value == "all", ErrorCode::invalid_argument, "{} is {}; it must be \"all\" or numbers",
            stage.where("layers"), value->dump());
    return {};
  }
  std::vector<uint32_t> out;
  for (const uint64_t layer : stage.u64s("layers", 0, kMaxLayers, kMaxLayers))
    out.push_back(static_cast<uint32_t>(layer));
  std::sort(out.begin(), out.end());
  require(!out.empty() && std::adjacent_find(out.begin(), out.end()) == out.end(),
          ErrorCode::invalid_argument, "{} must name layers, each once", stage.where("layers"));
  return out;
}

}  // namespace

UpcycleOrigin upcycle_origin(const std::string& name, const UpcycleOptions& options) {
  const double all = upcycle_factor(options), each = std::cbrt(all);
  const auto factor = [&](std::string_view projection) {
    const bool spread = options.scale == UpcycleScale::spread;
    return static_cast<float>(spread ? each : projection == "down" ? all : 1.0);
  };
  if (const auto expert = expert_tensor_name_of(name))
    return {fmt::format("{}ffn_{}.weight", expert->block, expert->projection), factor(expert->projection)};
  for (const std::string_view projection : {"gate", "up", "down"}) {
    const std::string shared = fmt::format("ffn_{}_shexp.weight", projection);
    if (name.ends_with(shared))
      return {name.substr(0, name.size() - shared.size()) + fmt::format("ffn_{}.weight", projection),
              factor(projection), options.shared, projection == "down"};
  }
  return {};
}

UpcycleOptions read_upcycle_stage(JsonFields& stage) {
  constexpr config_names::Table<UpcycleScale, 2> kScales{
      {{UpcycleScale::spread, "spread"}, {UpcycleScale::down, "down"}}};
  UpcycleOptions out;
  out.layers = read_upcycled_layers(stage);
  out.experts = stage.u32("experts", 1, kMaxExperts, out.experts);
  out.shared = stage.u32("shared", 0, kMaxSharedExperts, out.shared);
  out.top_k = stage.u32("top_k", 1, kMaxExperts, out.top_k);
  config_names::read_word(stage, "router", config_names::kRouters, out.router);
  out.renormalise = stage.boolean("renormalise", out.renormalise);
  config_names::read_word(stage, "scale", kScales, out.scale);
  out.router_deviation = stage.number("router_deviation", 0, 1, out.router_deviation);
  return out;
}

std::optional<UpcycleRecipe> read_upcycle_recipe(const fs::path& file) {
  const std::string name = file.filename().string();
  Json json;
  try {
    json = parse_json(read_text_file(file), name);
  } catch (const Error&) {
    return std::nullopt;  // whoever reads other recipes says what is wrong
  }
  if (!json.is_object() || !json.contains("stages") || !json["stages"].is_array()) return std::nullopt;
  const Json& stages = json["stages"];
  const auto upcycles = [](const Json& stage) {
    return stage.is_object() && stage.value("kind", Json()) == "upcycle";
  };
  if (std::none_of(stages.begin(), stages.end(), upcycles)) return std::nullopt;
  if (stages.size() > 1) return std::nullopt;  // stages that train belong to mneme-train
  JsonFields fields(json, "", ErrorCode::invalid_argument);
  UpcycleRecipe out;
  fields.u32("mneme_convert", 1, 1);
  fields.string("about", "");
  const uint64_t seed = fields.u64("seed", 0, UINT64_MAX, 1);
  out.type = fields.string("type", out.type);
  fields.find("stages");
  if (fields.has("data")) {
    JsonFields data = fields.object("data");
    if (data.has("validation"))
      for (const std::string& path : data.strings("validation", 1000))
        out.validation.push_back(file.parent_path() / path);
    out.context = data.u32("context", 2, 1u << 24, out.context);
    out.tokens = data.u64("tokens", 2, uint64_t{1} << 40, out.tokens);
    data.finish();
  }
  fields.finish();
  JsonFields stage(stages[0], "stages[0]", ErrorCode::invalid_argument);
  stage.string("kind");
  out.options = read_upcycle_stage(stage);
  out.options.seed = seed;
  stage.finish();
  return out;
}

double upcycle_factor(const UpcycleOptions& options) {
  const double places = options.top_k;
  const double weights = options.renormalise                      ? 1.0
                         : options.router == RouterScore::softmax ? places / options.experts
                                                                  : places / 2;  // sigmoid(0)
  return 1 / (options.shared + weights);
}

ModelConfig upcycled_config(const ModelConfig& config, const UpcycleOptions& options) {
  ModelConfig out = config;
  const std::vector<uint32_t> layers = upcycled_layers(config, options);
  require(!layers.empty(), ErrorCode::invalid_argument,
          "no layer has a dense feed-forward that could be upcycled");
  for (const uint32_t i : layers) {
    require(i < out.layers.size(), ErrorCode::invalid_argument,
            "layer {} cannot be upcycled: the model has layers 0 to {}", i, out.layers.size() - 1);
    FfnConfig& ffn = out.layers[i].ffn;
    require(!ffn.moe() && !ffn.bias, ErrorCode::invalid_argument,
            "layer {} cannot be upcycled: its feed-forward {}", i,
            ffn.moe() ? "is a mixture already" : "has biases, and experts have none");
    ffn.type = FfnType::moe;
    ffn.experts = options.experts;
    ffn.top_k = options.top_k;
    ffn.shared = options.shared;
    ffn.router = options.router;
    ffn.renormalise = options.renormalise;
  }
  out.validate();
  return out;
}

Checkpoint upcycle(Checkpoint in, const UpcycleOptions& options) {
  const bool hf = in.style() == NameStyle::hugging_face;
  require(!hf || !has_gla_swa_names(in.tensors()), ErrorCode::unsupported,
          "{} has the names of gla_swa checkpoints; write it with mneme quantize first", in.path().string());
  ModelConfig config = upcycled_config(in.config(), options);
  const std::string prefix = hf ? hf_prefix(in.tensors()) : "";
  std::map<std::string, const TensorInfo*> dense;  // pointers into the source, which moves but stays
  for (const ExpectedTensor& tensor : expected_tensors(in.config())) dense[tensor.name] = &in.at(tensor.name);
  const auto change = [&](std::unique_ptr<TensorSource> source) -> std::unique_ptr<TensorSource> {
    auto out = std::make_unique<UpcycledTensors>(std::move(source), options.router_deviation);
    uint64_t seed = options.seed;
    for (const ExpectedTensor& wanted : expected_tensors(config)) {
      const std::string name = hf ? hf_tensor_name(config, wanted.name, prefix) : wanted.name;
      const UpcycleOrigin from =
          dense.contains(wanted.name) ? UpcycleOrigin{wanted.name} : upcycle_origin(wanted.name, options);
      const Upcycled how{from.name.empty() ? nullptr : dense.at(from.name), from.factor, from.copies,
                         from.columns, seed++};
      TensorInfo info{name, how.as_is() ? how.base->type : DType::f32, wanted.shape, 0};
      info.bytes = how.as_is() ? how.base->bytes : info.values() * sizeof(float);
      out->add(std::move(info), how);
    }
    return out;
  };
  return changed_checkpoint(std::move(in), config, change);
}

}  // namespace mneme
