// An Engram module: rows that the last tokens select are gated by the residual stream and added to it.
//
//   start    at the start of a pass, every module: classes, hashes, row ids of all rows; the reads are issued
//   wait     at the layer: the records are there
//   k, v     records become floats, and go through both projections
//   gate     alpha from key and residual stream, u = alpha v, x += u
//   conv     with a convolution instead: x += u + silu(conv(rms(u)))
//   commit   at the end of a pass: the last rows of the convolutions go into the sequences
//
// Nothing of a sequence is written before commit, so an abandoned pass leaves it as it was. A stage must not
// throw between barriers: what goes wrong is kept in the workspace, and the pass ends after the layer.
#include "core/fail.h"
#include "memory/engram_config.h"
#include "model/stage_parts.h"
#include "model/stages.h"
#include "simd/elementwise.h"
#include "simd/engram.h"
#include "simd/rows.h"

namespace mneme {
namespace {

constexpr int64_t kRowsPerTask = 8;

template <class T>
void grow_to(std::vector<T>& v, size_t size) {
  if (v.size() < size) v.resize(size);
}

int64_t row_tasks(const Step& step) {
  return (step.rows() + kRowsPerTask - 1) / kRowsPerTask;
}

/// Calls body(slice, row of the step) for the rows of a task.
template <class Body>
void for_rows(const Step& step, int64_t task, const Body& body) {
  const int64_t begin = task * kRowsPerTask, end = std::min(begin + kRowsPerTask, step.rows());
  for (const Slice& slice : step.slices)
    for (int64_t n = std::max(begin, slice.row); n < std::min(end, slice.row + slice.count); ++n)
      body(slice, n);
}

/// Classes, hashes and row ids of module number `index` for this step; its reads are issued.
void start_module(const ModelImpl& model, size_t index, Step& step) {
  const MemoryWeights& w = *model.layers[model.memory_layers[index]].memory;
  const LoadedTable& table = model.memory_tables[w.table];
  Workspace::Memory& ws = step.workspace.memory[w.index];
  const size_t window = table.hash.config().max_ngram, width = table.hash.config().rows_per_token();
  try {
    for (size_t i = 0; i < step.ids.size(); ++i) ws.classes[i] = table.class_of(step.ids[i]);
    for (const Slice& slice : step.slices) {
      const auto row = static_cast<size_t>(slice.row), count = static_cast<size_t>(slice.count);
      const auto before = slice.before.last(std::min(slice.before.size(), table.hash.look_back()));
      for (size_t i = 0; i < before.size(); ++i) ws.previous[i] = table.class_of(before[i]);
      table.hash.contexts(std::span(ws.previous).first(before.size()),
                          std::span(ws.classes).subspan(row, count),
                          std::span(ws.contexts).subspan(row * window, count * window));
    }
    const auto rows = std::span(ws.rows).first(step.ids.size() * width);
    table.hash.rows_of(w.table_layer, std::span(ws.contexts).first(step.ids.size() * window), rows);
    table.rows->start(rows, ws.batch);
  } catch (...) {
    step.workspace.fail(std::current_exception());
  }
}

std::string describe_rows(const ModelImpl& model, size_t index) {
  const size_t layer = model.memory_layers[index];
  const LoadedTable& table = model.memory_tables[model.layers[layer].memory->table];
  return fmt::format("layer {}: {} a token from {}", layer, table.hash.config().rows_per_token(),
                     to_string(table.rows->placement()));
}

// A chunk: every module at the start of the pass, so that reads have all the time there is.
class StartStage final : public Stage {
 public:
  explicit StartStage(const ModelImpl& model) : model_(model) { waits_for_device = true; }
  std::string describe() const override {
    std::string text = "memory rows       ";
    for (size_t i = 0; i < model_.memory_layers.size(); ++i)
      text += (i == 0 ? "" : " | ") + describe_rows(model_, i);
    return text;
  }
  int64_t tasks(const Step&) const override { return static_cast<int64_t>(model_.memory_layers.size()); }
  void run(Step& step, int, int64_t task) const override {
    start_module(model_, static_cast<size_t>(task), step);
  }

