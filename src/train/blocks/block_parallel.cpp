// Two mixers side by side: w0 norm0(branch0(x)) + w1 norm1(branch1(x)).
#include <fmt/format.h>

#include "train/blocks/blocks.h"

namespace mneme::train {

Tensor parallel_mixer(const ModelConfig& config, const MixerConfig& mixer_config, const Weights& weights,
                      const Tensor& x, const PassContext& context) {
  Tensor sum;
  for (size_t i = 0; i < mixer_config.of.size(); ++i) {
    const Tensor branch = norm(config,
                               mixer(config, mixer_config.of[i], weights.below(fmt::format("mix{}.", i)), x,
                                     context.for_mixer(context.mixer() + static_cast<uint32_t>(i))),
                               weights[fmt::format("mix{}_norm.weight", i)]);
    const Tensor weighted = mixer_config.learned
                                ? branch * weights["mix_weights.weight"].select(0, static_cast<int64_t>(i))
                                : branch * mixer_config.weights[i];
    sum = sum.defined() ? sum + weighted : weighted;
  }
  return sum;
}

}  // namespace mneme::train
