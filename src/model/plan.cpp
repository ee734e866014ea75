#include "model/plan.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "model/config_names.h"
#include "model/expert_store.h"
#include "model/model_impl.h"
#include "model/projection_probe.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

// Puts a probe before the projections of each input, in the order of probe_sites(); without observers,
// nothing.
class Probes {
 public:
  Probes(const ModelImpl& model, bool wanted) : model_(model), wanted_(wanted) {
    if (wanted) sites_ = probe_sites(model);
  }
  void add(std::vector<StagePtr>& list, const AttentionParts* parts = nullptr) {
    if (!wanted_) return;
    list.push_back(make_probe_stage(model_, next_, sites_[next_], parts));
    ++next_;
  }

 private:
  const ModelImpl& model_;
  const bool wanted_;
  std::vector<ProbeSite> sites_;
  size_t next_ = 0;
};

void add_decode_mixer(const ModelImpl& model, size_t mixer, Probes& probes, std::vector<StagePtr>& list) {
  list.push_back(make_decode_qkv_stage(model, mixer));
  probes.add(list);  // after the projections, which memory reads may accompany; their input is still there
  const MixerConfig& config = model.mixer_config(mixer);
  const bool sparse = config.type == MixerType::sparse;
  if (sparse) list.push_back(make_decode_choose_stage(model, mixer));
  DecodeAttentionStage attention = config.recurrent() ? make_decode_recurrent_stage(model, mixer)
                                   : sparse           ? make_decode_sparse_stage(model, mixer)
                                                      : make_decode_attention_stage(model, mixer);
  list.push_back(std::move(attention.stage));
  probes.add(list, &attention.parts);
  list.push_back(make_decode_output_stage(model, mixer, attention.parts));
}

void add_prefill_mixer(const ModelImpl& model, size_t mixer, Probes& probes, std::vector<StagePtr>& list) {
  probes.add(list);
  list.push_back(make_prefill_prepare_stage(model, mixer, PrefillInput::mixer));
  list.push_back(make_prefill_qkv_stage(model, mixer));
  const MixerConfig& config = model.mixer_config(mixer);
  if (config.recurrent()) {
    list.push_back(make_prefill_recurrent_prepare_stage(model, mixer));
    list.push_back(make_prefill_recurrent_stage(model, mixer));
  } else if (config.type == MixerType::sparse) {
    list.push_back(make_prefill_store_stage(model, mixer));
    list.push_back(make_prefill_means_stage(model, mixer));
    list.push_back(make_prefill_sparse_stage(model, mixer));
  } else {
    list.push_back(make_prefill_store_stage(model, mixer));
    list.push_back(make_prefill_attention_stage(model, mixer));
  }
  probes.add(list);
  list.push_back(make_prefill_prepare_stage(model, mixer, PrefillInput::attention));
  list.push_back(make_prefill_output_stage(model, mixer));
}

// `mixer`: index of the layer's first mixer.
void add_layer(const ModelImpl& model, size_t layer, size_t mixer, bool decode, Probes& probes,
               std::vector<StagePtr>& list) {
  const LayerWeights& w = model.layers[layer];
  const LayerConfig& config = model.config.layers[layer];
  if (w.memory) add_memory_stages(model, layer, decode, list);
  const size_t first = list.size();  // of a mixer's stages: the projections
  for (size_t i = mixer; i < mixer + w.mixers.size(); ++i)
    decode ? add_decode_mixer(model, i, probes, list) : add_prefill_mixer(model, i, probes, list);
  if (decode) list[first] = with_memory_start(model, static_cast<int64_t>(layer), std::move(list[first]));
  if (config.mixer.type == MixerType::parallel) list.push_back(make_branches_stage(model, layer));
  if (config.post_norm) list.push_back(make_post_norm_stage(model, w.post_attn_norm));
  probes.add(list);
  if (w.moe) {
    add_expert_stages(model, layer, decode, list);
  } else if (decode) {
    list.push_back(make_decode_gated_stage(model, layer));
    probes.add(list);
    list.push_back(make_decode_down_stage(model, layer));
  } else {
    list.push_back(make_prefill_prepare_stage(model, layer, PrefillInput::ffn));
    list.push_back(make_prefill_gated_stage(model, layer));
    probes.add(list);
    list.push_back(make_prefill_prepare_stage(model, layer, PrefillInput::hidden));
    list.push_back(make_prefill_down_stage(model, layer));
  }
  if (config.post_norm) list.push_back(make_post_norm_stage(model, w.post_ffn_norm));
  list.back()->ends_layer = true;
}

