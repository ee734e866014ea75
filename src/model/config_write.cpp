// ModelConfig::to_json(). Fields at their default are left out; what all layers share stands once, under
// "defaults"; equal consecutive layers are folded by "repeat". Key order is fixed, so equal configs give
// equal text.
#include "core/json.h"
#include "memory/engram_config.h"
#include "mneme/model_config.h"
#include "model/activation_policy.h"
#include "model/config_names.h"

namespace mneme {
namespace {

using Ordered = nlohmann::ordered_json;
using namespace config_names;

/// Sets object[name] unless the value is the schema's default.
template <class T>
void put(Ordered& object, const char* name, const T& value, const T& omitted) {
  if (!(value == omitted)) object[name] = value;
}

Ordered scaling_json(const RopeScaling& scaling) {
  const RopeScaling omitted;
  Ordered out = {{"type", word(kScalings, scaling.type)}};
  put(out, "factor", scaling.factor, omitted.factor);
  put(out, "original_context", scaling.original_context, omitted.original_context);
  put(out, "low_freq_factor", scaling.low_freq_factor, omitted.low_freq_factor);
  put(out, "high_freq_factor", scaling.high_freq_factor, omitted.high_freq_factor);
  put(out, "beta_fast", scaling.beta_fast, omitted.beta_fast);
  put(out, "beta_slow", scaling.beta_slow, omitted.beta_slow);
  put(out, "attention_factor", scaling.attention_factor, omitted.attention_factor);
  put(out, "factors", scaling.factors, omitted.factors);
  return out;
}

Ordered rope_json(const RopeConfig& rope) {
  Ordered out = {{"base", rope.base}};
  put(out, "dims", rope.dims, 0u);
  if (rope.style != RopeConfig::Style::half) out["style"] = word(kStyles, rope.style);
  if (!(rope.scaling == RopeScaling{})) out["scaling"] = scaling_json(rope.scaling);
  return out;
}

Ordered mixer_json(const MixerConfig& mixer) {
  const MixerConfig omitted;
  Ordered out = {{"type", word(kMixers, mixer.type)}};
  if (mixer.type == MixerType::parallel) {
    out["of"] = Ordered::array();
    for (const MixerConfig& branch : mixer.of) out["of"].push_back(mixer_json(branch));
    put(out, "weights", mixer.weights, omitted.weights);
    put(out, "learned", mixer.learned, false);
    return out;
  }
  out["heads"] = mixer.heads;
  out["kv_heads"] = mixer.kv_heads;
  out["head_dim"] = mixer.head_dim;
  put(out, "window", mixer.window, 0u);
  if (mixer.edge != WindowEdge::exact) out["edge"] = word(kEdges, mixer.edge);
  put(out, "sinks", mixer.sinks, 0u);
  put(out, "block", mixer.block, omitted.block);
  put(out, "top_k", mixer.top_k, omitted.top_k);
  put(out, "shared", mixer.shared, false);
  put(out, "sink_logits", mixer.sink_logits, false);
  put(out, "qkv_bias", mixer.qkv_bias, false);
  put(out, "o_bias", mixer.o_bias, false);
  put(out, "qk_norm", mixer.qk_norm, false);
  if (mixer.qk_norm_over != QkNormOver::head) out["qk_norm_over"] = word(kQkNorms, mixer.qk_norm_over);
  put(out, "scale", mixer.scale, 0.0);
  put(out, "softcap", mixer.softcap, 0.0);
  if (mixer.rope) out["rope"] = rope_json(*mixer.rope);
  if (!(mixer.query == ActivationConfig())) out["query"] = activation_json(mixer.query);
  put(out, "kv_int8", mixer.kv_int8, false);
  if (mixer.recurrent() && mixer.feature != default_feature(mixer.type))
    out["feature"] = word(kFeatures, mixer.feature);
  if (mixer.gate != GateType::low_rank) out["gate"] = word(kGates, mixer.gate);
  put(out, "gate_rank", mixer.gate_rank, omitted.gate_rank);
  put(out, "gate_normalizer", mixer.gate_normalizer, omitted.gate_normalizer);
  put(out, "out_norm", mixer.out_norm, true);
  return out;
}

Ordered ffn_json(const FfnConfig& ffn) {
  Ordered out = {{"type", word(kFfns, ffn.type)}, {"hidden", ffn.hidden}, {"act", word(kActs, ffn.act)}};
  put(out, "bias", ffn.bias, false);
  if (!ffn.moe()) return out;
  const FfnConfig omitted;
  out["experts"] = ffn.experts;
  out["top_k"] = ffn.top_k;
  put(out, "shared", ffn.shared, 0u);
  put(out, "shared_hidden", ffn.shared_hidden, 0u);
  put(out, "shared_gate", ffn.shared_gate, false);
  if (ffn.router != omitted.router) out["router"] = word(kRouters, ffn.router);
  put(out, "renormalise", ffn.renormalise, omitted.renormalise);
  put(out, "scale", ffn.scale, omitted.scale);
  put(out, "selection_bias", ffn.selection_bias, false);
  put(out, "groups", ffn.groups, omitted.groups);
  put(out, "top_groups", ffn.top_groups, omitted.top_groups);
  if (ffn.group_score != omitted.group_score) out["group_score"] = word(kGroupScores, ffn.group_score);
  put(out, "null_experts", ffn.null_experts, 0u);
  put(out, "top_p", ffn.top_p, 0.0);
  return out;
}

Ordered layer_json(const LayerConfig& layer) {
  Ordered out = {{"mixer", mixer_json(layer.mixer)}, {"ffn", ffn_json(layer.ffn)}};
  put(out, "post_norm", layer.post_norm, false);
  if (!(layer.activation == ActivationPolicy())) out["activation"] = activation_json(layer.activation);
  return out;
}

/// What readers merge field by field; everything else is replaced as a whole.
bool is_merged(const std::string& key) {
  return key == "mixer" || key == "ffn";
}

/// What is in both objects with the same value; "mixer" and "ffn" of a layer are compared field by field.
Ordered common(const Ordered& a, const Ordered& b, bool layer) {
  Ordered out = Ordered::object();
  for (const auto& [key, value] : a.items()) {
    const auto it = b.find(key);
    if (it == b.end()) continue;
    if (layer && is_merged(key)) {
      Ordered inner = common(value, *it, false);
      if (!inner.empty()) out[key] = std::move(inner);
    } else if (value == *it) {
      out[key] = value;
    }
  }
  return out;
}

/// `entry` without what `defaults` says already.
Ordered without(const Ordered& entry, const Ordered& defaults, bool layer) {
  Ordered out = Ordered::object();
  for (const auto& [key, value] : entry.items()) {
    const auto it = defaults.find(key);
    if (it != defaults.end() && layer && is_merged(key)) {
      Ordered inner = without(value, *it, false);
      if (!inner.empty()) out[key] = std::move(inner);
    } else if (it == defaults.end() || !(value == *it)) {
      out[key] = value;
    }
  }
  return out;
}

}  // namespace

std::string ModelConfig::to_json() const {
  Ordered out = {{"mneme", 1}};
  put(out, "name", name, std::string());
  out["d_model"] = d_model;
  out["vocab"] = vocab;
  out["context"] = context;
  put(out, "tied", tied, false);
  put(out, "embedding_scale", embedding_scale, 1.0);
  put(out, "logit_softcap", logit_softcap, 0.0);
  put(out, "logit_scale", logit_scale, 1.0);
  put(out, "sink_tokens", sink_tokens, 0u);
  out["norm"] = {{"type", "rms"}, {"eps", norm.eps}};
  put(out["norm"], "weight_offset", norm.weight_offset, 0.0);
  out["rope"] = rope_json(rope);

  for (const auto& [table_name, table] : tables) out["tables"][table_name] = engram_table_json(table);

  Ordered defaults;
  std::vector<Ordered> all;
  for (const LayerConfig& layer : layers) {
    all.push_back(layer_json(layer));
    defaults = all.size() == 1 ? all.front() : common(defaults, all.back(), true);
  }
  if (!defaults.empty()) out["defaults"] = defaults;
  out["layers"] = Ordered::array();
  for (size_t i = 0; i < all.size();) {
    size_t end = i + 1;
    // a layer with a memory stands alone
    while (end < all.size() && !layers[i].memory && !layers[end].memory && all[end] == all[i]) ++end;
    Ordered entry = Ordered::object();
    if (end - i > 1) entry["repeat"] = end - i;
    entry.update(without(all[i], defaults, true));
    if (layers[i].memory) entry["memory"] = engram_module_json(*layers[i].memory);
    out["layers"].push_back(std::move(entry));
    i = end;
  }
  // a name from outside may hold bytes that are not UTF-8
  return out.dump(-1, ' ', false, Ordered::error_handler_t::replace);
}

}  // namespace mneme
