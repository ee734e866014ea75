// Mixtures of experts.
//
// Decode, three stages: the router beside the shared expert's gate and up; gate and up of the chosen experts;
// all that goes down. Every thread scores and sorts the few rows for itself, which is cheaper than a barrier.
// Only the chosen experts' weights are read, each once for all rows that chose it.
//
// Prefill: rows are normed and routed, the (row, expert) pairs sorted by expert and gathered, so that every
// expert has its rows one after the other and reads its weights once; then the outputs go back to their rows.
//
// A row's sum is the same in both: the shared expert, then its routes from the best rank down, then the
// residual.
#include <cmath>

#include "model/expert_store.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

constexpr int64_t kExpertRows = 8;   // rows or pairs of a task that prepares them
constexpr int64_t kRouterRows = 16;  // rows of a routing task
// A prefill's tasks are cut as if it used so many experts: should all rows choose one, all threads still have
// work.
constexpr uint32_t kTaskExperts = 4;

/// The tiles of one matrix of every expert, cut into tasks of the same size.
struct ExpertTasks {
  int64_t tiles = 0, group = 1, per_expert = 0;
  ExpertTasks() = default;
  /// About 8 tasks a thread if `experts` of them are worked on. `group` is a multiple of `multiple`.
  ExpertTasks(const std::vector<const Linear*>& linears, int threads, int64_t experts, int64_t multiple)
      : tiles(linears.front()->w.tiles()) {
    multiple = std::max(multiple, tile_multiple(linears));
    group = std::clamp<int64_t>(tiles * experts / (threads * 8), 1, 64);
    group = (group + multiple - 1) / multiple * multiple;
    per_expert = (tiles + group - 1) / group;
  }
  int64_t begin(int64_t task) const { return task % per_expert * group; }
  int64_t end(int64_t task) const { return std::min(begin(task) + group, tiles); }
};

class MoeStage : public Stage {
 public:
  MoeStage(const ModelImpl& model, size_t layer)
      : model_(model),
        layer_(layer),
        config_(model.config.layers[layer]),
        ffn_(config_.ffn),
        weights_(model.layers[layer]),
        moe_(*weights_.moe),
        d_(model.config.d_model),
        hidden_(ffn_.hidden),
        shared_(moe_.shared.gate.w.rows > 0 ? ffn_.shared_width() : 0) {
    input_forms_.add(moe_.experts.front().gate);
    input_forms_.add(moe_.experts.front().up);
    hidden_forms_.add(moe_.experts.front().down);
    if (shared_ == 0) return;
    shared_forms_.add(moe_.shared.gate);
    shared_forms_.add(moe_.shared.up);
    shared_hidden_forms_.add(moe_.shared.down);
  }

 protected:
  static Workspace::Thread& mine(Step& step, int thread) {
    return step.workspace.threads[static_cast<size_t>(thread)];
  }
  Workspace::Experts& experts(Step& step) const { return step.workspace.experts; }
  const ExpertWeights& expert(int32_t number) const { return moe_.experts[static_cast<size_t>(number)]; }
  /// The pairs whose experts are here; pairs are sorted by expert, and processes hold neighbouring experts.
  int64_t first_own_pair(const Workspace::Experts& ws) const { return ws.routing.first[moe_.own.first]; }
  int64_t end_of_own_pairs(const Workspace::Experts& ws) const { return ws.routing.first[moe_.own.last]; }
  /// Whether the weights of a chosen expert are there; those on disk are waited for.
  bool arrived(Step& step, int32_t number) const {
    if (!model_.expert_store) return true;
    if (step.workspace.failed) return false;
    try {
      model_.expert_store->wait(layer_, number);
      return true;
    } catch (...) {
      step.workspace.fail(std::current_exception());
      return false;
    }
  }
  /// Whether weights could not be read, so that there is nothing to compute with.
  bool given_up(const Step& step) const { return model_.expert_store && step.workspace.failed; }
  float* scores(Step& step, int64_t row) const { return experts(step).scores.data() + row * ffn_.choices(); }

  void norm(const Step& step, int64_t row, float* out) const {
    rms_norm(step.workspace.x.data() + row * d_, weights_.ffn_norm.data(),
             static_cast<float>(model_.config.norm.eps), d_, out);
  }

