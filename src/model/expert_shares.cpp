#include "model/expert_shares.h"

#include "core/fail.h"

namespace mneme {

ExpertRange own_experts(const ExpertGroup* group, const FfnConfig& ffn) {
  if (group == nullptr) return {0, ffn.experts};
  return experts_of(group->rank(), group->size(), ffn.experts);
}

void check_shares(const ModelConfig& config, const std::string& path, ExpertGroup& group) {
  double sum = 0;
  int layers = 0;
  for (const LayerConfig& layer : config.layers) {
    if (!layer.ffn.moe()) continue;
    const FfnConfig& ffn = layer.ffn;
    require(ffn.experts >= group.size(), ErrorCode::mismatch,
            "{} experts cannot be divided among {} processes; start at most {}", ffn.experts, group.size(),
            ffn.experts);
    sum += static_cast<double>(ffn.top_k) / ffn.experts;
    ++layers;
  }
  require(layers > 0, ErrorCode::mismatch,
          "{} has no experts that {} processes could divide; start it without mpirun", path, group.size());
  group.set_share(sum / layers);
}

}  // namespace mneme
