#include "model/hf_rope.h"

#include <cmath>

#include "core/fail.h"
#include "model/config_limits.h"

namespace mneme {
namespace {

using namespace config_limits;

double yarn_magnitude(double factor, double weight) {
  return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

/// What multiplies cos and sin under YaRN; 0 = the default of the config schema.
double read_attention_factor(JsonFields& fields, double factor) {
  if (fields.has("attention_factor")) return fields.number("attention_factor", 1e-6, kMaxScale);
  const double mscale = fields.number("mscale", 0, kMaxScale, 0.0);
  const double all_dims = fields.number("mscale_all_dim", 0, kMaxScale, 0.0);
  if (mscale == 0 || all_dims == 0) return 0;
  return yarn_magnitude(factor, mscale) / yarn_magnitude(factor, all_dims);
}

/// `fields`: a rope_scaling or rope_parameters object. `model`: where the original context may stand too.
RopeScaling read_scaling(JsonFields& fields, JsonFields& model, uint32_t context) {
  RopeScaling out;
  const std::string type =
      fields.has("rope_type") ? fields.string("rope_type") : fields.string("type", "default");
  if (type == "default") return out;
  const auto original = [&](std::optional<double> fallback) {
    constexpr const char* kName = "original_max_position_embeddings";
    if (!fields.has(kName) && model.has(kName)) return model.number(kName, 1, kMaxContext);
    return fields.number(kName, 1, kMaxContext, fallback);
  };
  if (type == "linear") {
    out.type = RopeScaling::Type::linear;
    out.factor = fields.number("factor", 1, kMaxRopeFactor);
    if (out.factor == 1) return {};
  } else if (type == "llama3") {
    out.type = RopeScaling::Type::llama3;
    out.factor = fields.number("factor", 1, kMaxRopeFactor);
    out.original_context = original({});
    out.low_freq_factor = fields.number("low_freq_factor", 1e-6, kMaxRopeFactor);
    out.high_freq_factor = fields.number("high_freq_factor", 1e-6, kMaxRopeFactor);
  } else if (type == "yarn") {
    out.type = RopeScaling::Type::yarn;
    out.original_context = original(double{static_cast<double>(context)});
    const double ratio = std::max(1.0, context / out.original_context);
    out.factor = fields.number("factor", 1, kMaxRopeFactor, ratio);
    out.beta_fast = fields.number("beta_fast", 1e-6, kMaxRopeFactor, out.beta_fast);
    out.beta_slow = fields.number("beta_slow", 1e-6, kMaxRopeFactor, out.beta_slow);
    out.attention_factor = read_attention_factor(fields, out.factor);
    require(fields.boolean("truncate", true), ErrorCode::unsupported,
            "{} is false; this version rounds YaRN's ramp to whole pairs", fields.where("truncate"));
  } else {
    fail(ErrorCode::unsupported, "{} is \"{}\"; this version knows default, linear, llama3 and yarn",
         fields.where("rope_type"), type.substr(0, 64));
  }
  return out;
}

RopeConfig read_parameters(JsonFields fields, JsonFields& model, uint32_t context, double base) {
  require(fields.number("partial_rotary_factor", 0, 1, 1.0) == 1.0, ErrorCode::unsupported,
          "{} is not 1, which no supported model_type has", fields.where("partial_rotary_factor"));
  RopeConfig out;
  out.base = fields.number("rope_theta", 1, kMaxRopeBase, base);
  out.scaling = read_scaling(fields, model, context);
  return out;
}

}  // namespace

HfRope read_hf_rope(JsonFields& fields, uint32_t context, double base, double local_base) {
  HfRope out;
  const double theta = fields.number("rope_theta", 1, kMaxRopeBase, base);
  const double local = fields.number("rope_local_base_freq", 1, kMaxRopeBase, local_base);
  if (fields.has("rope_parameters")) {
    JsonFields parameters = fields.object("rope_parameters");
    const bool by_type = parameters.has("full_attention") || parameters.has("sliding_attention");
    if (by_type) {
      out.full = read_parameters(parameters.object("full_attention"), fields, context, theta);
      out.sliding = read_parameters(parameters.object("sliding_attention"), fields, context,
                                    local == 0 ? theta : local);
      return out;
    }
    out.full = read_parameters(parameters, fields, context, theta);
  } else {
    out.full.base = theta;
    if (fields.has("rope_scaling")) {
      JsonFields scaling = fields.object("rope_scaling");
      out.full.scaling = read_scaling(scaling, fields, context);
    }
  }
  out.sliding = out.full;
  if (local != 0) {  // window layers have their own base and no scaling
    out.sliding.base = local;
    out.sliding.scaling = {};
  }
  return out;
}

}  // namespace mneme