 private:
  const ModelImpl& model_;
};

// Decode: one module is started by thread 0 while the other threads begin with the tasks of `beside`. The
// rows of a module are asked for once those of the module before it are there: they have layers of time, and
// would stand in front of reads that are waited for.
class StartBesideStage final : public Stage {
 public:
  StartBesideStage(const ModelImpl& model, size_t index, StagePtr beside)
      : model_(model), index_(index), beside_(std::move(beside)) {
    ends_layer = beside_->ends_layer;
    waits_for_device = true;
  }
  std::string describe() const override {
    return beside_->describe() + " | memory rows of " + describe_rows(model_, index_);
  }
  int64_t tasks(const Step& step) const override { return beside_->tasks(step); }
  void begin(Step& step, int thread) const override {
    if (thread == 0) start_module(model_, index_, step);
    beside_->begin(step, thread);
  }
  void run(Step& step, int thread, int64_t task) const override { beside_->run(step, thread, task); }

 private:
  const ModelImpl& model_;
  const size_t index_;
  const StagePtr beside_;
};

class MemoryStage : public Stage {
 protected:
  MemoryStage(const ModelImpl& model, size_t layer)
      : model_(model),
        weights_(*model.layers[layer].memory),
        config_(*model.config.layers[layer].memory),
        table_(model.memory_tables[weights_.table]),
        layer_(layer),
        d_(model.config.d_model) {}

  Workspace::Memory& buffers(Step& step) const { return step.workspace.memory[weights_.index]; }

  /// The values of the records of row n [d_e]; zeros if they could not be had.
  void gather(Step& step, int64_t n, std::vector<float>& out) const {
    const EngramTableConfig& table = table_.hash.config();
    const auto width = static_cast<size_t>(table.rows_per_token());
    grow(out, weights_.k.w.cols);
    const auto records = buffers(step).batch.rows();
    if (records.size() != step.ids.size() * width || step.workspace.failed.load(std::memory_order_relaxed))
      std::fill(out.begin(), out.end(), 0.0f);
    else
      gather_rows(table.format, records.subspan(static_cast<size_t>(n) * width, width), table.head_dim,
                  out.data());
  }

  const ModelImpl& model_;
  const MemoryWeights& weights_;
  const EngramModuleConfig& config_;
  const LoadedTable& table_;
  const size_t layer_;
  const int64_t d_;
};

class WaitStage final : public MemoryStage {
 public:
  WaitStage(const ModelImpl& model, size_t layer) : MemoryStage(model, layer) { waits_for_device = true; }
  std::string describe() const override { return fmt::format("memory wait       rows of layer {}", layer_); }
  int64_t tasks(const Step&) const override { return 0; }
  void run(Step&, int, int64_t) const override {}
  void begin(Step& step, int thread) const override {
    if (thread != 0) return;
    try {
      table_.rows->wait(buffers(step).batch);
      if (step.rows() <= kMaxDecodeRows)  // all at once, before anybody decodes the first of them
        prefetch_rows(table_.hash.config().format, buffers(step).batch.rows(), table_.hash.config().head_dim);
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }
};

/// kv = [W_k e | W_v e]. At decode every thread decodes the few records for itself; a prefill stage before
/// this one has put them into the workspace.
class ProjectStage final : public MemoryStage {
 public:
  ProjectStage(const ModelImpl& model, size_t layer, bool decode)
      : MemoryStage(model, layer),
        decode_(decode),
        tasks_({&weights_.k, &weights_.v}, model.pool->size(), decode ? 4 : 8) {
    forms_.add(weights_.k);
    forms_.add(weights_.v);
  }
  std::string describe() const override {
    return fmt::format("memory k,v        {} | {}", describe_linear(weights_.k), describe_linear(weights_.v));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    if (!decode_) return;
    Workspace::Thread& mine = step.workspace.threads[static_cast<size_t>(thread)];
    const int64_t cols = weights_.k.w.cols;
    size_activations(forms_, step.rows(), cols, mine.input, true);
    for (int64_t n = 0; n < step.rows(); ++n) {
      gather(step, n, mine.row);
      prepare_row(forms_, mine.row.data(), n, cols, mine.input);
    }
    finish_rows(forms_, cols, mine.input);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    Workspace& ws = step.workspace;
    const Activations& input = decode_ ? ws.threads[static_cast<size_t>(thread)].input : ws.input;
    const bool key = range.matrix == 0;
    apply_linear(key ? weights_.k : weights_.v, input, range.begin, range.end, 0, step.rows(),
                 ws.kv.data() + (key ? 0 : d_), 2 * d_);
  }

