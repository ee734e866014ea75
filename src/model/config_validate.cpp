// ModelConfig::validate(): the one place that decides which configs may exist. Importers and from_json() end
// here, so everything downstream may trust every number.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/fail.h"
#include "memory/engram_config.h"
#include "mneme/model_config.h"
#include "model/activation_policy.h"
#include "model/config_limits.h"
#include "model/config_names.h"

namespace mneme {
namespace {

using namespace config_limits;
using namespace config_names;

void in_range(uint64_t value, uint64_t least, uint64_t most, const std::string& where) {
  require(value >= least && value <= most, ErrorCode::invalid_argument,
          "{} is {}, but must be a whole number from {} to {}", where, value, least, most);
}

/// Finite and in (0, most]; 0 itself only if `zero_allowed` (it stands for "off" or "the default").
void positive(double value, double most, bool zero_allowed, const std::string& where) {
  const bool fits = std::isfinite(value) && value <= most && (zero_allowed ? value >= 0 : value > 0);
  require(fits, ErrorCode::invalid_argument, "{} is {}, but must be a number {} 0 and at most {}", where,
          value, zero_allowed ? "from" : "above", most);
}

void check_scaling(const RopeScaling& scaling, uint32_t dims, const std::string& where) {
  const auto type = scaling.type;
  if (type == RopeScaling::Type::none) {
    require(scaling == RopeScaling{}, ErrorCode::invalid_argument,
            "{} has parameters, but its type is \"none\"", where);
    return;
  }
  if (type == RopeScaling::Type::factors) {
    require(scaling.factors.size() == dims / 2, ErrorCode::invalid_argument,
            "{}.factors has {} numbers, but there are {} pairs (half of {} rotated dimensions)", where,
            scaling.factors.size(), dims / 2, dims);
    for (size_t i = 0; i < scaling.factors.size(); ++i)
      positive(scaling.factors[i], kMaxRopeFactor, false, fmt::format("{}.factors[{}]", where, i));
    return;
  }
  require(scaling.factors.empty(), ErrorCode::invalid_argument,
          "{}.factors belongs to the type \"factors\" only", where);
  require(std::isfinite(scaling.factor) && scaling.factor >= 1 && scaling.factor <= kMaxRopeFactor,
          ErrorCode::invalid_argument, "{}.factor is {}, but must be a number from 1 to {}", where,
          scaling.factor, kMaxRopeFactor);
  if (type == RopeScaling::Type::linear) return;
  positive(scaling.original_context, kMaxContext, false, where + ".original_context");
  if (type == RopeScaling::Type::llama3) {
    positive(scaling.low_freq_factor, kMaxRopeFactor, false, where + ".low_freq_factor");
    positive(scaling.high_freq_factor, kMaxRopeFactor, false, where + ".high_freq_factor");
    require(scaling.high_freq_factor > scaling.low_freq_factor, ErrorCode::invalid_argument,
            "{}.high_freq_factor is {}, but must be above low_freq_factor, which is {}", where,
            scaling.high_freq_factor, scaling.low_freq_factor);
    return;
  }
  positive(scaling.beta_fast, kMaxRopeFactor, false, where + ".beta_fast");
  positive(scaling.beta_slow, kMaxRopeFactor, false, where + ".beta_slow");
  require(scaling.beta_fast >= scaling.beta_slow, ErrorCode::invalid_argument,
          "{}.beta_fast is {}, but must not be below beta_slow, which is {}", where, scaling.beta_fast,
          scaling.beta_slow);
  positive(scaling.attention_factor, kMaxScale, true, where + ".attention_factor");
}

void check_rope_base(const RopeConfig& rope, const std::string& where) {
  require(std::isfinite(rope.base) && rope.base > 1 && rope.base <= kMaxRopeBase, ErrorCode::invalid_argument,
          "{}.base is {}, but must be a number above 1 and at most {}", where, rope.base, kMaxRopeBase);
}

void check_rope(const RopeConfig& rope, uint32_t head_dim, const std::string& where) {
  check_rope_base(rope, where);
  const uint32_t dims = rope.dims == 0 ? head_dim : rope.dims;
  require(dims <= head_dim && dims % 2 == 0, ErrorCode::invalid_argument,
          "{}.dims is {}, but must be even and at most the head_dim, which is {}", where, dims, head_dim);
  require(rope.style == RopeConfig::Style::half || rope.style == RopeConfig::Style::interleaved,
          ErrorCode::invalid_argument, "{}.style is not one of half, interleaved", where);
  check_scaling(rope.scaling, dims, where + ".scaling");
}

/// Refuses fields of other types. They come with their default, so that only what somebody set is refused.
class ForeignFields {
 public:
  ForeignFields(const MixerConfig& mixer, const std::string& where) : mixer_(mixer), where_(where) {}
  template <class T>
  void check(bool own, const char* field, const T& value, const T& omitted, const char* owners) const {
    if (own || value == omitted) return;
    fail(ErrorCode::invalid_argument, "{}.{} is {}, but the type is \"{}\"; it belongs to {}", where_, field,
         value, word(kMixers, mixer_.type), owners);
  }
  template <class T>
  void check_present(bool own, const char* field, const T& value, const char* owners) const {
    if (own || !static_cast<bool>(value)) return;
    fail(ErrorCode::invalid_argument, "{}.{} is there, but the type is \"{}\"; it belongs to {}", where_,
         field, word(kMixers, mixer_.type), owners);
  }

