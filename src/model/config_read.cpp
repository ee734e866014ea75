// ModelConfig::from_json(): the strict reader of the schema in docs/config.md.
#include "core/fail.h"
#include "core/json_fields.h"
#include "memory/engram_config.h"
#include "mneme/model_config.h"
#include "model/activation_policy.h"
#include "model/config_limits.h"
#include "model/config_names.h"
#include "model/config_words.h"

namespace mneme {
namespace {

using namespace config_limits;
using namespace config_names;

constexpr double kAny = 1e300;  // validate() knows the ranges of reals; here they must only be numbers

void read_u32(JsonFields& fields, const char* name, uint32_t most, uint32_t& out) {
  out = fields.u32(name, 0, most, out);
}

void read_number(JsonFields& fields, const char* name, double& out) {
  out = fields.number(name, -kAny, kAny, out);
}

RopeScaling read_scaling(JsonFields fields) {
  RopeScaling out;
  read_word(fields, "type", kScalings, out.type);
  read_number(fields, "factor", out.factor);
  read_number(fields, "original_context", out.original_context);
  read_number(fields, "low_freq_factor", out.low_freq_factor);
  read_number(fields, "high_freq_factor", out.high_freq_factor);
  read_number(fields, "beta_fast", out.beta_fast);
  read_number(fields, "beta_slow", out.beta_slow);
  read_number(fields, "attention_factor", out.attention_factor);
  if (fields.has("factors")) out.factors = fields.numbers("factors", -kAny, kAny, kMaxHeadDim / 2);
  fields.finish();
  return out;
}

RopeConfig read_rope(JsonFields fields) {
  RopeConfig out;
  read_number(fields, "base", out.base);
  read_u32(fields, "dims", kMaxHeadDim, out.dims);
  read_word(fields, "style", kStyles, out.style);
  if (fields.has("scaling")) out.scaling = read_scaling(fields.object("scaling"));
  fields.finish();
  return out;
}

NormConfig read_norm(JsonFields fields) {
  NormConfig out;
  require(fields.string("type", "rms") == "rms", ErrorCode::invalid_argument,
          "{} must be \"rms\", the only norm there is", fields.where("type"));
  read_number(fields, "eps", out.eps);
  read_number(fields, "weight_offset", out.weight_offset);
  fields.finish();
  return out;
}

/// A layer while it is read, and what of it was given by the file.
struct Draft {
  LayerConfig layer;
  bool has_feature = false;
};

/// Resets what the mixer's type does not have: shared defaults of other types do not concern it.
void drop_foreign(MixerConfig& mixer) {
  const MixerConfig omitted;
  if (mixer.type != MixerType::window) {
    mixer.window = omitted.window;
    mixer.edge = omitted.edge;
  }
  if (mixer.type != MixerType::window && mixer.type != MixerType::sparse) mixer.sinks = omitted.sinks;
  if (mixer.type != MixerType::sparse) {
    mixer.shared = false;
    mixer.block = omitted.block;
    mixer.top_k = omitted.top_k;
  }
  if (!mixer.softmax()) {
    mixer.sink_logits = mixer.qk_norm = false;
    mixer.qk_norm_over = omitted.qk_norm_over;
    mixer.softcap = 0;
    mixer.rope.reset();
    mixer.query = {};
    mixer.kv_int8 = false;
  }
  if (mixer.type != MixerType::gla) {
    mixer.gate = omitted.gate;
    mixer.gate_rank = omitted.gate_rank;
    mixer.gate_normalizer = omitted.gate_normalizer;
  }
  if (!mixer.recurrent()) {
    mixer.feature = omitted.feature;
    mixer.out_norm = omitted.out_norm;
  }
  if (mixer.type == MixerType::parallel) {
    mixer.heads = mixer.kv_heads = mixer.head_dim = 0;
    mixer.qkv_bias = mixer.o_bias = false;
    mixer.scale = 0;
  } else {
    mixer.of.clear();
    mixer.weights = omitted.weights;
    mixer.learned = false;
  }
}

void read_mixer(JsonFields fields, bool is_layer, MixerConfig& out, bool& has_feature);

/// The branches of a parallel mixer. What one of them omits is taken from `base`.
std::vector<MixerConfig> read_branches(JsonFields& fields, MixerConfig base, bool base_has_feature) {
  const Json* entries = fields.find("of");
  require(entries->is_array() && entries->size() == 2, ErrorCode::invalid_argument,
          "{} must be an array of two mixers", fields.where("of"));
  base.type = MixerType::full;
  base.of.clear();
  base.weights = MixerConfig().weights;
  base.learned = false;
  std::vector<MixerConfig> out;
  for (size_t i = 0; i < entries->size(); ++i) {
    out.push_back(base);
    bool has_feature = base_has_feature;
    const std::string path = fmt::format("{}[{}]", fields.where("of"), i);
    read_mixer(JsonFields((*entries)[i], path, fields.code()), true, out.back(), has_feature);
  }
  return out;
}

std::array<double, 2> read_weights(JsonFields& fields) {
  const auto numbers = fields.numbers("weights", -kAny, kAny, 2);
  require(numbers.size() == 2, ErrorCode::invalid_argument, "{} has {} numbers, but there are two branches",
          fields.where("weights"), numbers.size());
  return {numbers[0], numbers[1]};
}

/// Overwrites in `out` what the object has. `is_layer`: not the shared defaults.
void read_mixer(JsonFields fields, bool is_layer, MixerConfig& out, bool& has_feature) {
  const MixerConfig inherited = out;
  const bool inherited_feature = has_feature;
  read_word(fields, "type", kMixers, out.type);
  if (is_layer) drop_foreign(out);
  read_u32(fields, "heads", kMaxHeads, out.heads);
  read_u32(fields, "kv_heads", kMaxHeads, out.kv_heads);
  read_u32(fields, "head_dim", kMaxHeadDim, out.head_dim);
  read_u32(fields, "window", kMaxContext, out.window);
  read_word(fields, "edge", kEdges, out.edge);
  read_u32(fields, "sinks", kMaxContext, out.sinks);
  read_u32(fields, "block", kMaxContext, out.block);
  read_u32(fields, "top_k", kMaxContext, out.top_k);
  out.shared = fields.boolean("shared", out.shared);
  out.sink_logits = fields.boolean("sink_logits", out.sink_logits);
  out.qkv_bias = fields.boolean("qkv_bias", out.qkv_bias);
  out.o_bias = fields.boolean("o_bias", out.o_bias);
  out.qk_norm = fields.boolean("qk_norm", out.qk_norm);
  read_word(fields, "qk_norm_over", kQkNorms, out.qk_norm_over);
  read_number(fields, "scale", out.scale);
  read_number(fields, "softcap", out.softcap);
  if (const Json* rope = fields.find("rope")) {
    if (rope->is_null())
      out.rope.reset();  // the model's, although the defaults have one
    else
      out.rope = read_rope(fields.object("rope"));
  }
  if (fields.has("query")) out.query = read_activation(fields, "query");
  out.kv_int8 = fields.boolean("kv_int8", out.kv_int8);
  has_feature |= fields.has("feature");
  read_word(fields, "feature", kFeatures, out.feature);
  if (is_layer && !has_feature && out.recurrent()) out.feature = default_feature(out.type);
  read_word(fields, "gate", kGates, out.gate);
  read_u32(fields, "gate_rank", kMaxGateRank, out.gate_rank);
  read_number(fields, "gate_normalizer", out.gate_normalizer);
  out.out_norm = fields.boolean("out_norm", out.out_norm);
  if (fields.has("of")) out.of = read_branches(fields, is_layer ? inherited : out, inherited_feature);
  if (fields.has("weights")) out.weights = read_weights(fields);
  out.learned = fields.boolean("learned", out.learned);
  fields.finish();
}

/// Resets what the type does not have, as drop_foreign() above does for a mixer.
void drop_foreign(FfnConfig& ffn) {
  if (ffn.moe()) {
    ffn.bias = false;
    return;
  }
  ffn = dense_fields(ffn);
}

/// Overwrites in `out` what the object has. `is_layer`: not the shared defaults.
void read_ffn(JsonFields fields, bool is_layer, FfnConfig& out) {
  read_word(fields, "type", kFfns, out.type);
  if (is_layer) drop_foreign(out);
  read_u32(fields, "hidden", kMaxHidden, out.hidden);
  read_word(fields, "act", kActs, out.act);
  out.bias = fields.boolean("bias", out.bias);
  read_u32(fields, "experts", kMaxExperts, out.experts);
  read_u32(fields, "top_k", 2 * kMaxExperts, out.top_k);
  read_u32(fields, "shared", kMaxSharedExperts, out.shared);
  read_u32(fields, "shared_hidden", kMaxHidden, out.shared_hidden);
  out.shared_gate = fields.boolean("shared_gate", out.shared_gate);
  read_word(fields, "router", kRouters, out.router);
  out.renormalise = fields.boolean("renormalise", out.renormalise);
  read_number(fields, "scale", out.scale);
  out.selection_bias = fields.boolean("selection_bias", out.selection_bias);
  read_u32(fields, "groups", kMaxExperts, out.groups);
  read_u32(fields, "top_groups", kMaxExperts, out.top_groups);
  read_word(fields, "group_score", kGroupScores, out.group_score);
  read_u32(fields, "null_experts", kMaxExperts, out.null_experts);
  read_number(fields, "top_p", out.top_p);
  fields.finish();
}

/// The fields that "defaults" and the entries of "layers" share.
void read_layer(JsonFields& fields, bool is_layer, Draft& draft) {
  LayerConfig& out = draft.layer;
  if (fields.has("memory")) {
    require(is_layer, ErrorCode::invalid_argument,
            "{} is there, but a memory belongs to one layer and cannot be shared", fields.where("memory"));
    out.memory = read_engram_module(fields.object("memory"));
  }
  if (fields.has("mixer")) read_mixer(fields.object("mixer"), is_layer, out.mixer, draft.has_feature);
  if (fields.has("ffn")) read_ffn(fields.object("ffn"), is_layer, out.ffn);
  out.post_norm = fields.boolean("post_norm", out.post_norm);
  if (fields.has("activation")) out.activation = read_activation_policy(fields, "activation");
  if (is_layer && !fields.has("ffn")) drop_foreign(out.ffn);
  if (is_layer && !fields.has("mixer")) {  // as a "mixer" that says nothing
    drop_foreign(out.mixer);
    if (!draft.has_feature && out.mixer.recurrent()) out.mixer.feature = default_feature(out.mixer.type);
  }
}

std::vector<LayerConfig> read_layers(JsonFields& fields, const Draft& defaults) {
  const Json* entries = fields.find("layers");
  require(entries && entries->is_array() && !entries->empty(), ErrorCode::invalid_argument,
          "layers must be an array of at least one layer");
  std::vector<LayerConfig> out;
  for (size_t i = 0; i < entries->size(); ++i) {
    JsonFields entry((*entries)[i], fmt::format("layers[{}]", i), ErrorCode::invalid_argument);
    const uint32_t repeat = entry.u32("repeat", 1, kMaxLayers, 1);
    require(out.size() + repeat <= kMaxLayers, ErrorCode::invalid_argument,
            "layers[{}].repeat makes {} layers, but a model may have at most {}", i, out.size() + repeat,
            kMaxLayers);
    Draft draft = defaults;
    read_layer(entry, true, draft);
    const LayerConfig& layer = draft.layer;
    require(!layer.memory || repeat == 1, ErrorCode::invalid_argument,
            "layers[{}].repeat is {}, but a memory belongs to one layer: write the layers one by one", i,
            repeat);
    entry.finish();
    out.insert(out.end(), repeat, layer);
  }
  return out;
}

std::map<std::string, EngramTableConfig> read_tables(JsonFields fields, const Json& object) {
  require(object.size() <= kMaxTables, ErrorCode::invalid_argument, "tables has {} entries, but may have {}",
          object.size(), kMaxTables);
  std::map<std::string, EngramTableConfig> out;
  for (const auto& [name, table] : object.items()) out.emplace(name, read_engram_table(fields.object(name)));
  return out;
}

}  // namespace

ModelConfig ModelConfig::from_json(std::string_view text) {
  const Json json = parse_json(text, "model config", 16);
  JsonFields fields(json, "", ErrorCode::invalid_argument);
  const uint32_t version = fields.u32("mneme", 0, UINT32_MAX);
  require(version == 1, ErrorCode::unsupported, "mneme is {}, but this version reads schema 1", version);

  ModelConfig out;
  out.name = fields.string("name", "");
  out.d_model = fields.u32("d_model", 1, kMaxWidth);
  out.vocab = fields.u32("vocab", 1, kMaxVocab);
  out.context = fields.u32("context", 1, kMaxContext);
  out.tied = fields.boolean("tied", out.tied);
  read_number(fields, "embedding_scale", out.embedding_scale);
  read_number(fields, "logit_softcap", out.logit_softcap);
  read_number(fields, "logit_scale", out.logit_scale);
  read_u32(fields, "sink_tokens", kMaxSinkTokens, out.sink_tokens);
  if (fields.has("norm")) out.norm = read_norm(fields.object("norm"));
  if (fields.has("rope")) out.rope = read_rope(fields.object("rope"));

  if (fields.has("tables")) out.tables = read_tables(fields.object("tables"), *fields.find("tables"));

  Draft defaults;
  if (fields.has("defaults")) {
    JsonFields shared = fields.object("defaults");
    read_layer(shared, false, defaults);
    shared.finish();
  }
  out.layers = read_layers(fields, defaults);
  fields.finish();
  out.validate();
  return out;
}

}  // namespace mneme