 private:
  const bool decode_;
  TileTasks tasks_;
  InputForms forms_;
};

class GatherStage final : public MemoryStage {
 public:
  GatherStage(const ModelImpl& model, size_t layer) : MemoryStage(model, layer) {
    forms_.add(weights_.k);
    forms_.add(weights_.v);
  }
  std::string describe() const override {
    return fmt::format("memory decode     {} values a token from {}", weights_.k.w.cols,
                       to_string(table_.hash.config().format));
  }
  int64_t tasks(const Step& step) const override { return row_tasks(step); }
  void run(Step& step, int thread, int64_t task) const override {
    std::vector<float>& row = step.workspace.threads[static_cast<size_t>(thread)].row;
    for_rows(step, task, [&](const Slice&, int64_t n) {
      gather(step, n, row);
      prepare_row(forms_, row.data(), n, weights_.k.w.cols, step.workspace.input);
    });
  }

 private:
  InputForms forms_;
};

class GateStage final : public MemoryStage {
 public:
  GateStage(const ModelImpl& model, size_t layer)
      : MemoryStage(model, layer), gate_{config_.signed_sqrt, config_.sign0, config_.eps} {}
  std::string describe() const override {
    return fmt::format("memory gate{}  [{}]", config_.conv ? "       " : "+residual", d_);
  }
  int64_t tasks(const Step& step) const override { return row_tasks(step); }
  void run(Step& step, int, int64_t task) const override {
    Workspace& ws = step.workspace;
    for_rows(step, task, [&](const Slice&, int64_t n) {
      const float* key = ws.kv.data() + n * 2 * d_;
      float* value = ws.kv.data() + n * 2 * d_ + d_;
      float* x = ws.x.data() + n * d_;
      const bool no_class = buffers(step).classes[static_cast<size_t>(n)] < 0;
      const float alpha = no_class ? 0.0f : engram_gate(gate_, key, x, weights_.gate.data(), d_);
      engram_value(alpha, value, d_, value);
      if (config_.conv)
        rms_norm(value, weights_.conv_norm.data(), static_cast<float>(config_.conv->eps), d_,
                 buffers(step).normed.data() + n * d_);
      else
        add_to(x, value, d_);
    });
  }

 private:
  const EngramGate gate_;
};

class ConvStage final : public MemoryStage {
 public:
  ConvStage(const ModelImpl& model, size_t layer)
      : MemoryStage(model, layer), kernel_(config_.conv->kernel) {}
  std::string describe() const override {
    return fmt::format("memory conv+residual  kernel {}, dilation {} [{}]", kernel_, config_.conv->dilation,
                       d_);
  }
  int64_t tasks(const Step& step) const override { return row_tasks(step); }
  void run(Step& step, int, int64_t task) const override {
    Workspace& ws = step.workspace;
    std::array<const float*, engram_limits::kMaxKernel> taps;
    for_rows(step, task, [&](const Slice& slice, int64_t n) {
      for (int64_t j = 0; j < kernel_; ++j)
        taps[static_cast<size_t>(j)] = tap(step, slice, n, (kernel_ - 1 - j) * config_.conv->dilation);
      float* u = ws.kv.data() + n * 2 * d_ + d_;
      engram_conv({taps.data(), static_cast<size_t>(kernel_)}, weights_.conv.data(), u, d_, u);
      add_to(ws.x.data() + n * d_, u, d_);
    });
  }

