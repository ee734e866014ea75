#include "model/import_hf_experts.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "core/fail.h"
#include "model/config_limits.h"

namespace mneme {
namespace {

using namespace config_limits;

/// Names of fields (null: the family has none), what `transformers` takes where they are missing, and what
/// the family's code does. 0: the field must be there.
struct ExpertFamily {
  const char* type;
  const char *experts, *hidden;
  uint32_t experts_default, top_k_default, hidden_default;
  bool renormalise;       // if norm_topk_prob is not there
  bool says_renormalise;  // whether norm_topk_prob is read
  RouterScore router;
  bool sparse_step;  // decoder_sparse_step, mlp_only_layers
  bool first_dense;  // first_k_dense_replace, n_shared_experts, groups and a scale
  bool selection_bias;
  const char* shared_hidden;  // width of one shared expert
};

constexpr auto kSoftmax = RouterScore::softmax;
constexpr const char* kOwnWidth = "moe_intermediate_size";
constexpr ExpertFamily kExpertFamilies[] = {
    {"mixtral", "num_local_experts", "intermediate_size", 8, 2, 14336, true, false, kSoftmax, false, false,
     false, nullptr},
    {"qwen2_moe", "num_experts", kOwnWidth, 60, 4, 1408, false, true, kSoftmax, true, false, false,
     "shared_expert_intermediate_size"},
    {"qwen3_moe", "num_experts", kOwnWidth, 128, 8, 768, false, true, kSoftmax, true, false, false, nullptr},
    {"olmoe", "num_experts", "intermediate_size", 64, 8, 2048, false, true, kSoftmax, false, false, false,
     nullptr},
    {"granitemoe", "num_local_experts", "intermediate_size", 8, 2, 11008, true, false, kSoftmax, false, false,
     false, nullptr},
    {"granitemoeshared", "num_local_experts", "intermediate_size", 8, 2, 11008, true, false, kSoftmax, false,
     false, false, "shared_intermediate_size"},
    {"deepseek", "n_routed_experts", kOwnWidth, 0, 0, 1407, false, true, kSoftmax, false, true, false,
     nullptr},
    {"dots1", "n_routed_experts", kOwnWidth, 0, 0, 1408, false, true, RouterScore::sigmoid, false, true, true,
     nullptr},
};

std::optional<uint32_t> or_needed(uint32_t fallback) {
  return fallback == 0 ? std::nullopt : std::optional<uint32_t>(fallback);
}

/// Which layers are mixtures.
std::vector<bool> expert_layers(JsonFields& fields, const ExpertFamily& family, size_t layers) {
  std::vector<bool> out(layers, true);
  if (family.sparse_step) {
    const uint32_t step = fields.u32("decoder_sparse_step", 1, kMaxLayers, 1);
    for (size_t i = 0; i < layers; ++i) out[i] = (i + 1) % step == 0;
    if (fields.has("mlp_only_layers"))
      for (const uint64_t i : fields.u64s("mlp_only_layers", 0, kMaxLayers, kMaxLayers))
        if (i < layers) out[i] = false;
  }
  if (family.first_dense) {
    const uint32_t dense = fields.u32("first_k_dense_replace", 0, kMaxLayers, 0);
    const uint32_t every = fields.u32("moe_layer_freq", 1, kMaxLayers, 1);
    for (size_t i = 0; i < layers; ++i) out[i] = i >= dense && i % every == 0;
  }
  return out;
}

/// Fields of DeepSeek's line: shared experts of the routed ones' width, groups, a scale.
void read_deepseek(JsonFields& fields, const ExpertFamily& family, FfnConfig& ffn) {
  ffn.shared = fields.u32("n_shared_experts", 0, kMaxSharedExperts, 0);
  ffn.scale = fields.number("routed_scaling_factor", 0, kMaxScale, 1.0);
  ffn.groups = fields.u32("n_group", 1, kMaxExperts, 1);
  ffn.top_groups = fields.u32("topk_group", 1, kMaxExperts, 1);
  if (ffn.groups > 1 && ffn.top_groups < ffn.groups) {
    ffn.group_score = family.selection_bias ? GroupScore::top_two : GroupScore::max;
  } else {
    ffn.groups = ffn.top_groups = 1;  // all groups are seen
  }
  ffn.selection_bias = family.selection_bias;
  const std::string scoring = fields.string("scoring_func", ffn.router == kSoftmax ? "softmax" : "sigmoid");
  require(scoring == "softmax" || scoring == "sigmoid", ErrorCode::unsupported,
          "{} is \"{}\"; this version knows softmax and sigmoid", fields.where("scoring_func"),
          scoring.substr(0, 64));
  ffn.router = scoring == "softmax" ? kSoftmax : RouterScore::sigmoid;
}

}  // namespace

void read_hf_experts(JsonFields& fields, std::string_view type, ModelConfig& model) {
  const auto* const family = std::find_if(std::begin(kExpertFamilies), std::end(kExpertFamilies),
                                          [&](const ExpertFamily& f) { return type == f.type; });
  if (family == std::end(kExpertFamilies)) return;
  FfnConfig ffn;
  ffn.type = FfnType::moe;
  ffn.act = model.layers.front().ffn.act;
  ffn.hidden = fields.u32(family->hidden, 1, kMaxHidden, or_needed(family->hidden_default));
  ffn.experts = fields.u32(family->experts, 1, kMaxExperts, or_needed(family->experts_default));
  ffn.top_k = fields.u32("num_experts_per_tok", 1, kMaxExperts, or_needed(family->top_k_default));
  ffn.router = family->router;
  ffn.renormalise =
      family->says_renormalise ? fields.boolean("norm_topk_prob", family->renormalise) : family->renormalise;
  if (family->shared_hidden != nullptr) {
    const bool gated = type == "qwen2_moe";
    ffn.shared_hidden = fields.u32(family->shared_hidden, 0, kMaxHidden, gated ? 5632 : 0);
    ffn.shared = ffn.shared_hidden > 0 ? 1 : 0;
    if (ffn.shared_hidden == ffn.hidden) ffn.shared_hidden = 0;  // that is the default
    ffn.shared_gate = gated && ffn.shared > 0;
  }
  if (family->first_dense) read_deepseek(fields, *family, ffn);
  const std::vector<bool> mixed = expert_layers(fields, *family, model.layers.size());
  for (size_t i = 0; i < mixed.size(); ++i)
    if (mixed[i]) model.layers[i].ffn = ffn;
}

void fold_residual_multiplier(double multiplier, ModelConfig& model) {
  model.embedding_scale /= multiplier;
  model.norm.eps /= multiplier * multiplier;
}

void read_granite_multipliers(JsonFields& fields, ModelConfig& model) {
  constexpr double kLeast = 1e-6;
  const auto read = [&](const char* name) { return fields.number(name, kLeast, kMaxScale, 1.0); };
  model.embedding_scale = read("embedding_multiplier");
  model.logit_scale = 1 / read("logits_scaling");
  const double scale = read("attention_multiplier");
  for (LayerConfig& layer : model.layers) layer.mixer.scale = scale;
  fold_residual_multiplier(read("residual_multiplier"), model);
}

}  // namespace mneme