  /// hidden = act(gate x) * (up x) of tiles [begin, end) for one run of rows, which stand at `gate` and `up`.
  void act(float* gate, const float* up, int64_t begin, int64_t end, int64_t width) const {
    const int64_t first = begin * kTileRows, count = std::min(end * kTileRows, width) - first;
    gated_act(gate_act(ffn_.act), gate + first, up + first, count, gate + first);
  }

  /// Puts the finished tiles of a row into `out` where the form does not need the whole row.
  static void round_tiles(const InputForms& forms, const float* row, int64_t n, int64_t begin, int64_t end,
                          int64_t width, Activations& out) {
    const int64_t first = begin * kTileRows, count = std::min(end * kTileRows, width) - first;
    if (forms.int8) quantize_blocks(row, n, width, first / kBlock, count / kBlock, out.q);
    if (forms.floats) std::copy_n(row + first, count, out.f.data() + n * width + first);
  }

  /// Chooses experts for a row from its logits. A router that is not finite ends the pass.
  void route(Step& step, int thread, int64_t row, Route* out, bool tell) const {
    RouterScratch& scratch = mine(step, thread).router;
    const int64_t bad =
        choose_experts(ffn_, scores(step, row),
                       moe_.selection_bias.empty() ? nullptr : moe_.selection_bias.data(), scratch, out);
    const auto slice = std::find_if(step.slices.begin(), step.slices.end(),
                                    [row](const Slice& s) { return row >= s.row && row < s.row + s.count; });
    const int64_t position = slice->position + row - slice->row;
    try {
      require(
          bad < 0, ErrorCode::corrupt,
          "layer {}: the router's score of expert {} is {} at position {}; the weights or the values that "
          "reach this layer are broken",
          layer_, bad, scores(step, row)[std::max<int64_t>(bad, 0)], position);
      if (slice->routes == nullptr) return;
      if (const int32_t* forced = slice->routes->forced(layer_, position))
        weigh_experts(ffn_, scratch.scores.data(), forced, out);
      if (tell)
        slice->routes->see(layer_, thread, position, {out, ffn_.top_k},
                           {scratch.scores.data(), ffn_.choices()});
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }

  /// What the shared expert's output of a row is multiplied by; `x` is the normed row.
  float shared_factor(const float* x) const {
    if (moe_.shared_gate.empty()) return 1.0f;
    double sum = 0;
    for (int64_t i = 0; i < d_; ++i) sum += double{moe_.shared_gate[static_cast<size_t>(i)]} * double{x[i]};
    return static_cast<float>(1.0 / (1.0 + std::exp(-sum)));
  }

  /// Where the sum of a row goes: added to x, or into the branch that still gets a norm.
  void deliver(Step& step, int64_t row, int64_t begin, int64_t width, const float* sum) const {
    const int64_t at = row * d_ + begin;
    if (config_.post_norm)
      std::copy_n(sum, width, step.workspace.branch.data() + at);
    else
      add_to(step.workspace.x.data() + at, sum, width);
  }

  std::string describe_choice() const {
    std::string text = fmt::format("{} of {} experts", ffn_.top_k, ffn_.experts);
    if (ffn_.null_experts > 0) text += fmt::format(" and {} null", ffn_.null_experts);
    if (ffn_.groups > 1) text += fmt::format(", {} of {} groups", ffn_.top_groups, ffn_.groups);
    if (ffn_.top_p > 0) text += fmt::format(", top-p {:g}", ffn_.top_p);
    return text;
  }
  std::string describe_pair(const ExpertWeights& one) const {
    return describe_linear(one.gate) + " | " + describe_linear(one.up);
  }
  std::string shared_text(bool down) const {
    if (shared_ == 0) return "";
    return "; shared " + (down ? describe_linear(moe_.shared.down) : describe_pair(moe_.shared));
  }

  const ModelImpl& model_;
  const size_t layer_;
  const LayerConfig& config_;
  const FfnConfig& ffn_;
  const LayerWeights& weights_;
  const MoeWeights& moe_;
  const int64_t d_, hidden_, shared_;
  InputForms input_forms_, hidden_forms_, shared_forms_, shared_hidden_forms_;
};

// ---- decode

// Router scores of every row, and the shared expert's hidden values.
class DecodeRouterStage final : public MoeStage {
 public:
  DecodeRouterStage(const ModelImpl& model, size_t layer) : MoeStage(model, layer) {
    forms_ = input_forms_;
    forms_.floats = true;  // of the router
    std::vector<const Linear*> linears{&moe_.router};
    int64_t multiple = 1;
    if (shared_ > 0) {
      forms_.add(moe_.shared.gate);
      forms_.add(moe_.shared.up);
      linears.push_back(&moe_.shared.gate);
      multiple = std::max<int64_t>(2, tile_multiple({&moe_.shared.up}));  // whole blocks of 32
    }
    tasks_ = TileTasks(linears, model.pool->size(), 8, multiple);
  }
  std::string describe() const override {
    return fmt::format("norm+router       {}, {}{}", describe_linear(moe_.router), describe_choice(),
                       shared_text(false));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    Workspace::Thread& my = mine(step, thread);
    size_activations(forms_, step.rows(), d_, my.input, true);
    grow(my.row, d_);
    grow(my.factors, step.rows());
    for (int64_t n = 0; n < step.rows(); ++n) {
      norm(step, n, my.row.data());
      prepare_row(forms_, my.row.data(), n, d_, my.input);
      if (shared_ > 0) my.factors[static_cast<size_t>(n)] = shared_factor(my.row.data());
    }
    finish_rows(forms_, d_, my.input);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    const Activations& input = mine(step, thread).input;
    Workspace::Experts& ws = experts(step);
    const int64_t rows = step.rows();
    if (range.matrix == 0)
      return apply_linear(moe_.router, input, range.begin, range.end, 0, rows, ws.scores.data(),
                          ffn_.choices());
    apply_linear(moe_.shared.gate, input, range.begin, range.end, 0, rows, ws.shared_gate.data(), shared_);
    apply_linear(moe_.shared.up, input, range.begin, range.end, 0, rows, ws.shared_up.data(), shared_);
    for (int64_t n = 0; n < rows; ++n) {
      float* gate = ws.shared_gate.data() + n * shared_;
      act(gate, ws.shared_up.data() + n * shared_, range.begin, range.end, shared_);
      round_tiles(shared_hidden_forms_, gate, n, range.begin, range.end, shared_, ws.shared_hidden);
    }
  }

