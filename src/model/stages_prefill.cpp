// Prefill: rows are normed and rounded in a stage of their own, then every product runs over all rows of the
// chunk.
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

constexpr int64_t kPrepareRows = 8;

class PrepareStage final : public Stage {
 public:
  PrepareStage(const ModelImpl& model, size_t layer, PrefillInput input) : model_(model), input_(input) {
    const LayerWeights& w = model.layers[layer];
    switch (input) {
      case PrefillInput::mixer:
        set(w.q.w.cols, {&w.q, &w.k, &w.v}, &w.attn_norm);
        break;
      case PrefillInput::attention:
        set(w.o.w.cols, {&w.o}, nullptr);
        break;
      case PrefillInput::ffn:
        set(w.gate.w.cols, {&w.gate, &w.up}, &w.ffn_norm);
        break;
      case PrefillInput::hidden:
        set(w.down.w.cols, {&w.down}, nullptr);
        break;
    }
  }
  std::string describe() const override {
    return fmt::format("{}  {} columns to {}", norm_ != nullptr ? "norm+round      " : "round           ",
                       cols_,
                       forms_.int8      ? "int8"
                       : forms_.rounded ? "int8 as f32"
                                        : "f32");
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
      if (norm_ != nullptr) {
        rms_norm(row, norm_->data(), static_cast<float>(model_.config.norm.eps), cols_, scratch.data());
        row = scratch.data();
      }
      prepare_row(forms_, row, n, cols_, ws.input);
    }
  }

 private:
  void set(int64_t cols, std::initializer_list<const Linear*> consumers, const std::vector<float>* norm) {
    cols_ = cols;
    norm_ = norm;
    for (const Linear* linear : consumers) forms_.add(*linear);
  }
  const ModelImpl& model_;
  const PrefillInput input_;
  int64_t cols_ = 0;
  const std::vector<float>* norm_ = nullptr;  // null: the source goes in as it is
  InputForms forms_;
};

class QkvStage final : public Stage {
 public:
  QkvStage(const ModelImpl& model, size_t layer)
      : weights_(model.layers[layer]),
        shape_(qkv_shape(model.config, layer)),
        tasks_({&weights_.q, &weights_.k, &weights_.v}, model.pool->size(), 8) {}
  std::string describe() const override {
    return fmt::format("qkv               {} | {} | {}", describe_linear(weights_.q),
                       describe_linear(weights_.k), describe_linear(weights_.v));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void run(Step& step, int, int64_t task) const override {
    const auto range = tasks_.range(task);
    const Linear& linear = range.matrix == 0 ? weights_.q : range.matrix == 1 ? weights_.k : weights_.v;
    const int64_t start = range.matrix == 0 ? 0 : range.matrix == 1 ? shape_.q : shape_.q + shape_.kv;
    apply_linear(linear, step.workspace.input, range.begin, range.end, 0, step.rows(),
                 step.workspace.qkv.data() + start, shape_.total());
  }

 private:
  const LayerWeights& weights_;
  const QkvShape shape_;
  TileTasks tasks_;
};

// x += W input + b, or branch = ... where a norm follows; W is the output or the down projection.
class AddStage final : public Stage {
 public:
  AddStage(const ModelImpl& model, const Linear& linear, bool post_norm)
      : linear_(linear),
        post_norm_(post_norm),
        d_(model.config.d_model),
        tasks_({&linear}, model.pool->size(), 8) {}
  std::string describe() const override {
    return fmt::format("product{}  {}", post_norm_ ? "         " : "+residual", describe_linear(linear_));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void run(Step& step, int thread, int64_t task) const override {
    Workspace& ws = step.workspace;
    const auto range = tasks_.range(task);
    if (post_norm_)
      return apply_linear(linear_, ws.input, range.begin, range.end, 0, step.rows(), ws.branch.data(), d_);
    std::vector<float>& product = ws.threads[static_cast<size_t>(thread)].product;
    const int64_t begin = range.begin * kTileRows, stride = (range.end - range.begin) * kTileRows;
    const int64_t width = std::min(range.end * kTileRows, d_) - begin;
    grow(product, step.rows() * stride);
    apply_linear(linear_, ws.input, range.begin, range.end, 0, step.rows(), product.data() - begin, stride);
    for (int64_t n = 0; n < step.rows(); ++n)
      add_to(ws.x.data() + n * d_ + begin, product.data() + n * stride, width);
  }

 private:
  const Linear& linear_;
  const bool post_norm_;
  const int64_t d_;
  TileTasks tasks_;
};

class GatedStage final : public Stage {
 public:
  GatedStage(const ModelImpl& model, size_t layer)
      : weights_(model.layers[layer]),
        ffn_(model.config.layers[layer].ffn),
        tasks_({&weights_.gate}, model.pool->size(), 8) {}
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
StagePtr make_prefill_qkv_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<QkvStage>(model, layer);
}
StagePtr make_prefill_output_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<AddStage>(model, model.layers[layer].o, model.config.layers[layer].post_norm);
}
StagePtr make_prefill_gated_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<GatedStage>(model, layer);
}
StagePtr make_prefill_down_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<AddStage>(model, model.layers[layer].down, model.config.layers[layer].post_norm);
}

}  // namespace mneme
