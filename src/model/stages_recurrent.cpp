// Gated linear attention and the gated delta rule: recurrences over the tokens of a pass (simd/recurrence.h),
// the same token by token at decode and in a prefill pass, so that both leave the same bits.
//
//   decode   prepare+run   a task is a tile of columns of one head of one sequence; it maps the few inputs
//   for itself prefill  prepare       rows shared out: features, decays, norms; rows for the log of the
//   sequence
//            run           a task is a tile of columns of one head of one slice, through all tokens of the
//            slice
//
// A pass writes states and rows that the sequence takes over when it advances (recurrent_state.h), so nothing
// has to be committed at its end. The norm of every output head is applied where the output projection's
// input is made.
#include <cmath>

#include "model/stage_parts.h"
#include "model/stages.h"
#include "simd/elementwise.h"
#include "simd/recurrence_inputs.h"

namespace mneme {
namespace {

constexpr int64_t kPrepareRows = 8;
constexpr float kL2Eps = 1e-6f;  // of the delta rule's queries and keys, as in flash-linear-attention

ElementMap element_map(FeatureMap feature) {
  switch (feature) {
    case FeatureMap::relu:
      return ElementMap::relu;
    case FeatureMap::sigmoid:
      return ElementMap::sigmoid;
    case FeatureMap::silu:
      return ElementMap::silu;
    case FeatureMap::identity:
      return ElementMap::identity;
  }
  return ElementMap::identity;
}

class RecurrentStage : public Stage {
 public:
  RecurrentStage(const ModelImpl& model, size_t mixer)
      : model_(model),
        config_(model.mixer_config(mixer)),
        weights_(model.mixer_weights(mixer)),
        shape_(recurrence_shape(config_)),
        qkv_(qkv_shape(config_)),
        delta_(config_.type == MixerType::delta),
        scale_(static_cast<float>(config_.scale > 0 ? config_.scale
                                                    : 1.0 / std::sqrt(double(config_.head_dim)))) {
    for (size_t i = 0; i < mixer; ++i) index_ += model.mixer_config(i).recurrent() ? 1 : 0;
  }

 protected:
  int64_t group_values() const { return shape_.group * shape_.dim; }
  int64_t output_values() const { return shape_.kv_heads * group_values(); }
  const RecurrentLayout::Mixer& place(const Slice& slice) const {
    return slice.state->recurrent().layout().mixers[index_];
  }
  const float* input(const Step& step, int64_t row) const {
    return step.workspace.qkv.data() + row * qkv_.total();
  }

  // q [group, dim] of a kv head, in place: mapped, normalised, scaled.
  void prepare_queries(float* q) const {
    map_elements(element_map(config_.feature), delta_ ? 1.0f : scale_, group_values(), q);
    if (!delta_) return;
    for (int64_t h = 0; h < shape_.group; ++h) l2_normalise(kL2Eps, scale_, shape_.dim, q + h * shape_.dim);
  }

  // What a token writes into the state of a kv head [update_values]. `in`: its row of ws.qkv.
  void prepare_update(const float* in, int64_t kv_head, float* update) const {
    const int64_t dim = shape_.dim, at = kv_head * dim;
    std::copy_n(in + qkv_.v_at() + at, dim, update);
    std::fill(update + dim, update + shape_.columns(), 0.0f);
    float *k = update + shape_.k_offset(), *decay = update + shape_.decay_offset();
    std::copy_n(in + qkv_.k_at() + at, dim, k);
    map_elements(element_map(config_.feature), 1, dim, k);
    if (delta_) {
      l2_normalise(kL2Eps, 1, dim, k);
      const auto head = static_cast<size_t>(kv_head);
      *decay = delta_decay(in[qkv_.decay_at() + kv_head], weights_.a_log[head], weights_.dt_bias[head]);
      update[shape_.beta_offset()] = delta_beta(in[qkv_.beta_at() + kv_head]);
    } else if (config_.gate == GateType::tied) {
      tied_decays(k, dim, decay);
    } else {
      if (config_.gate == GateType::low_rank)
        low_rank_gate(in + qkv_.gate_at(), weights_.gate_up.data() + at, qkv_.kv,
                      weights_.gate_bias.data() + at, qkv_.gate, dim, decay);
      else
        std::copy_n(in + qkv_.gate_at() + at, dim, decay);
      gla_decays(decay, static_cast<float>(config_.gate_normalizer), dim, decay);
    }
    std::fill(update + shape_.decay_offset() + shape_.decays() + (delta_ ? 1 : 0),
              update + shape_.update_values(), 0.0f);
  }