 private:
  // The normed values `back` positions before row n: of this pass, of an earlier one, or none.
  const float* tap(Step& step, const Slice& slice, int64_t n, int64_t back) const {
    if (n - back >= slice.row) return buffers(step).normed.data() + (n - back) * d_;
    const int64_t position = slice.position + (n - slice.row) - back;
    return position < 0 ? nullptr : slice.state->conv_row(weights_.conv_index, position);
  }
  const int64_t kernel_;
};

class CommitStage final : public Stage {
 public:
  explicit CommitStage(const ModelImpl& model) : model_(model) {
    for (const size_t layer : model.memory_layers)
      if (!model.layers[layer].memory->conv.empty()) layers_.push_back(layer);
  }
  std::string describe() const override {
    return fmt::format("memory commit     rows of {} convolutions", layers_.size());
  }
  int64_t tasks(const Step&) const override { return static_cast<int64_t>(layers_.size()); }
  void run(Step& step, int, int64_t task) const override {
    const MemoryWeights& w = *model_.layers[layers_[static_cast<size_t>(task)]].memory;
    const float* normed = step.workspace.memory[w.index].normed.data();
    const int64_t d = model_.config.d_model;
    for (const Slice& slice : step.slices) {
      const int64_t kept = std::min(slice.count, slice.state->layout().convs[w.conv_index].slots);
      for (int64_t i = slice.count - kept; i < slice.count; ++i)
        std::copy_n(normed + (slice.row + i) * d, d, slice.state->conv_row(w.conv_index, slice.position + i));
    }
  }
  bool needed() const { return !layers_.empty(); }

 private:
  const ModelImpl& model_;
  std::vector<size_t> layers_;
};

}  // namespace

StagePtr make_memory_start_stage(const ModelImpl& model) {
  return std::make_unique<StartStage>(model);
}

StagePtr with_memory_start(const ModelImpl& model, int64_t layer, StagePtr stage) {
  const auto& layers = model.memory_layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    const int64_t place = i > 0 ? static_cast<int64_t>(layers[i - 1]) : layers[0] == 0 ? -1 : 0;
    if (layer == place) return std::make_unique<StartBesideStage>(model, i, std::move(stage));
  }
  return stage;
}

void add_memory_stages(const ModelImpl& model, size_t layer, bool decode, std::vector<StagePtr>& list) {
  list.push_back(std::make_unique<WaitStage>(model, layer));
  if (!decode) list.push_back(std::make_unique<GatherStage>(model, layer));
  list.push_back(std::make_unique<ProjectStage>(model, layer, decode));
  list.push_back(std::make_unique<GateStage>(model, layer));
  if (model.config.layers[layer].memory->conv) list.push_back(std::make_unique<ConvStage>(model, layer));
}

StagePtr make_memory_commit_stage(const ModelImpl& model) {
  auto stage = std::make_unique<CommitStage>(model);
  if (!stage->needed()) return nullptr;
  return stage;
}

void size_memory(const ModelImpl& model, const Step& step) {
  Workspace& ws = step.workspace;
  const auto rows = static_cast<size_t>(step.rows());
  ws.memory.resize(model.memory_layers.size());
  for (const size_t layer : model.memory_layers) {
    const MemoryWeights& w = *model.layers[layer].memory;
    const EngramTableConfig& table = model.memory_tables[w.table].hash.config();
    Workspace::Memory& m = ws.memory[w.index];
    grow_to(m.previous, table.max_ngram - 1);
    grow_to(m.classes, rows);
    grow_to(m.contexts, rows * table.max_ngram);
    grow_to(m.rows, rows * table.rows_per_token());
    if (!w.conv.empty()) grow(m.normed, step.rows() * model.config.d_model);
  }
  if (!model.memory_layers.empty()) grow(ws.kv, step.rows() * 2 * model.config.d_model);
}

}  // namespace mneme
