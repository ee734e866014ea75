// The stages that compile_plan() strings together; each file of stages_*.cpp says how its own work.
#pragma once
#include <memory>

#include "model/model_impl.h"
#include "model/plan.h"
#include "simd/elementwise.h"

namespace mneme {

using StagePtr = std::unique_ptr<Stage>;

// stages_common.cpp: both lists
StagePtr make_embed_stage(const ModelImpl& model);
StagePtr make_post_norm_stage(const ModelImpl& model, const std::vector<float>& weight);
/// x += the weighted sum of the normed outputs of a parallel mixer's branches.
StagePtr make_branches_stage(const ModelImpl& model, size_t layer);
StagePtr make_head_stage(const ModelImpl& model);

/// The partial results of a decode attention stage, for the stage that reads them.
class AttentionParts {
 public:
  virtual ~AttentionParts() = default;
  /// The attention output [heads * head_dim] of a row.
  virtual void merge(const Step& step, int64_t row, float* out) const = 0;
};
struct DecodeAttentionStage {
  StagePtr stage;
  const AttentionParts& parts;  // lives as long as the stage
};

// A mixer is given by its mixer index (ModelImpl::mixers).

// stages_decode.cpp
StagePtr make_decode_qkv_stage(const ModelImpl& model, size_t mixer);
StagePtr make_decode_output_stage(const ModelImpl& model, size_t mixer, const AttentionParts& parts);
StagePtr make_decode_gated_stage(const ModelImpl& model, size_t layer);
StagePtr make_decode_down_stage(const ModelImpl& model, size_t layer);

// stages_attention.cpp
DecodeAttentionStage make_decode_attention_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_store_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_attention_stage(const ModelImpl& model, size_t mixer);
/// Sizes the attention buffers of a step.
void size_attention(const ModelImpl& model, const Step& step, bool decode);

// stages_sparse.cpp. Decode: choose, then attend. Prefill: make_prefill_store_stage, means, attend.
StagePtr make_decode_choose_stage(const ModelImpl& model, size_t mixer);
DecodeAttentionStage make_decode_sparse_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_means_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_sparse_stage(const ModelImpl& model, size_t mixer);
/// Sizes the lists of chosen blocks for a step.
void size_sparse(const ModelImpl& model, const Step& step, bool decode);

// stages_recurrent.cpp: gated linear attention and the gated delta rule
DecodeAttentionStage make_decode_recurrent_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_recurrent_prepare_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_recurrent_stage(const ModelImpl& model, size_t mixer);
/// Sizes the buffers of recurrences for a step.
void size_recurrent(const ModelImpl& model, const Step& step, bool decode);

// stages_memory.cpp: an Engram module before a mixer. Prefill asks for the rows of all modules at the start
// of a pass; decode for those of the first beside the embedding or the first projections of layer 0, and for
// those of another module beside the first projections of the layer of the module before it.
StagePtr make_memory_start_stage(const ModelImpl& model);
/// `stage`, the embedding (layer -1) or the projections of a layer, with a module's start beside it if this
/// is its place.
StagePtr with_memory_start(const ModelImpl& model, int64_t layer, StagePtr stage);
void add_memory_stages(const ModelImpl& model, size_t layer, bool decode, std::vector<StagePtr>& list);
/// At the end of a pass: what convolutions will read goes into the sequences. Null if there is none.
StagePtr make_memory_commit_stage(const ModelImpl& model);
/// Sizes the memory buffers of a step.
void size_memory(const ModelImpl& model, const Step& step);

// stages_experts.cpp: a feed-forward of type moe, from the norm to the residual. stages_expert_reads.cpp:
// those of its experts that lie on disk
void add_expert_stages(const ModelImpl& model, size_t layer, bool decode, std::vector<StagePtr>& list);
/// What an ExpertServer runs between the rows that came and the rows that go back.
void add_served_stages(const ModelImpl& model, size_t layer, std::vector<StagePtr>& list);
/// The experts of a layer that are read from disk. Decode: `experts`, which routes in begin() and whose tasks
/// wait for an expert's weights, with the stage that asks for them before it.
void add_expert_reads(const ModelImpl& model, size_t layer, StagePtr experts, std::vector<StagePtr>& list);
/// Prefill: how many waves there are, and the stage that brings the experts of one.
uint32_t expert_waves(const ModelImpl& model, size_t layer);
StagePtr make_expert_wave_stage(const ModelImpl& model, size_t layer, uint32_t wave);
/// Rows that may decode in one pass, so that the experts of a layer have room.
int64_t most_expert_rows(const ModelImpl& model);
/// Sizes the buffers of experts for a step.
void size_experts(const ModelImpl& model, const Step& step, bool decode);
/// Of these, what the served stages of a layer write for (row, expert) pairs and what they read.
void size_served_experts(const ModelImpl& model, size_t layer, int64_t pairs, Workspace::Experts& out);

// stages_exchange.cpp: experts that other processes hold, if there is ModelImpl::expert_group
void add_exchange_send_stages(const ModelImpl& model, size_t layer, std::vector<StagePtr>& list);
StagePtr make_exchange_collect_stage(const ModelImpl& model, size_t layer);
void size_exchange(const ModelImpl& model, const Step& step);

// stages_probe.cpp: shows the input of a site to observers. `parts`: of the attention before an output
// projection at decode, else null.
struct ProbeSite;
StagePtr make_probe_stage(const ModelImpl& model, size_t index, const ProbeSite& site,
                          const AttentionParts* parts = nullptr);

// stages_prefill.cpp
enum class PrefillInput {
  mixer,
  attention,
  ffn,
  hidden
};  // of qkv, of the output projection, of gate and up, of down
/// `index`: a mixer for PrefillInput::mixer and attention, a layer for the other two.
StagePtr make_prefill_prepare_stage(const ModelImpl& model, size_t index, PrefillInput input);
StagePtr make_prefill_qkv_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_output_stage(const ModelImpl& model, size_t mixer);
StagePtr make_prefill_gated_stage(const ModelImpl& model, size_t layer);
StagePtr make_prefill_down_stage(const ModelImpl& model, size_t layer);
inline GateAct gate_act(Act act) {
  switch (act) {
    case Act::silu:
      return GateAct::silu;
    case Act::gelu_tanh:
      return GateAct::gelu_tanh;
    case Act::gelu:
      return GateAct::gelu;
  }
  return GateAct::silu;
}

/// Columns of ws.qkv: query, key and value of a row, and what a recurrence projects beside them.
struct QkvShape {
  int64_t q = 0, kv = 0;
  int64_t gate = 0;   // gla: gate_rank, or with gate "matrix" kv
  int64_t decay = 0;  // delta: kv_heads; beta has as many
  int64_t k_at() const { return q; }
  int64_t v_at() const { return q + kv; }
  int64_t gate_at() const { return q + 2 * kv; }
  int64_t decay_at() const { return gate_at() + gate; }
  int64_t beta_at() const { return decay_at() + decay; }
  int64_t total() const { return beta_at() + decay; }
};
inline QkvShape qkv_shape(const MixerConfig& m) {
  QkvShape shape{int64_t{m.heads} * m.head_dim, int64_t{m.kv_heads} * m.head_dim, 0, 0};
  if (m.type == MixerType::gla)
    shape.gate = m.gate == GateType::low_rank ? int64_t{m.gate_rank}
                 : m.gate == GateType::matrix ? shape.kv
                                              : 0;
  if (m.type == MixerType::delta) shape.decay = m.kv_heads;
  return shape;
}

}  // namespace mneme