 private:
  TileTasks tasks_;
  InputForms forms_;
};

// Hidden values of the chosen experts, one run of tiles of one expert a task.
class DecodeExpertsStage final : public MoeStage {
 public:
  DecodeExpertsStage(const ModelImpl& model, size_t layer)
      : MoeStage(model, layer),
        tasks_({&moe_.experts.front().gate, &moe_.experts.front().up}, model.pool->size(),
               std::min(ffn_.top_k, ffn_.experts), 2) {}
  std::string describe() const override {
    return fmt::format("experts gate*up   {}", describe_pair(moe_.experts.front()));
  }
  int64_t tasks(const Step& step) const override {
    return std::min<int64_t>(ffn_.experts, step.rows() * ffn_.top_k) * tasks_.per_expert;
  }
  void begin(Step& step, int thread) const override {
    Workspace::Thread& my = mine(step, thread);
    my.routing.reserve(step.rows(), ffn_);
    for (int64_t n = 0; n < step.rows(); ++n)
      route(step, thread, n, my.routing.routes.data() + n * ffn_.top_k, thread == 0);
    my.routing.sort(step.rows(), ffn_);
  }
  void run(Step& step, int thread, int64_t task) const override {
    const Workspace::Thread& my = mine(step, thread);
    const auto chosen = static_cast<size_t>(task / tasks_.per_expert);
    if (chosen >= my.routing.used.size()) return;  // fewer experts than places
    const int32_t number = my.routing.used[chosen];
    if (!arrived(step, number)) return;
    const ExpertWeights& w = expert(number);
    Workspace::Experts& ws = experts(step);
    const int64_t begin = tasks_.begin(task), end = tasks_.end(task);
    const int64_t first = my.routing.first[static_cast<size_t>(number)];
    for (int64_t pair = first; pair < first + my.routing.count(number); ++pair) {
      const int64_t row = my.routing.rows[static_cast<size_t>(pair)];
      float* gate = ws.gate.data() + pair * hidden_;
      float* up = ws.up.data() + pair * hidden_;
      apply_linear(w.gate, my.input, begin, end, row, row + 1, gate, 0);
      apply_linear(w.up, my.input, begin, end, row, row + 1, up, 0);
      act(gate, up, begin, end, hidden_);
      round_tiles(hidden_forms_, gate, pair, begin, end, hidden_, ws.hidden);
    }
  }

