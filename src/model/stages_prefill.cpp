// Prefill: rows are normed and rounded in a stage of their own, then every product runs over all rows of the
// chunk.
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

constexpr int64_t kPrepareRows = 8;

class PrepareStage final : public Stage {
 public:
  PrepareStage(const ModelImpl& model, size_t index, PrefillInput input) : model_(model), input_(input) {
    if (input == PrefillInput::mixer || input == PrefillInput::attention) {
      const MixerWeights& w = model.mixer_weights(index);
      if (input == PrefillInput::mixer)
        set(w.q.w.cols, w.inputs(), &model.layers[model.mixers[index].layer].attn_norm);
      else
        set_attention(w);
    } else {
      const LayerWeights& w = model.layers[index];
      if (input == PrefillInput::ffn)
        set(w.gate.w.cols, {&w.gate, &w.up}, &w.ffn_norm);
      else
        set(w.down.w.cols, {&w.down}, nullptr);
    }
  }
  std::string describe() const override {
    return fmt::format("{}  {} columns to {}",
                       norm_ != nullptr        ? "norm+round      "
                       : head_norm_ != nullptr ? "head norm+round "
                                               : "round           ",
                       cols_, form_name());
  }
  int64_t tasks(const Step& step) const override { return (step.rows() + kPrepareRows - 1) / kPrepareRows; }
  void run(Step& step, int thread, int64_t task) const override {
    Workspace& ws = step.workspace;
    std::vector<float>& scratch = ws.threads[static_cast<size_t>(thread)].row;
    grow(scratch, cols_);
    const std::vector<float>& source = norm_ != nullptr                    ? ws.x
                                       : input_ == PrefillInput::attention ? ws.attention
                                                                           : ws.gate;
    const int64_t end = std::min((task + 1) * kPrepareRows, step.rows());
    for (int64_t n = task * kPrepareRows; n < end; ++n) {
      const float* row = source.data() + n * cols_;
      if (head_norm_ != nullptr) {  // a norm over every output head of a recurrence
        const auto dim = std::ssize(*head_norm_);
        for (int64_t c = 0; c < cols_; c += dim)
          rms_norm(row + c, head_norm_->data(), static_cast<float>(model_.config.norm.eps), dim,
                   scratch.data() + c);
        row = scratch.data();
      }
      if (norm_ != nullptr) {
        rms_norm(row, norm_->data(), static_cast<float>(model_.config.norm.eps), cols_, scratch.data());
        row = scratch.data();
      }
      prepare_row(forms_, row, n, cols_, ws.input);
    }
  }

 private:
  const char* form_name() const {
    if (!forms_.spikes.empty()) return "spikes";
    return forms_.int8 ? "int8" : forms_.rounded ? "int8 as f32" : forms_.int4 ? "int4 as f32" : "f32";
  }
  void set(int64_t cols, const std::vector<const Linear*>& consumers, const std::vector<float>* norm) {
    cols_ = cols;
    norm_ = norm;
    for (const Linear* linear : consumers) forms_.add(*linear);
  }
  void set_attention(const MixerWeights& w) {
    set(w.o.w.cols, {&w.o}, nullptr);
    if (!w.out_norm.empty()) head_norm_ = &w.out_norm;
  }
  const ModelImpl& model_;
  const PrefillInput input_;
  const std::vector<float>* head_norm_ = nullptr;
  int64_t cols_ = 0;
  const std::vector<float>* norm_ = nullptr;  // null: the source goes in as it is
  InputForms forms_;
};

class QkvStage final : public Stage {
 public:
  QkvStage(const ModelImpl& model, size_t mixer)
      : inputs_(model.mixer_weights(mixer)),
        shape_(qkv_shape(model.mixer_config(mixer))),
        tasks_(inputs_.linears, model.pool->size(), 8) {}
  std::string describe() const override { return "qkv               " + inputs_.describe(); }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void run(Step& step, int, int64_t task) const override {
    const auto range = tasks_.range(task);
    apply_linear(*inputs_.linears[range.matrix], step.workspace.input, range.begin, range.end, 0, step.rows(),
                 step.workspace.qkv.data() + inputs_.columns[range.matrix], shape_.total());
  }