  // Keeps an update for rollbacks.
  void log_update(const Slice& slice, int64_t position, int64_t kv_head, const float* update) const {
    float* row = slice.state->recurrent().log_row(position);
    if (row != nullptr)
      std::copy_n(update, shape_.update_values(), row + place(slice).log + kv_head * shape_.update_values());
  }

  // Runs the tokens of a slice through a tile of columns. `tokens`: of the whole slice.
  void run_slice(const Slice& slice, const RecurrenceTokens& tokens, int64_t kv_head, int64_t begin,
                 int64_t end) const {
    const int64_t state = place(slice).state + kv_head * shape_.head_values();
    for (const RecurrentStates::Segment& segment : slice.state->recurrent().segments()) {
      RecurrenceTokens part = tokens;
      const int64_t first = segment.begin - slice.position;
      part.update += first * tokens.update_stride;
      part.q += first * tokens.q_stride;
      part.y += first * tokens.y_stride;
      part.count = segment.end - segment.begin;
      run_recurrence(shape_, part, begin, end, segment.in + state, segment.out + state);
    }
  }

  std::string describe_mixer() const {
    std::string text =
        fmt::format("{}: {} heads of {}, {} states of {} KB", delta_ ? "delta" : "gla", config_.heads,
                    config_.head_dim, config_.kv_heads, shape_.head_values() * 4 / 1024);
    if (!delta_) text += config_.gate == GateType::tied ? ", gate tied to the key" : ", gated";
    return text;
  }

  const ModelImpl& model_;
  const MixerConfig& config_;
  const MixerWeights& weights_;
  const RecurrenceShape shape_;
  const QkvShape qkv_;
  const bool delta_;
  const float scale_;
  size_t index_ = 0;  // among the model's recurrences
};

class DecodeRecurrence final : public RecurrentStage, public AttentionParts {
 public:
  using RecurrentStage::RecurrentStage;
  std::string describe() const override { return "gates+recurrence  " + describe_mixer(); }
  int64_t tasks(const Step& step) const override { return step.rows() * shape_.kv_heads * tiles(); }
  void run(Step& step, int thread, int64_t task) const override {
    const Slice& slice = step.slices[static_cast<size_t>(task / (shape_.kv_heads * tiles()))];
    const int64_t kv_head = task / tiles() % shape_.kv_heads, begin = task % tiles() * kDecodeColumns;
    std::vector<float>& scratch = step.workspace.threads[static_cast<size_t>(thread)].q;
    grow(scratch, group_values() + shape_.update_values());
    float *q = scratch.data(), *update = q + group_values();
    const float* in = input(step, slice.row);
    std::copy_n(in + kv_head * group_values(), group_values(), q);
    prepare_queries(q);
    prepare_update(in, kv_head, update);
    if (begin == 0) log_update(slice, slice.position, kv_head, update);
    float* y = step.workspace.attention.data() + slice.row * output_values() + kv_head * group_values();
    run_slice(slice, {update, 0, q, 0, y, 0, 1}, kv_head, begin,
              std::min(begin + kDecodeColumns, shape_.columns()));
  }
  void merge(const Step& step, int64_t row, float* out) const override {
    const float* y = step.workspace.attention.data() + row * output_values();
    if (!config_.out_norm) {
      std::copy_n(y, output_values(), out);
      return;
    }
    for (int64_t at = 0; at < output_values(); at += shape_.dim)
      rms_norm(y + at, weights_.out_norm.data(), static_cast<float>(model_.config.norm.eps), shape_.dim,
               out + at);
  }