 private:
  ExpertTasks tasks_;
};

// x += shared factor * down(shared hidden) + sum of weight * down(hidden), for some columns of x.
class DecodeExpertsDownStage final : public MoeStage {
 public:
  DecodeExpertsDownStage(const ModelImpl& model, size_t layer)
      : MoeStage(model, layer),
        tasks_({&moe_.experts.front().down}, model.pool->size(), 8,
               shared_ > 0 ? tile_multiple({&moe_.shared.down}) : 1) {}
  std::string describe() const override {
    return fmt::format("experts down+sum  {}{}", describe_linear(moe_.experts.front().down),
                       shared_text(true));
  }
  int64_t tasks(const Step&) const override { return tasks_.count(); }
  void begin(Step& step, int thread) const override {
    Workspace::Thread& my = mine(step, thread);
    if (shared_ > 0 && shared_hidden_forms_.needs_whole_rows())
      prepare_each(shared_hidden_forms_, experts(step).shared_gate, step.rows(), shared_, my.shared_rows);
    if (hidden_forms_.needs_whole_rows())
      prepare_each(hidden_forms_, experts(step).gate, my.routing.pairs(), hidden_, my.hidden_rows);
  }
  void run(Step& step, int thread, int64_t task) const override {
    if (given_up(step)) return;
    Workspace::Thread& my = mine(step, thread);
    const auto range = tasks_.range(task);
    const int64_t begin = range.begin * kTileRows, width = std::min(range.end * kTileRows, d_) - begin;
    grow(my.product, 2 * width);
    float *sum = my.product.data(), *one = sum + width;
    // apply_linear() writes from column `begin` on
    const auto product = [&](const Linear& down, const InputForms& forms, const Activations& shared,
                             const std::vector<Activations>& alone, int64_t row) {
      const bool whole = forms.needs_whole_rows();
      const int64_t n = whole ? 0 : row;
      apply_linear(down, whole ? alone[static_cast<size_t>(row)] : shared, range.begin, range.end, n, n + 1,
                   one - begin, 0);
    };
    for (int64_t n = 0; n < step.rows(); ++n) {
      std::fill_n(sum, width, 0.0f);
      if (shared_ > 0) {
        product(moe_.shared.down, shared_hidden_forms_, experts(step).shared_hidden, my.shared_rows, n);
        add_scaled(sum, my.factors[static_cast<size_t>(n)], one, width);
      }
      for (int64_t place = n * ffn_.top_k; place < (n + 1) * ffn_.top_k; ++place) {
        const int64_t pair = my.routing.place[static_cast<size_t>(place)];
        if (pair < 0) continue;
        const Route& chosen = my.routing.routes[static_cast<size_t>(place)];
        product(expert(chosen.expert).down, hidden_forms_, experts(step).hidden, my.hidden_rows, pair);
        add_scaled(sum, chosen.weight, one, width);
      }
      deliver(step, n, begin, width, sum);
    }
  }

 private:
  /// Each row on its own: the events of one token, not of all together.
  static void prepare_each(const InputForms& forms, const std::vector<float>& source, int64_t rows,
                           int64_t cols, std::vector<Activations>& out) {
    if (std::ssize(out) < rows) out.resize(static_cast<size_t>(rows));
    for (int64_t n = 0; n < rows; ++n) {
      Activations& row = out[static_cast<size_t>(n)];
      size_activations(forms, 1, cols, row, true);
      prepare_row(forms, source.data() + n * cols, 0, cols, row);
      finish_rows(forms, cols, row);
    }
  }

