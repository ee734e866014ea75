#include "model/plan.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "model/model_impl.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

void add_decode_layer(const ModelImpl& model, size_t layer, std::vector<StagePtr>& list) {
  const LayerWeights& w = model.layers[layer];
  const bool post_norm = model.config.layers[layer].post_norm;
  if (w.memory) add_memory_stages(model, layer, true, list);
  list.push_back(make_decode_qkv_stage(model, layer));
  DecodeAttentionStage attention = make_decode_attention_stage(model, layer);
  list.push_back(std::move(attention.stage));
  list.push_back(make_decode_output_stage(model, layer, attention.parts));
  if (post_norm) list.push_back(make_post_norm_stage(model, w.post_attn_norm));
  list.push_back(make_decode_gated_stage(model, layer));
  list.push_back(make_decode_down_stage(model, layer));
  if (post_norm) list.push_back(make_post_norm_stage(model, w.post_ffn_norm));
  list.back()->ends_layer = true;
}

void add_prefill_layer(const ModelImpl& model, size_t layer, std::vector<StagePtr>& list) {
  const LayerWeights& w = model.layers[layer];
  const bool post_norm = model.config.layers[layer].post_norm;
  if (w.memory) add_memory_stages(model, layer, false, list);
  list.push_back(make_prefill_prepare_stage(model, layer, PrefillInput::mixer));
  list.push_back(make_prefill_qkv_stage(model, layer));
  list.push_back(make_prefill_store_stage(model, layer));
  list.push_back(make_prefill_attention_stage(model, layer));
  list.push_back(make_prefill_prepare_stage(model, layer, PrefillInput::attention));
  list.push_back(make_prefill_output_stage(model, layer));
  if (post_norm) list.push_back(make_post_norm_stage(model, w.post_attn_norm));
  list.push_back(make_prefill_prepare_stage(model, layer, PrefillInput::ffn));
  list.push_back(make_prefill_gated_stage(model, layer));
  list.push_back(make_prefill_prepare_stage(model, layer, PrefillInput::hidden));
  list.push_back(make_prefill_down_stage(model, layer));
  if (post_norm) list.push_back(make_post_norm_stage(model, w.post_ffn_norm));
  list.back()->ends_layer = true;
}

// Grows what the stages of this step write. Done by one thread before the walk; the first pass of a size
// allocates.
void size_workspace(const ModelImpl& model, const Step& step, bool decode) {
  Workspace& ws = step.workspace;
  ws.threads.resize(static_cast<size_t>(model.pool->size()));
  const int64_t rows = step.rows(), d = model.config.d_model;
  int64_t hidden = 0, widest = d;
  InputForms forms;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerWeights& w = model.layers[i];
    hidden = std::max<int64_t>(hidden, model.config.layers[i].ffn.hidden);
    widest = std::max({widest, hidden, w.o.w.cols});
    for (const Linear* linear : {&w.q, &w.k, &w.v, &w.o, &w.gate, &w.up, &w.down}) forms.add(*linear);
    if (!w.memory) continue;
    widest = std::max(widest, w.memory->k.w.cols);
    for (const Linear* linear : {&w.memory->k, &w.memory->v}) forms.add(*linear);
  }
  grow(ws.x, rows * d);
  grow(ws.branch, rows * d);
  grow(ws.gate, rows * hidden);
  grow(ws.up, rows * hidden);
  size_activations(forms, rows, widest, ws.input);
  size_attention(model, step, decode);
  size_memory(model, step);
}

bool one_row_each(const Step& step) {
  return step.rows() <= kMaxDecodeRows && std::all_of(step.slices.begin(), step.slices.end(),
                                                      [](const Slice& slice) { return slice.count == 1; });
}

}  // namespace

Plan compile_plan(const ModelImpl& model) {
  Plan plan;
  if (!model.memory_layers.empty())
    for (auto* list : {&plan.decode, &plan.prefill}) list->push_back(make_memory_start_stage(model));
  plan.decode.push_back(make_embed_stage(model));
  plan.prefill.push_back(make_embed_stage(model));
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    add_decode_layer(model, layer, plan.decode);
    add_prefill_layer(model, layer, plan.prefill);
  }
  plan.decode.push_back(make_head_stage(model));
  plan.prefill.push_back(make_head_stage(model));
  for (auto* list : {&plan.decode, &plan.prefill})
    if (StagePtr commit = make_memory_commit_stage(model)) list->push_back(std::move(commit));
  return plan;
}

bool run_step(ThreadPool& pool, Step& step) {
  const bool decode = one_row_each(step);
  const auto& stages = decode ? step.model.plan.decode : step.model.plan.prefill;
  size_workspace(step.model, step, decode);
  Workspace& ws = step.workspace;
  ws.failed = false;
  const auto abandoned = [&] { return ws.failed.load() || (step.cancelled && step.cancelled()); };
  std::atomic<bool> stop{false};
  pool.run([&](int thread) {
    pool.share_tasks(0, thread, stages.front()->tasks(step));
    pool.barrier(thread);
    for (size_t s = 0; s < stages.size(); ++s) {
      const int slot = static_cast<int>(s & 1);
      const Stage& stage = *stages[s];
      stage.begin(step, thread);
      for (int64_t task = pool.next_task(slot, thread); task >= 0; task = pool.next_task(slot, thread))
        stage.run(step, thread, task);
      if (s + 1 == stages.size()) return;
      pool.share_tasks(slot ^ 1, thread, stages[s + 1]->tasks(step));
      if (stage.ends_layer && thread == 0 && abandoned()) stop.store(true, std::memory_order_relaxed);
      pool.barrier(thread, stage.waits_for_device);
      if (stage.ends_layer && stop.load(std::memory_order_relaxed)) return;
    }
  });
  if (ws.failed) std::rethrow_exception(std::exchange(ws.failure, nullptr));
  return !stop.load();
}

}  // namespace mneme
