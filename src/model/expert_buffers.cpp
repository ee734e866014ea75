// What a pass over mixtures of experts writes to.
#include <algorithm>

#include "model/expert_rows.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

/// What the stages of the routed experts write: [pairs, ...].
void size_pairs(const FfnConfig& ffn, const MoeWeights& moe, int64_t pairs, Workspace::Experts& out) {
  InputForms hidden;
  hidden.add(moe.experts.front().down);
  grow(out.gate, pairs * ffn.hidden);
  grow(out.up, pairs * ffn.hidden);
  size_activations(hidden, pairs, ffn.hidden, out.hidden, false);
}

/// What prefill and serving have beside: the rows of each pair, and its output.
void size_sorted_pairs(const MoeWeights& moe, int64_t pairs, int64_t d, Workspace::Experts& out) {
  grow(out.out, pairs * d);
  size_activations(expert_input_forms(moe), pairs, d, out.input, false);
}

}  // namespace

void size_served_experts(const ModelImpl& model, size_t layer, int64_t pairs, Workspace::Experts& out) {
  const MoeWeights& moe = *model.layers[layer].moe;
  size_pairs(model.config.layers[layer].ffn, moe, pairs, out);
  size_sorted_pairs(moe, pairs, model.config.d_model, out);
}

void size_experts(const ModelImpl& model, const Step& step, bool decode) {
  Workspace& ws = step.workspace;
  Workspace::Experts& experts = ws.experts;
  const int64_t rows = step.rows(), d = model.config.d_model;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    if (!model.layers[i].moe) continue;
    const MoeWeights& moe = *model.layers[i].moe;
    const FfnConfig& ffn = model.config.layers[i].ffn;
    const int64_t pairs = rows * std::min(ffn.top_k, ffn.experts);
    const int64_t shared = moe.shared.gate.w.rows > 0 ? ffn.shared_width() : 0;
    grow(experts.scores, rows * ffn.choices());
    grow(experts.factors, rows);
    if (decode && model.expert_store) grow(experts.ahead_scores, rows * ffn.choices());
    size_pairs(ffn, moe, pairs, experts);
    InputForms common, shared_hidden;
    common.floats = true;
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
    size_sorted_pairs(moe, pairs, d, experts);
    if (shared > 0) grow(experts.shared_out, rows * d);
    size_activations(common, rows, d, ws.input, false);
  }
  if (model.expert_group && model.expert_group->rank() == 0) size_exchange(model, step);
}

}  // namespace mneme