  TileTasks tasks_;
};

// ---- prefill

// Normed rows, as the router and the shared expert read them.
class MoeNormStage final : public MoeStage {
 public:
  MoeNormStage(const ModelImpl& model, size_t layer) : MoeStage(model, layer), forms_(shared_forms_) {
    forms_.floats = true;
  }
  std::string describe() const override {
    return fmt::format("norm              {} columns to f32{}", d_,
                       shared_ > 0 ? " and for the shared expert" : "");
  }
  int64_t tasks(const Step& step) const override { return (step.rows() + kExpertRows - 1) / kExpertRows; }
  void run(Step& step, int thread, int64_t task) const override {
    std::vector<float>& row = mine(step, thread).row;
    grow(row, d_);
    const int64_t end = std::min((task + 1) * kExpertRows, step.rows());
    for (int64_t n = task * kExpertRows; n < end; ++n) {
      norm(step, n, row.data());
      prepare_row(forms_, row.data(), n, d_, step.workspace.input);
    }
  }

 private:
  InputForms forms_;
};

class RouteStage final : public MoeStage {
 public:
  using MoeStage::MoeStage;
  std::string describe() const override {
    return fmt::format("router            {}, {}", describe_linear(moe_.router), describe_choice());
  }
  int64_t tasks(const Step& step) const override { return (step.rows() + kRouterRows - 1) / kRouterRows; }
  void run(Step& step, int thread, int64_t task) const override {
    const int64_t begin = task * kRouterRows, end = std::min(begin + kRouterRows, step.rows());
    Workspace::Experts& ws = experts(step);
    apply_linear(moe_.router, step.workspace.input, 0, moe_.router.w.tiles(), begin, end, ws.scores.data(),
                 ffn_.choices());
    for (int64_t n = begin; n < end; ++n) {
      route(step, thread, n, ws.routing.routes.data() + n * ffn_.top_k, true);
      if (shared_ > 0)
        ws.factors[static_cast<size_t>(n)] = shared_factor(step.workspace.input.f.data() + n * d_);
    }
  }
};

class SortRoutesStage final : public MoeStage {
 public:
  using MoeStage::MoeStage;
  std::string describe() const override { return "sort by expert"; }
  int64_t tasks(const Step&) const override { return 1; }
  void run(Step& step, int, int64_t) const override { experts(step).routing.sort(step.rows(), ffn_); }
};

// The inputs of each expert's rows, one after the other.
class GatherExpertsStage final : public MoeStage {
 public:
  using MoeStage::MoeStage;
  std::string describe() const override { return fmt::format("gather            {} columns by expert", d_); }
  int64_t tasks(const Step& step) const override {
    return (step.rows() * ffn_.top_k + kExpertRows - 1) / kExpertRows;
  }
  void run(Step& step, int, int64_t task) const override {
    Workspace::Experts& ws = experts(step);
    const int64_t end = std::min((task + 1) * kExpertRows, end_of_own_pairs(ws));
    for (int64_t pair = std::max(task * kExpertRows, first_own_pair(ws)); pair < end; ++pair)
      prepare_row(input_forms_,
                  step.workspace.input.f.data() + ws.routing.rows[static_cast<size_t>(pair)] * d_, pair, d_,
                  ws.input);
  }
};

class PrefillExpertsStage final : public MoeStage {
 public:
  PrefillExpertsStage(const ModelImpl& model, size_t layer)
      : MoeStage(model, layer),
        tasks_({&moe_.experts.front().gate, &moe_.experts.front().up}, model.pool->size(),
               std::min(ffn_.experts, kTaskExperts), 1) {
    waits_for_device = model.expert_store != nullptr;
    if (shared_ > 0)
      shared_tasks_ = ExpertTasks({&moe_.shared.gate, &moe_.shared.up}, model.pool->size(), 1, 1);
  }
  std::string describe() const override {
    return fmt::format("experts gate*up   {}{}", describe_pair(moe_.experts.front()), shared_text(false));
  }
  int64_t tasks(const Step&) const override {
    return shared_tasks_.per_expert + int64_t{ffn_.experts} * tasks_.per_expert;
  }
  void run(Step& step, int, int64_t task) const override {
    Workspace::Experts& ws = experts(step);
    if (task < shared_tasks_.per_expert) {
      if (ws.first_wave())
        gated(moe_.shared, step.workspace.input, shared_tasks_.begin(task), shared_tasks_.end(task), 0,
              step.rows(), shared_, ws.shared_gate, ws.shared_up);
      return;
    }
    task -= shared_tasks_.per_expert;
    const auto number = static_cast<int32_t>(task / tasks_.per_expert);
    const int64_t first = ws.routing.first[static_cast<size_t>(number)];
    if (ws.routing.count(number) == 0 || !moe_.own.holds(number) || !ws.in_wave(number)) return;
    if (!arrived(step, number)) return;
    gated(expert(number), ws.input, tasks_.begin(task), tasks_.end(task), first,
          first + ws.routing.count(number), hidden_, ws.gate, ws.up);
  }