/// Refuses what the config may say but no stage computes.
void check_runnable(const ModelImpl& model) {
  for (size_t i = 0; i < model.mixers.size(); ++i) {
    const MixerConfig& mixer = model.mixer_config(i);
    require(mixer.recurrent() || mixer.softmax(), ErrorCode::unsupported,
            "layers[{}] has a mixer of type \"{}\", which this version cannot run", model.mixers[i].layer,
            config_names::word(config_names::kMixers, mixer.type));
  }
  require(model.config.sink_tokens == 0 || model.memory_layers.empty(), ErrorCode::unsupported,
          "the model has sink tokens and memories; this version runs one or the other, because sink tokens "
          "have no ids to look up");
}

// Grows what the stages of this step write. Done by one thread before the walk; the first pass of a size
// allocates.
void size_workspace(const ModelImpl& model, const Step& step, bool decode) {
  Workspace& ws = step.workspace;
  ws.threads.resize(static_cast<size_t>(model.pool->size()));
  const int64_t rows = step.rows(), d = model.config.d_model;
  int64_t hidden = 0, widest = d, branches = 1;
  InputForms forms;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const LayerWeights& w = model.layers[i];
    if (!w.moe) hidden = std::max<int64_t>(hidden, model.config.layers[i].ffn.hidden);
    widest = std::max(widest, hidden);
    branches = std::max(branches, static_cast<int64_t>(w.mixers.size()));
    for (const MixerWeights& mixer : w.mixers) {
      widest = std::max(widest, mixer.o.w.cols);
      for (const Linear* linear :
           {&mixer.q, &mixer.k, &mixer.v, &mixer.gate, &mixer.decay, &mixer.beta, &mixer.o})
        if (linear->w.rows > 0) forms.add(*linear);
    }
    if (!w.moe)
      for (const Linear* linear : {&w.gate, &w.up, &w.down}) forms.add(*linear);
    if (!w.memory) continue;
    widest = std::max(widest, w.memory->k.w.cols);
    for (const Linear* linear : {&w.memory->k, &w.memory->v}) forms.add(*linear);
  }
  grow(ws.x, rows * d);
  grow(ws.branch, branches * rows * d);
  grow(ws.gate, rows * hidden);
  grow(ws.up, rows * hidden);
  size_activations(forms, rows, widest, ws.input, false);
  size_attention(model, step, decode);
  size_recurrent(model, step, decode);
  size_sparse(model, step, decode);
  size_memory(model, step);
  size_experts(model, step, decode);
}

bool one_row_each(const Step& step) {
  return step.rows() <= kMaxDecodeRows && std::all_of(step.slices.begin(), step.slices.end(),
                                                      [](const Slice& slice) { return slice.count == 1; });
}

// What the commits of a step with one row a sequence will write over: a convolution keeps no more rows than
// its next tokens read, so that the row of a new token replaces one that its repetition would need.
class ConvRowsBefore {
 public:
  explicit ConvRowsBefore(const Step& step) {
    for (const Slice& slice : step.slices) {
      const auto& convs = slice.state->layout().convs;
      for (size_t i = 0; i < convs.size(); ++i) {
        float* row = slice.state->conv_row(i, slice.position);
        rows_.emplace_back(row, std::vector<float>(row, row + convs[i].channels));
      }
    }
  }
  void put_back() const {
    for (const auto& [row, values] : rows_) std::copy(values.begin(), values.end(), row);
  }

 private:
  std::vector<std::pair<float*, std::vector<float>>> rows_;
};

