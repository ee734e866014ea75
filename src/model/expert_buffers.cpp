// What a pass over mixtures of experts writes to.
#include <algorithm>

#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {

void size_experts(const ModelImpl& model, const Step& step, bool decode) {
  Workspace& ws = step.workspace;
  Workspace::Experts& experts = ws.experts;
  const int64_t rows = step.rows(), d = model.config.d_model;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (!model.layers[i].moe) continue;
    const MoeWeights& moe = *model.layers[i].moe;
    const FfnConfig& ffn = model.config.layers[i].ffn;
    const ExpertWeights& one = moe.experts.front();
    const int64_t pairs = rows * std::min(ffn.top_k, ffn.experts);
    const int64_t shared = moe.shared.gate.w.rows > 0 ? ffn.shared_width() : 0;
    grow(experts.scores, rows * ffn.choices());
    grow(experts.gate, pairs * ffn.hidden);
    grow(experts.up, pairs * ffn.hidden);
    grow(experts.factors, rows);
    if (decode && model.expert_store) grow(experts.ahead_scores, rows * ffn.choices());
    InputForms input, hidden, common, shared_hidden;
    common.floats = true;
    input.add(one.gate);
    input.add(one.up);
    hidden.add(one.down);
    size_activations(hidden, pairs, ffn.hidden, experts.hidden, false);
    if (shared > 0) {
      common.add(moe.shared.gate);
      common.add(moe.shared.up);
      shared_hidden.add(moe.shared.down);
      grow(experts.shared_gate, rows * shared);
      grow(experts.shared_up, rows * shared);
      size_activations(shared_hidden, rows, shared, experts.shared_hidden, false);
    }
    if (decode && !model.expert_group) continue;
    experts.routing.reserve(rows, ffn);
    grow(experts.out, pairs * d);
    if (shared > 0) grow(experts.shared_out, rows * d);
    size_activations(common, rows, d, ws.input, false);
    size_activations(input, pairs, d, experts.input, false);
  }
  if (model.expert_group && model.expert_group->rank() == 0) size_exchange(model, step);
}

}  // namespace mneme