 private:
  void gated(const ExpertWeights& w, const Activations& input, int64_t begin, int64_t end, int64_t first,
             int64_t last, int64_t width, std::vector<float>& gate, std::vector<float>& up) const {
    apply_linear(w.gate, input, begin, end, first, last, gate.data(), width);
    apply_linear(w.up, input, begin, end, first, last, up.data(), width);
    for (int64_t n = first; n < last; ++n)
      act(gate.data() + n * width, up.data() + n * width, begin, end, width);
  }

  ExpertTasks tasks_, shared_tasks_;
};

class ExpertsHiddenStage final : public MoeStage {
 public:
  using MoeStage::MoeStage;
  std::string describe() const override {
    return fmt::format("round             {} columns by expert{}", hidden_,
                       shared_ > 0 ? fmt::format(", {} of the shared", shared_) : "");
  }
  int64_t tasks(const Step& step) const override {
    return shared_tasks(step) + (step.rows() * ffn_.top_k + kExpertRows - 1) / kExpertRows;
  }
  void run(Step& step, int, int64_t task) const override {
    Workspace::Experts& ws = experts(step);
    const int64_t before = shared_tasks(step);
    if (task < before) {
      if (ws.first_wave())
        prepare(shared_hidden_forms_, ws.shared_gate, task, 0, step.rows(), shared_, ws.shared_hidden);
      return;
    }
    const auto first = static_cast<size_t>(std::max<int64_t>(ws.wave_begin, moe_.own.first));
    const auto last = std::max(first, static_cast<size_t>(std::min<int64_t>(ws.wave_end, moe_.own.last)));
    prepare(hidden_forms_, ws.gate, task - before, ws.routing.first[first], ws.routing.first[last], hidden_,
            ws.hidden);
  }

 private:
  int64_t shared_tasks(const Step& step) const {
    return shared_ > 0 ? (step.rows() + kExpertRows - 1) / kExpertRows : 0;
  }
  /// Those of the rows of a task that are in [first, last).
  static void prepare(const InputForms& forms, const std::vector<float>& source, int64_t task, int64_t first,
                      int64_t last, int64_t cols, Activations& out) {
    const int64_t end = std::min((task + 1) * kExpertRows, last);
    for (int64_t n = std::max(task * kExpertRows, first); n < end; ++n)
      prepare_row(forms, source.data() + n * cols, n, cols, out);
  }
};

class PrefillExpertsDownStage final : public MoeStage {
 public:
  PrefillExpertsDownStage(const ModelImpl& model, size_t layer)
      : MoeStage(model, layer),
        tasks_({&moe_.experts.front().down}, model.pool->size(), std::min(ffn_.experts, kTaskExperts), 1) {
    if (shared_ > 0) shared_tasks_ = ExpertTasks({&moe_.shared.down}, model.pool->size(), 1, 1);
  }
  std::string describe() const override {
    return fmt::format("experts down      {}{}", describe_linear(moe_.experts.front().down),
                       shared_text(true));
  }
  int64_t tasks(const Step&) const override {
    return shared_tasks_.per_expert + int64_t{ffn_.experts} * tasks_.per_expert;
  }
  void run(Step& step, int, int64_t task) const override {
    Workspace::Experts& ws = experts(step);
    if (task < shared_tasks_.per_expert) {
      if (ws.first_wave())
        apply_linear(moe_.shared.down, ws.shared_hidden, shared_tasks_.begin(task), shared_tasks_.end(task),
                     0, step.rows(), ws.shared_out.data(), d_);
      return;
    }
    task -= shared_tasks_.per_expert;
    const auto number = static_cast<int32_t>(task / tasks_.per_expert);
    const int64_t first = ws.routing.first[static_cast<size_t>(number)];
    if (ws.routing.count(number) == 0 || !moe_.own.holds(number) || !ws.in_wave(number) || given_up(step))
      return;
    apply_linear(expert(number).down, ws.hidden, tasks_.begin(task), tasks_.end(task), first,
                 first + ws.routing.count(number), ws.out.data(), d_);
  }

