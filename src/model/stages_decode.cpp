// Decode: the four projections of a layer, each one stage with one barrier. Every thread norms and rounds the
// few rows for itself in begin(); writing that once and sharing it would cost a second barrier, which takes
// longer.
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

Workspace::Thread& mine(Step& step, int thread) {
  return step.workspace.threads[static_cast<size_t>(thread)];
}

class DecodeStage : public Stage {
 protected:
  DecodeStage(const ModelImpl& model, size_t layer)
      : model_(model), layer_weights_(model.layers[layer]), layer_(model.config.layers[layer]) {}

  // This thread's input = norm(x) of every row, in the forms wanted.
  void norm_rows(Step& step, int thread, const std::vector<float>& weight, const InputForms& forms) const {
    Workspace::Thread& my = mine(step, thread);
    const int64_t d = model_.config.d_model;
    size_activations(forms, step.rows(), d, my.input, true);
    grow(my.row, d);
    for (int64_t n = 0; n < step.rows(); ++n) {
      rms_norm(step.workspace.x.data() + n * d, weight.data(), static_cast<float>(model_.config.norm.eps), d,
               my.row.data());
      prepare_row(forms, my.row.data(), n, d, my.input);
    }
    finish_rows(forms, d, my.input);
  }

  // x += W input + b, or branch = W input + b where a norm follows (`branch` not null).
  void add_product(Step& step, int thread, const Linear& linear, const Activations& input, int64_t tile_begin,
                   int64_t tile_end, float* branch) const {
    const int64_t d = model_.config.d_model, begin = tile_begin * kTileRows;
    const int64_t width = std::min(tile_end * kTileRows, d) - begin;
    if (branch != nullptr)
      return apply_linear(linear, input, tile_begin, tile_end, 0, step.rows(), branch, d);
    std::vector<float>& product = mine(step, thread).product;
    const int64_t stride = (tile_end - tile_begin) * kTileRows;
    grow(product, step.rows() * stride);
    apply_linear(linear, input, tile_begin, tile_end, 0, step.rows(), product.data() - begin, stride);
    for (int64_t n = 0; n < step.rows(); ++n)
      add_to(step.workspace.x.data() + n * d + begin, product.data() + n * stride, width);
  }

  const ModelImpl& model_;
  const LayerWeights& layer_weights_;
  const LayerConfig& layer_;
};

class QkvStage final : public DecodeStage {
 public:
  QkvStage(const ModelImpl& model, size_t mixer)
      : DecodeStage(model, model.mixers[mixer].layer),
        inputs_(model.mixer_weights(mixer)),
        shape_(qkv_shape(model.mixer_config(mixer))),
        tasks_(inputs_.linears, model.pool->size(), 8) {
    for (const Linear* linear : inputs_.linears) forms_.add(*linear);
  }
  std::string describe() const override { return "norm+qkv          " + inputs_.describe(); }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    norm_rows(step, thread, layer_weights_.attn_norm, forms_);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    apply_linear(*inputs_.linears[range.matrix], mine(step, thread).input, range.begin, range.end, 0,
                 step.rows(), step.workspace.qkv.data() + inputs_.columns[range.matrix], shape_.total());
  }

 private:
  const MixerInputs inputs_;
  const QkvShape shape_;
  TileTasks tasks_;
  InputForms forms_;
};

class OutputStage final : public DecodeStage {
 public:
  OutputStage(const ModelImpl& model, size_t mixer, const AttentionParts& parts)
      : DecodeStage(model, model.mixers[mixer].layer),
        place_(model.mixers[mixer]),
        weights_(model.mixer_weights(mixer)),
        parts_(parts),
        tasks_({&weights_.o}, model.pool->size(), 8) {
    forms_.add(weights_.o);
  }
  std::string describe() const override {
    return fmt::format("merge+output{}  {}", output_is_normed(layer_) ? "     " : "+residual",
                       describe_linear(weights_.o));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    Workspace::Thread& my = mine(step, thread);
    const int64_t cols = weights_.o.w.cols;
    size_activations(forms_, step.rows(), cols, my.input, true);
    grow(my.row, cols);
    for (int64_t n = 0; n < step.rows(); ++n) {
      parts_.merge(step, n, my.row.data());
      prepare_row(forms_, my.row.data(), n, cols, my.input);
    }
    finish_rows(forms_, cols, my.input);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    add_product(step, thread, weights_.o, mine(step, thread).input, range.begin, range.end,
                mixer_output(model_, place_, step));
  }

