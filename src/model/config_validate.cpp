// ModelConfig::validate(): the one place that decides which configs may exist. Importers and from_json() end
// here, so everything downstream may trust every number.
#include <algorithm>
#include <cmath>
#include <string>

#include "core/fail.h"
#include "memory/engram_config.h"
#include "mneme/model_config.h"
#include "model/config_limits.h"

namespace mneme {
namespace {

using namespace config_limits;

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

void check_mixer(const MixerConfig& mixer, const ModelConfig& model, const std::string& where) {
  in_range(mixer.heads, 1, kMaxHeads, where + ".heads");
  in_range(mixer.kv_heads, 1, kMaxHeads, where + ".kv_heads");
  in_range(mixer.head_dim, 1, kMaxHeadDim, where + ".head_dim");
  require(mixer.heads % mixer.kv_heads == 0, ErrorCode::invalid_argument,
          "{}.kv_heads is {}, but must divide heads, which is {}", where, mixer.kv_heads, mixer.heads);
  if (mixer.type == MixerType::window) {
    in_range(mixer.window, 1, kMaxContext, where + ".window");
    in_range(mixer.sinks, 0, kMaxContext, where + ".sinks");
  } else {
    require(mixer.type == MixerType::full, ErrorCode::unsupported, "{}.type is not one of full, window",
            where);
    require(mixer.window == 0, ErrorCode::invalid_argument,
            "{}.window is {}, but the type is \"full\"; it belongs to type \"window\"", where, mixer.window);
    require(mixer.sinks == 0, ErrorCode::invalid_argument,
            "{}.sinks is {}, but the type is \"full\"; it belongs to type \"window\"", where, mixer.sinks);
  }
  positive(mixer.scale, kMaxScale, true, where + ".scale");
  positive(mixer.softcap, kMaxScale, true, where + ".softcap");
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

void check_layer(const LayerConfig& layer, const ModelConfig& model, const std::string& where) {
  check_mixer(layer.mixer, model, where + ".mixer");
  if (layer.memory) check_memory(*layer.memory, model, where + ".memory");
  require(layer.ffn.type == FfnType::dense, ErrorCode::unsupported, "{}.ffn.type is not dense", where);
  in_range(layer.ffn.hidden, 1, kMaxHidden, where + ".ffn.hidden");
  require(layer.ffn.act == Act::silu || layer.ffn.act == Act::gelu_tanh || layer.ffn.act == Act::gelu,
          ErrorCode::invalid_argument, "{}.ffn.act is not one of silu, gelu_tanh, gelu", where);
  require(layer.activation == Activation::automatic || layer.activation == Activation::float_ ||
              layer.activation == Activation::int8,
          ErrorCode::unsupported,
          "{}.activation is \"spike\", which this version cannot run; use auto, float or int8", where);
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
  for (size_t i = 0; i < layers.size(); ++i) check_layer(layers[i], *this, fmt::format("layers[{}]", i));
}

}  // namespace mneme