 private:
  ExpertTasks tasks_, shared_tasks_;
};

class CombineStage final : public MoeStage {
 public:
  using MoeStage::MoeStage;
  std::string describe() const override { return "sum of experts"; }
  int64_t tasks(const Step& step) const override { return (step.rows() + kExpertRows - 1) / kExpertRows; }
  void run(Step& step, int thread, int64_t task) const override {
    std::vector<float>& sum = mine(step, thread).row;
    grow(sum, d_);
    const Workspace::Experts& ws = experts(step);
    const int64_t end = std::min((task + 1) * kExpertRows, step.rows());
    for (int64_t n = task * kExpertRows; n < end; ++n) {
      std::fill_n(sum.data(), d_, 0.0f);
      if (shared_ > 0)
        add_scaled(sum.data(), ws.factors[static_cast<size_t>(n)], ws.shared_out.data() + n * d_, d_);
      for (int64_t place = n * ffn_.top_k; place < (n + 1) * ffn_.top_k; ++place)
        if (const int64_t pair = ws.routing.place[static_cast<size_t>(place)]; pair >= 0)
          add_scaled(sum.data(), ws.routing.routes[static_cast<size_t>(place)].weight,
                     ws.out.data() + pair * d_, d_);
      deliver(step, n, 0, d_, sum.data());
    }
  }
};

}  // namespace

void add_expert_stages(const ModelImpl& model, size_t layer, bool decode, std::vector<StagePtr>& list) {
  // With other processes decode takes the stages of prefill, too: rows must leave before the shared expert's
  // work.
  if (decode && !model.expert_group) {
    list.push_back(std::make_unique<DecodeRouterStage>(model, layer));
    StagePtr experts = std::make_unique<DecodeExpertsStage>(model, layer);
    if (model.expert_store)
      add_expert_reads(model, layer, std::move(experts), list);
    else
      list.push_back(std::move(experts));
    list.push_back(std::make_unique<DecodeExpertsDownStage>(model, layer));
    return;
  }
  list.push_back(std::make_unique<MoeNormStage>(model, layer));
  list.push_back(std::make_unique<RouteStage>(model, layer));
  list.push_back(std::make_unique<SortRoutesStage>(model, layer));
  if (model.expert_group) add_exchange_send_stages(model, layer, list);
  list.push_back(std::make_unique<GatherExpertsStage>(model, layer));
  const uint32_t waves = model.expert_store ? expert_waves(model, layer) : 1;
  for (uint32_t wave = 0; wave < waves; ++wave) {
    if (model.expert_store) list.push_back(make_expert_wave_stage(model, layer, wave));
    list.push_back(std::make_unique<PrefillExpertsStage>(model, layer));
    list.push_back(std::make_unique<ExpertsHiddenStage>(model, layer));
    list.push_back(std::make_unique<PrefillExpertsDownStage>(model, layer));
  }
  if (model.expert_group) list.push_back(make_exchange_collect_stage(model, layer));
  list.push_back(std::make_unique<CombineStage>(model, layer));
}

void add_served_stages(const ModelImpl& model, size_t layer, std::vector<StagePtr>& list) {
  list.push_back(std::make_unique<PrefillExpertsStage>(model, layer));
  list.push_back(std::make_unique<ExpertsHiddenStage>(model, layer));
  list.push_back(std::make_unique<PrefillExpertsDownStage>(model, layer));
}

}  // namespace mneme