 private:
  const MixerPlace place_;
  const MixerWeights& weights_;
  const AttentionParts& parts_;
  TileTasks tasks_;
  InputForms forms_;
};

// hidden = act(gate(norm(x))) * up(norm(x)). A task makes whole blocks of 32 and rounds them to int8 while
// they are in cache; a neuron's threshold needs the whole row first.
class GatedStage final : public DecodeStage {
 public:
  GatedStage(const ModelImpl& model, size_t layer)
      : DecodeStage(model, layer),
        tasks_({&layer_weights_.gate}, model.pool->size(), 8,
               std::max<int64_t>(2, tile_multiple({&layer_weights_.up}))) {
    forms_.add(layer_weights_.gate);
    forms_.add(layer_weights_.up);
    hidden_forms_.add(layer_weights_.down);
  }
  std::string describe() const override {
    return fmt::format("norm+gate*up      {} | {}", describe_linear(layer_weights_.gate),
                       describe_linear(layer_weights_.up));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    norm_rows(step, thread, layer_weights_.ffn_norm, forms_);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    Workspace& ws = step.workspace;
    const int64_t hidden = layer_.ffn.hidden, rows = step.rows();
    apply_linear(layer_weights_.gate, mine(step, thread).input, range.begin, range.end, 0, rows,
                 ws.gate.data(), hidden);
    apply_linear(layer_weights_.up, mine(step, thread).input, range.begin, range.end, 0, rows, ws.up.data(),
                 hidden);
    const int64_t begin = range.begin * kTileRows, width = std::min(range.end * kTileRows, hidden) - begin;
    for (int64_t n = 0; n < rows; ++n) {
      float* gate = ws.gate.data() + n * hidden;
      gated_act(gate_act(layer_.ffn.act), gate + begin, ws.up.data() + n * hidden + begin, width,
                gate + begin);
      if (hidden_forms_.int8) {
        quantize_blocks(gate, n, hidden, begin / kBlock, width / kBlock, ws.input.q);
      } else if (hidden_forms_.floats) {
        std::copy_n(gate + begin, width, ws.input.f.data() + n * hidden + begin);
      }
    }
  }

 private:
  TileTasks tasks_;
  InputForms forms_, hidden_forms_;
};

class DownStage final : public DecodeStage {
 public:
  DownStage(const ModelImpl& model, size_t layer)
      : DecodeStage(model, layer), tasks_({&layer_weights_.down}, model.pool->size(), 8) {
    forms_.add(layer_weights_.down);
  }
  std::string describe() const override {
    return fmt::format("down{}     {}", layer_.post_norm ? "         " : "+residual",
                       describe_linear(layer_weights_.down));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    if (!forms_.needs_whole_rows()) return;
    const int64_t hidden = layer_.ffn.hidden;
    Workspace::Thread& my = mine(step, thread);
    size_activations(forms_, step.rows(), hidden, my.input, true);
    for (int64_t n = 0; n < step.rows(); ++n)
      prepare_row(forms_, step.workspace.gate.data() + n * hidden, n, hidden, my.input);
    finish_rows(forms_, hidden, my.input);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    const Activations& input = forms_.needs_whole_rows() ? mine(step, thread).input : step.workspace.input;
    add_product(step, thread, layer_weights_.down, input, range.begin, range.end,
                layer_.post_norm ? step.workspace.branch.data() : nullptr);
  }

 private:
  TileTasks tasks_;
  InputForms forms_;
};

}  // namespace

StagePtr make_decode_qkv_stage(const ModelImpl& model, size_t mixer) {
  return std::make_unique<QkvStage>(model, mixer);
}
StagePtr make_decode_output_stage(const ModelImpl& model, size_t mixer, const AttentionParts& parts) {
  return std::make_unique<OutputStage>(model, mixer, parts);
}
StagePtr make_decode_gated_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<GatedStage>(model, layer);
}
StagePtr make_decode_down_stage(const ModelImpl& model, size_t layer) {
  return std::make_unique<DownStage>(model, layer);
}

}  // namespace mneme