 private:
  const MixerConfig& mixer_;
  const std::string& where_;
};

void check_foreign(const MixerConfig& m, const std::string& where) {
  const MixerConfig omitted;
  const ForeignFields fields(m, where);
  const auto type = m.type;
  const bool window = type == MixerType::window, sparse = type == MixerType::sparse,
             gla = type == MixerType::gla;
  const bool parallel = type == MixerType::parallel;
  const char* const a_window = "type \"window\"";
  fields.check(window, "window", m.window, omitted.window, a_window);
  fields.check(window, "edge", word(kEdges, m.edge), word(kEdges, omitted.edge), a_window);
  fields.check(window || sparse, "sinks", m.sinks, omitted.sinks, "types window and sparse");
  fields.check(sparse, "block", m.block, omitted.block, "type \"sparse\"");
  fields.check(sparse, "top_k", m.top_k, omitted.top_k, "type \"sparse\"");
  fields.check(sparse, "shared", m.shared, false, "type \"sparse\"");
  const char* const attention = "types full, window and sparse";
  fields.check(m.softmax(), "sink_logits", m.sink_logits, false, attention);
  fields.check(m.softmax(), "qk_norm", m.qk_norm, false, attention);
  fields.check(m.softmax(), "qk_norm_over", word(kQkNorms, m.qk_norm_over),
               word(kQkNorms, omitted.qk_norm_over), attention);
  fields.check(m.softmax(), "softcap", m.softcap, 0.0, attention);
  fields.check_present(m.softmax(), "rope", m.rope, attention);
  fields.check_present(m.softmax(), "query", !(m.query == ActivationConfig()), attention);
  fields.check(m.softmax(), "kv_int8", m.kv_int8, false, attention);
  fields.check(gla, "gate", word(kGates, m.gate), word(kGates, omitted.gate), "type \"gla\"");
  fields.check(gla, "gate_rank", m.gate_rank, omitted.gate_rank, "type \"gla\"");
  fields.check(gla, "gate_normalizer", m.gate_normalizer, omitted.gate_normalizer, "type \"gla\"");
  fields.check(m.recurrent(), "feature", word(kFeatures, m.feature), word(kFeatures, omitted.feature),
               "types gla and delta");
  fields.check(m.recurrent(), "out_norm", m.out_norm, true, "types gla and delta");
  fields.check_present(parallel, "of", !m.of.empty(), "type \"parallel\"");
  fields.check_present(parallel, "weights", m.weights != omitted.weights, "type \"parallel\"");
  fields.check(parallel, "learned", m.learned, false, "type \"parallel\"");
  const char* const branches = "the branches in \"of\"";
  fields.check(!parallel, "heads", m.heads, 0u, branches);
  fields.check(!parallel, "kv_heads", m.kv_heads, 0u, branches);
  fields.check(!parallel, "head_dim", m.head_dim, 0u, branches);
  fields.check(!parallel, "qkv_bias", m.qkv_bias, false, branches);
  fields.check(!parallel, "o_bias", m.o_bias, false, branches);
  fields.check(!parallel, "scale", m.scale, 0.0, branches);
}

void check_window(const MixerConfig& mixer, const ModelConfig& model, const std::string& where) {
  in_range(mixer.window, 1, kMaxContext, where + ".window");
  in_range(mixer.sinks, 0, kMaxContext, where + ".sinks");
  require(mixer.window <= model.context, ErrorCode::invalid_argument,
          "{}.window is {}, but the context is {}, and a window cannot be larger", where, mixer.window,
          model.context);
}

void check_sparse(const MixerConfig& mixer, const std::string& where) {
  in_range(mixer.block, kSparseStep, kMaxContext, where + ".block");
  require(mixer.block % kSparseStep == 0, ErrorCode::invalid_argument,
          "{}.block is {}, but must be a multiple of {}", where, mixer.block, kSparseStep);
  in_range(mixer.top_k, 1, kMaxContext, where + ".top_k");
  in_range(mixer.sinks, 0, kMaxContext, where + ".sinks");
}

void check_gla(const MixerConfig& mixer, const std::string& where) {
  const MixerConfig omitted;
  if (mixer.gate == GateType::low_rank)
    in_range(mixer.gate_rank, 1, kMaxGateRank, where + ".gate_rank");
  else
    require(mixer.gate_rank == omitted.gate_rank, ErrorCode::invalid_argument,
            "{}.gate_rank is {}, but the gate is \"{}\"; it belongs to gate \"low_rank\"", where,
            mixer.gate_rank, word(kGates, mixer.gate));
  if (mixer.gate != GateType::tied)
    return positive(mixer.gate_normalizer, kMaxScale, false, where + ".gate_normalizer");
  require(mixer.gate_normalizer == omitted.gate_normalizer, ErrorCode::invalid_argument,
          "{}.gate_normalizer is {}, but the gate is \"tied\", which has none", where, mixer.gate_normalizer);
  require(mixer.feature == FeatureMap::sigmoid, ErrorCode::invalid_argument,
          "{}.feature is \"{}\", but the gate is \"tied\": 1 - k is a decay only with \"sigmoid\"", where,
          word(kFeatures, mixer.feature));
}

void check_mixer(const MixerConfig& mixer, const ModelConfig& model, const std::string& where);

void check_branches(const MixerConfig& mixer, const ModelConfig& model, const std::string& where) {
  require(mixer.of.size() == 2, ErrorCode::invalid_argument,
          "{}.of has {} mixers, but a parallel mixer has two", where, mixer.of.size());
  for (size_t i = 0; i < mixer.of.size(); ++i) {
    const std::string branch = fmt::format("{}.of[{}]", where, i);
    require(mixer.of[i].type != MixerType::parallel, ErrorCode::invalid_argument,
            "{}.type is \"parallel\", but branches cannot have branches of their own", branch);
    check_mixer(mixer.of[i], model, branch);
  }
  for (size_t i = 0; i < mixer.weights.size(); ++i)
    require(std::isfinite(mixer.weights[i]) && std::abs(mixer.weights[i]) <= kMaxScale,
            ErrorCode::invalid_argument, "{}.weights[{}] is {}, but must be a number from -{} to {}", where,
            i, mixer.weights[i], kMaxScale, kMaxScale);
  require(!mixer.learned || mixer.weights == MixerConfig().weights, ErrorCode::invalid_argument,
          "{}.weights are there, but learned is true: they are a tensor", where);
}

void check_mixer(const MixerConfig& mixer, const ModelConfig& model, const std::string& where) {
  check_foreign(mixer, where);
  if (mixer.type == MixerType::parallel) return check_branches(mixer, model, where);
  in_range(mixer.heads, 1, kMaxHeads, where + ".heads");
  in_range(mixer.kv_heads, 1, kMaxHeads, where + ".kv_heads");
  in_range(mixer.head_dim, 1, kMaxHeadDim, where + ".head_dim");
  require(mixer.heads % mixer.kv_heads == 0, ErrorCode::invalid_argument,
          "{}.kv_heads is {}, but must divide heads, which is {}", where, mixer.kv_heads, mixer.heads);
  positive(mixer.scale, kMaxScale, true, where + ".scale");
  positive(mixer.softcap, kMaxScale, true, where + ".softcap");
  if (mixer.type == MixerType::window) check_window(mixer, model, where);
  if (mixer.type == MixerType::sparse) check_sparse(mixer, where);
  if (mixer.type == MixerType::gla) check_gla(mixer, where);
  if (!mixer.softmax()) return;
  require(mixer.query.type == Activation::automatic || mixer.query.type == Activation::spike,
          ErrorCode::invalid_argument, "{}.query is \"{}\", but must be \"auto\" or \"spike\"", where,
          word(kActivations, mixer.query.type));
  validate(mixer.query, where + ".query");
  require(mixer.qk_norm || mixer.qk_norm_over == QkNormOver::head, ErrorCode::invalid_argument,
          "{}.qk_norm_over is \"{}\", but qk_norm is false", where, word(kQkNorms, mixer.qk_norm_over));
  const bool own = mixer.rope.has_value();
  check_rope(own ? *mixer.rope : model.rope, mixer.head_dim, own ? where + ".rope" : "rope");
}

void check_memory(const EngramModuleConfig& memory, const ModelConfig& model, const std::string& where) {
  mneme::validate(memory, where);
  const auto table = model.tables.find(memory.table);
  require(table != model.tables.end(), ErrorCode::invalid_argument,
          "{}.table is \"{}\", but tables has no such entry", where, memory.table);
  const auto& ids = table->second.layer_ids;
  require(std::find(ids.begin(), ids.end(), memory.layer_id) != ids.end(), ErrorCode::invalid_argument,
          "{}.layer_id is {}, but tables.{}.layer_ids has only {}", where, memory.layer_id, memory.table,
          fmt::join(ids, ", "));
}

/// A dense feed-forward has no field of a mixture at another value than its default.
void check_dense(const FfnConfig& ffn, const std::string& where) {
  require(ffn == dense_fields(ffn), ErrorCode::invalid_argument,
          "{} has fields of a mixture of experts, but its type is \"dense\"; experts, top_k, shared and what "
          "a router has belong to type \"moe\"",
          where);
}

void check_groups(const FfnConfig& ffn, const std::string& where) {
  in_range(ffn.groups, 1, ffn.experts, where + ".groups");
  in_range(ffn.top_groups, 1, ffn.groups, where + ".top_groups");
  require(ffn.experts % ffn.groups == 0, ErrorCode::invalid_argument,
          "{}.groups is {}, but must divide experts, which is {}", where, ffn.groups, ffn.experts);
  const uint32_t size = ffn.experts / ffn.groups, seen = size * ffn.top_groups;
  require(ffn.groups == 1 || ffn.null_experts == 0, ErrorCode::invalid_argument,
          "{} has groups and null_experts; null experts belong to no group", where);
  require(ffn.groups == 1 || ffn.top_k <= seen, ErrorCode::invalid_argument,
          "{}.top_k is {}, but {} groups of {} experts hold only {}", where, ffn.top_k, ffn.top_groups, size,
          seen);
  require(ffn.group_score == GroupScore::max || size >= 2, ErrorCode::invalid_argument,
          "{}.group_score is \"{}\", but a group has only one expert", where,
          word(kGroupScores, ffn.group_score));
}

void check_moe(const FfnConfig& ffn, const std::string& where) {
  require(!ffn.bias, ErrorCode::invalid_argument, "{}.bias is true, but experts have none", where);
  in_range(ffn.experts, 1, kMaxExperts, where + ".experts");
  in_range(ffn.null_experts, 0, kMaxExperts, where + ".null_experts");
  require(ffn.top_k >= 1 && ffn.top_k <= ffn.choices(), ErrorCode::invalid_argument,
          "{}.top_k is {}, but must be from 1 to the number of experts, which is {}{}", where, ffn.top_k,
          ffn.experts, ffn.null_experts > 0 ? fmt::format(" and {} null experts", ffn.null_experts) : "");
  in_range(ffn.shared, 0, kMaxSharedExperts, where + ".shared");
  in_range(ffn.shared_hidden, 0, kMaxHidden, where + ".shared_hidden");
  require(ffn.shared > 0 || (ffn.shared_hidden == 0 && !ffn.shared_gate), ErrorCode::invalid_argument,
          "{}.shared is 0, but there is shared_hidden or shared_gate", where);
  in_range(ffn.shared_width(), 0, kMaxHidden, where + ".shared times their width");
  positive(ffn.scale, kMaxScale, false, where + ".scale");
  require(std::isfinite(ffn.top_p) && ffn.top_p >= 0 && ffn.top_p < 1, ErrorCode::invalid_argument,
          "{}.top_p is {}, but must be a number from 0 (off) to below 1", where, ffn.top_p);
  check_groups(ffn, where);
}

void check_ffn(const FfnConfig& ffn, const std::string& where) {
  in_range(ffn.hidden, 1, kMaxHidden, where + ".hidden");
  require(ffn.act == Act::silu || ffn.act == Act::gelu_tanh || ffn.act == Act::gelu,
          ErrorCode::invalid_argument, "{}.act is not one of silu, gelu_tanh, gelu", where);
  ffn.moe() ? check_moe(ffn, where) : check_dense(ffn, where);
}

void check_layer(const LayerConfig& layer, const ModelConfig& model, const std::string& where) {
  check_mixer(layer.mixer, model, where + ".mixer");
  require(layer.mixer.type != MixerType::parallel || !layer.post_norm, ErrorCode::invalid_argument,
          "{}.post_norm is true, but the branches of a parallel mixer have norms of their own", where);
  if (layer.memory) check_memory(*layer.memory, model, where + ".memory");
  check_ffn(layer.ffn, where + ".ffn");
  validate(layer.activation, where + ".activation");
}

}  // namespace

void ModelConfig::validate() const {
  in_range(d_model, 1, kMaxWidth, "d_model");
  in_range(vocab, 1, kMaxVocab, "vocab");
  in_range(context, 1, kMaxContext, "context");
  positive(embedding_scale, kMaxScale, false, "embedding_scale");
  positive(logit_scale, kMaxScale, false, "logit_scale");
  positive(logit_softcap, kMaxScale, true, "logit_softcap");
  positive(norm.eps, 1.0, false, "norm.eps");
  require(std::isfinite(norm.weight_offset) && std::abs(norm.weight_offset) <= kMaxScale,
          ErrorCode::invalid_argument, "norm.weight_offset is {}, but must be a number from -{} to {}",
          norm.weight_offset, kMaxScale, kMaxScale);
  in_range(sink_tokens, 0, kMaxSinkTokens, "sink_tokens");
  check_rope_base(rope, "rope");  // the rest of it in the layers that use it
  require(name.size() <= kMaxNameBytes, ErrorCode::invalid_argument,
          "name has {} bytes, but may have at most {}", name.size(), kMaxNameBytes);
  require(tables.size() <= kMaxTables, ErrorCode::invalid_argument,
          "tables has {} entries, but may have at most {}", tables.size(), kMaxTables);
  for (const auto& [table_name, table] : tables) {
    require(!table_name.empty() && table_name.size() <= kMaxNameBytes, ErrorCode::invalid_argument,
            "tables has a name of {} bytes; names have 1 to {}", table_name.size(), kMaxNameBytes);
    mneme::validate(table, "tables." + table_name);
  }
  require(!layers.empty(), ErrorCode::invalid_argument, "layers is empty, but a model has at least one");
  require(layers.size() <= kMaxLayers, ErrorCode::invalid_argument,
          "layers has {} entries, but may have at most {}", layers.size(), kMaxLayers);
  uint64_t experts = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    check_layer(layers[i], *this, fmt::format("layers[{}]", i));
    experts += layers[i].ffn.experts;
  }
  require(experts <= kMaxAllExperts, ErrorCode::invalid_argument,
          "layers have {} experts together, but may have at most {}", experts, kMaxAllExperts);
}

}  // namespace mneme