 private:
  int64_t tiles() const { return (shape_.columns() + kDecodeColumns - 1) / kDecodeColumns; }
};

class PrepareStage final : public RecurrentStage {
 public:
  using RecurrentStage::RecurrentStage;
  std::string describe() const override { return "gates             " + describe_mixer(); }
  int64_t tasks(const Step& step) const override { return (step.rows() + kPrepareRows - 1) / kPrepareRows; }
  void run(Step& step, int, int64_t task) const override {
    const int64_t begin = task * kPrepareRows, end = std::min(begin + kPrepareRows, step.rows());
    for (const Slice& slice : step.slices)
      for (int64_t n = std::max(begin, slice.row); n < std::min(end, slice.row + slice.count); ++n)
        for (int64_t h = 0; h < shape_.kv_heads; ++h) {
          float* update = step.workspace.updates.data() + (n * shape_.kv_heads + h) * shape_.update_values();
          prepare_update(input(step, n), h, update);
          log_update(slice, slice.position + n - slice.row, h, update);
          prepare_queries(step.workspace.qkv.data() + n * qkv_.total() + h * group_values());
        }
  }
};

class PrefillRecurrence final : public RecurrentStage {
 public:
  using RecurrentStage::RecurrentStage;
  std::string describe() const override {
    return fmt::format("recurrence        {}, {} columns a task", describe_mixer(), kPrefillColumns);
  }
  int64_t tasks(const Step& step) const override {
    return std::ssize(step.slices) * shape_.kv_heads * tiles();
  }
  void run(Step& step, int, int64_t task) const override {
    const Slice& slice = step.slices[static_cast<size_t>(task / (shape_.kv_heads * tiles()))];
    const int64_t kv_head = task / tiles() % shape_.kv_heads, begin = task % tiles() * kPrefillColumns;
    Workspace& ws = step.workspace;
    RecurrenceTokens tokens;
    tokens.update_stride = shape_.kv_heads * shape_.update_values();
    tokens.update = ws.updates.data() + slice.row * tokens.update_stride + kv_head * shape_.update_values();
    tokens.q_stride = qkv_.total();
    tokens.q = ws.qkv.data() + slice.row * tokens.q_stride + kv_head * group_values();
    tokens.y_stride = output_values();
    tokens.y = ws.attention.data() + slice.row * tokens.y_stride + kv_head * group_values();
    tokens.count = slice.count;
    run_slice(slice, tokens, kv_head, begin, std::min(begin + kPrefillColumns, shape_.columns()));
  }

 private:
  int64_t tiles() const { return (shape_.columns() + kPrefillColumns - 1) / kPrefillColumns; }
};

}  // namespace

DecodeAttentionStage make_decode_recurrent_stage(const ModelImpl& model, size_t mixer) {
  auto stage = std::make_unique<DecodeRecurrence>(model, mixer);
  const AttentionParts& parts = *stage;
  return {std::move(stage), parts};
}

StagePtr make_prefill_recurrent_prepare_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<PrepareStage>(model, mixer);
}

StagePtr make_prefill_recurrent_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<PrefillRecurrence>(model, mixer);
}

void size_recurrent(const ModelImpl& model, const Step& step, bool decode) {
  for (size_t i = 0; i < model.mixers.size(); ++i) {
    const MixerConfig& mixer = model.mixer_config(i);
    if (!mixer.recurrent()) continue;
    const RecurrenceShape shape = recurrence_shape(mixer);
    grow(step.workspace.qkv, step.rows() * qkv_shape(mixer).total());
    grow(step.workspace.attention, step.rows() * shape.kv_heads * shape.group * shape.dim);
    if (!decode) grow(step.workspace.updates, step.rows() * shape.kv_heads * shape.update_values());
  }
}

}  // namespace mneme