// Decoding rows in several passes, because the experts of all would not have room. Rows do not depend on each
// other, but the step is one: what finished parts committed is undone if a later one fails or is cancelled.
bool run_rows_apart(ThreadPool& pool, const Step& step) {
  const ConvRowsBefore before(step);
  const int64_t most = most_expert_rows(step.model), vocab = step.model.config.vocab;
  for (int64_t begin = 0; begin < step.rows(); begin += most) {
    const int64_t end = std::min(begin + most, step.rows());
    std::vector<Slice> slices;
    std::vector<int64_t> logit_rows;
    for (Slice slice : step.slices) {
      if (slice.row < begin || slice.row >= end) continue;
      slice.row -= begin;
      slices.push_back(slice);
    }
    float* logits = step.logits;
    for (const int64_t row : step.logit_rows) {  // ascending
      if (row < begin) logits += vocab;
      if (row >= begin && row < end) logit_rows.push_back(row - begin);
    }
    Step part{
        step.model,
        step.workspace,
        slices,
        step.ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
        logit_rows,
        logits,
        step.cancelled,
        step.embeddings == nullptr ? nullptr : step.embeddings + begin * int64_t{step.model.config.d_model}};
    bool finished = false;
    try {
      finished = run_step(pool, part);
    } catch (...) {
      before.put_back();
      throw;
    }
    if (!finished) {
      before.put_back();
      return false;
    }
  }
  return true;
}

}  // namespace

Plan compile_plan(const ModelImpl& model, bool probes) {
  check_runnable(model);
  Plan plan;
  if (!model.memory_layers.empty()) plan.prefill.push_back(make_memory_start_stage(model));
  plan.decode.push_back(with_memory_start(model, -1, make_embed_stage(model)));
  plan.prefill.push_back(make_embed_stage(model));
  size_t mixer = 0;
  Probes decode_probes(model, probes), prefill_probes(model, probes);
  for (size_t layer = 0; layer < model.layers.size(); ++layer) {
    add_layer(model, layer, mixer, true, decode_probes, plan.decode);
    add_layer(model, layer, mixer, false, prefill_probes, plan.prefill);
    mixer += model.layers[layer].mixers.size();
  }
  plan.decode.push_back(make_head_stage(model));
  plan.prefill.push_back(make_head_stage(model));
  for (auto* list : {&plan.decode, &plan.prefill})
    if (StagePtr commit = make_memory_commit_stage(model)) list->push_back(std::move(commit));
  return plan;
}

const Plan& ModelImpl::probed_plan() const {
  std::call_once(probed_once, [this] { probed = compile_plan(*this, true); });
  return probed;
}

bool run_step(ThreadPool& pool, Step& step) {
  const bool decode = one_row_each(step);
  if (decode && step.model.expert_store && step.rows() > most_expert_rows(step.model))
    return run_rows_apart(pool, step);
  const bool watched = std::any_of(step.slices.begin(), step.slices.end(),
                                   [](const Slice& slice) { return slice.observer != nullptr; });
  const Plan& plan = watched ? step.model.probed_plan() : step.model.plan;
  const auto& stages = decode ? plan.decode : plan.prefill;
  size_workspace(step.model, step, decode);
  Workspace& ws = step.workspace;
  ws.failed = false;
  const bool done = walk_stages(pool, stages, step,
                                [&] { return ws.failed.load() || (step.cancelled && step.cancelled()); });
  if (ws.failed) std::rethrow_exception(std::exchange(ws.failure, nullptr));
  return done;
}

bool walk_stages(ThreadPool& pool, const std::vector<std::unique_ptr<Stage>>& stages, Step& step,
                 const std::function<bool()>& abandoned) {
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
      if (stage.ends_layer && thread == 0 && abandoned && abandoned())
        stop.store(true, std::memory_order_relaxed);
      pool.barrier(thread, stage.waits_for_device);
      if (stage.ends_layer && stop.load(std::memory_order_relaxed)) return;
    }
  });
  return !stop.load();
}

}  // namespace mneme