 private:
  const MixerInputs inputs_;
  const QkvShape shape_;
  TileTasks tasks_;
};

// x += W input + b, or branch = ... where a norm follows; W is the output or the down projection.
class AddStage final : public Stage {
 public:
  // `place`: of the mixer whose output projection this is; null for a feed-forward's.
  AddStage(const ModelImpl& model, const Linear& linear, size_t layer, const MixerPlace* place)
      : model_(model),
        linear_(linear),
        place_(place),
        normed_(place != nullptr ? output_is_normed(model.config.layers[layer])
                                 : model.config.layers[layer].post_norm),
        d_(model.config.d_model),
        tasks_({&linear}, model.pool->size(), 8) {}
  std::string describe() const override {
    return fmt::format("product{}  {}", normed_ ? "         " : "+residual", describe_linear(linear_));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void run(Step& step, int thread, int64_t task) const override {
    Workspace& ws = step.workspace;
    const auto range = tasks_.range(task);
    if (normed_) {
      float* branch = place_ != nullptr ? mixer_output(model_, *place_, step) : ws.branch.data();
      return apply_linear(linear_, ws.input, range.begin, range.end, 0, step.rows(), branch, d_);
    }
    std::vector<float>& product = ws.threads[static_cast<size_t>(thread)].product;
    const int64_t begin = range.begin * kTileRows, stride = (range.end - range.begin) * kTileRows;
    const int64_t width = std::min(range.end * kTileRows, d_) - begin;
    grow(product, step.rows() * stride);
    apply_linear(linear_, ws.input, range.begin, range.end, 0, step.rows(), product.data() - begin, stride);
    for (int64_t n = 0; n < step.rows(); ++n)
      add_to(ws.x.data() + n * d_ + begin, product.data() + n * stride, width);
  }

 private:
  const ModelImpl& model_;
  const Linear& linear_;
  const MixerPlace* place_;
  const bool normed_;
  const int64_t d_;
  TileTasks tasks_;
};

class GatedStage final : public Stage {
 public:
  GatedStage(const ModelImpl& model, size_t layer)
      : weights_(model.layers[layer]),
        ffn_(model.config.layers[layer].ffn),
        tasks_({&weights_.gate}, model.pool->size(), 8, tile_multiple({&weights_.up})) {}
  std::string describe() const override {
    return fmt::format("gate*up           {} | {}", describe_linear(weights_.gate),
                       describe_linear(weights_.up));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void run(Step& step, int, int64_t task) const override {
    Workspace& ws = step.workspace;
    const auto range = tasks_.range(task);
    const int64_t hidden = ffn_.hidden, rows = step.rows();
    apply_linear(weights_.gate, ws.input, range.begin, range.end, 0, rows, ws.gate.data(), hidden);
    apply_linear(weights_.up, ws.input, range.begin, range.end, 0, rows, ws.up.data(), hidden);
    const int64_t begin = range.begin * kTileRows, width = std::min(range.end * kTileRows, hidden) - begin;
    for (int64_t n = 0; n < rows; ++n) {
      float* gate = ws.gate.data() + n * hidden + begin;
      gated_act(gate_act(ffn_.act), gate, ws.up.data() + n * hidden + begin, width, gate);
    }
  }

 private:
  const LayerWeights& weights_;
  const FfnConfig& ffn_;
  TileTasks tasks_;
};

}  // namespace

StagePtr make_prefill_prepare_stage(const ModelImpl& model, size_t layer, PrefillInput input) {
  return std::make_unique<PrepareStage>(model, layer, input);
}
StagePtr make_prefill_qkv_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<QkvStage>(model, mixer);
}
StagePtr make_prefill_output_stage(const ModelImpl& model, size_t mixer) {
  const MixerPlace& place = model.mixers[mixer];
  return std::make_unique<AddStage>(model, model.mixer_weights(mixer).o, place.layer, &place);
}
StagePtr make_prefill_gated_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<GatedStage>(model, layer);
}
StagePtr make_prefill_down_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<AddStage>(model, model.layers[layer].down, layer, nullptr);
}

}  // namespace mneme
