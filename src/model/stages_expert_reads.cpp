// Experts that lie on disk (expert_store.h).
//
// Decode: a stage asks for the experts that the routers chose, and while their reads are under way guesses
// what the next layer will choose: its router reads the rows as they are before this layer's experts have
// added to them, which is most of what it will see. The stage of gate and up then works on the experts that
// were in memory first, and each of its tasks waits for the weights it needs, so that reads and products
// overlap.
//
// Prefill: most experts have rows. They are worked on in waves of half the slots, in ascending order; while
// one wave is computed, the next is read.
#include <algorithm>

#include "model/expert_store.h"
#include "model/stage_parts.h"
#include "model/stages.h"

namespace mneme {
namespace {

/// The next layer that has experts: where reads may go ahead.
struct NextExperts {
  size_t layer = 0;
  const MoeWeights* moe = nullptr;  // null: there is none, or nothing is to be read ahead
  NextExperts(const ModelImpl& model, size_t after) {
    if (!model.expert_store->reads_ahead()) return;
    for (layer = after + 1; layer < model.layers.size(); ++layer)
      if (const auto& found = model.layers[layer].moe) {
        moe = &*found;
        return;
      }
  }
};

class WantExpertsStage final : public Stage {
 public:
  WantExpertsStage(const ModelImpl& model, size_t layer, const Stage& experts)
      : model_(model), layer_(layer), next_(model, layer), experts_(experts) {
    waits_for_device = true;
    if (next_.moe == nullptr) return;
    forms_.add(next_.moe->router);
    tasks_ = TileTasks({&next_.moe->router}, model.pool->size(), 2);
  }
  std::string describe() const override {
    const ExpertStatistics now = model_.expert_store->statistics();
    std::string text =
        fmt::format("expert reads      {}, {} of {} in memory", now.placement, now.slots, now.experts);
    if (next_.moe != nullptr) text += fmt::format("; ahead for layer {}", next_.layer);
    return text;
  }
  int64_t tasks(const Step&) const override { return next_.moe != nullptr ? tasks_.count() : 0; }
  void begin(Step& step, int thread) const override {
    experts_.begin(step, thread);
    Workspace::Thread& my = step.workspace.threads[static_cast<size_t>(thread)];
    if (thread == 0) {
      try {
        model_.expert_store->want(layer_, my.routing.used);
      } catch (...) {
        step.workspace.fail(std::current_exception());
      }
    }
    if (next_.moe == nullptr) return;
    const int64_t d = model_.config.d_model;
    size_activations(forms_, step.rows(), d, my.ahead_input, true);
    grow(my.row, d);
    for (int64_t n = 0; n < step.rows(); ++n) {
      rms_norm(step.workspace.x.data() + n * d, model_.layers[next_.layer].ffn_norm.data(),
               static_cast<float>(model_.config.norm.eps), d, my.row.data());
      prepare_row(forms_, my.row.data(), n, d, my.ahead_input);
    }
  }
  void run(Step& step, int thread, int64_t task) const override {
    const auto range = tasks_.range(task);
    apply_linear(next_.moe->router, step.workspace.threads[static_cast<size_t>(thread)].ahead_input,
                 range.begin, range.end, 0, step.rows(), step.workspace.experts.ahead_scores.data(),
                 model_.config.layers[next_.layer].ffn.choices());
  }

 private:
  const ModelImpl& model_;
  const size_t layer_;
  const NextExperts next_;
  const Stage& experts_;
  TileTasks tasks_;
  InputForms forms_;
};

// The stage of gate and up, after those of its experts that are there have been put first.
class ReadExpertsStage final : public Stage {
 public:
  ReadExpertsStage(const ModelImpl& model, size_t layer, StagePtr experts)
      : model_(model), experts_(std::move(experts)), next_(model, layer) {
    waits_for_device = true;
  }
  const Stage& experts() const { return *experts_; }
  std::string describe() const override { return experts_->describe(); }
  int64_t tasks(const Step& step) const override { return experts_->tasks(step); }
  void begin(Step& step, int thread) const override {
    Workspace::Thread& my = step.workspace.threads[static_cast<size_t>(thread)];
    const std::vector<int32_t>& order = model_.expert_store->order();
    if (order.size() == my.routing.used.size()) my.routing.used = order;
    if (thread == 0 && next_.moe != nullptr) guess(step, my);
  }
  void run(Step& step, int thread, int64_t task) const override { experts_->run(step, thread, task); }

 private:
  // Reads what the next layer's router chose of the rows as they are now.
  void guess(Step& step, Workspace::Thread& my) const {
    const FfnConfig& ffn = model_.config.layers[next_.layer].ffn;
    const std::vector<float>& bias = next_.moe->selection_bias;
    my.ahead_routes.resize(ffn.top_k);
    my.ahead.clear();
    for (int64_t n = 0; n < step.rows(); ++n) {
      choose_experts(ffn, step.workspace.experts.ahead_scores.data() + n * ffn.choices(),
                     bias.empty() ? nullptr : bias.data(), my.router, my.ahead_routes.data());
      for (const Route& route : my.ahead_routes)
        if (route.expert >= 0 && route.expert < static_cast<int32_t>(ffn.experts))
          my.ahead.push_back(route.expert);
    }
    try {
      model_.expert_store->ahead(next_.layer, my.ahead);
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }

  const ModelImpl& model_;
  const StagePtr experts_;
  const NextExperts next_;
};

uint32_t experts_a_wave(const ModelImpl& model, size_t layer) {
  const uint32_t slots = model.expert_store->slots(), experts = model.config.layers[layer].ffn.experts;
  return slots >= 2 * experts ? experts : std::max(1u, slots / 2);
}

class ExpertWaveStage final : public Stage {
 public:
  ExpertWaveStage(const ModelImpl& model, size_t layer, uint32_t wave)
      : model_(model), layer_(layer), first_(wave == 0), most_(experts_a_wave(model, layer)) {
    waits_for_device = true;
  }
  std::string describe() const override {
    return fmt::format("expert reads      {}, at most {}", model_.expert_store->statistics().placement,
                       most_);
  }
  int64_t tasks(const Step&) const override { return 0; }
  void begin(Step& step, int thread) const override {
    if (thread != 0) return;
    Workspace::Experts& ws = step.workspace.experts;
    const std::vector<int32_t>& used = ws.routing.used;
    const auto begin = first_ ? used.begin() : std::lower_bound(used.begin(), used.end(), ws.wave_end);
    const auto end = begin + std::min<ptrdiff_t>(used.end() - begin, most_);
    const auto after = end + std::min<ptrdiff_t>(used.end() - end, most_);
    ws.wave_begin = first_ ? 0 : ws.wave_end;
    ws.wave_end = static_cast<int32_t>(model_.config.layers[layer_].ffn.experts);
    if (end != used.end()) ws.wave_end = *end;
    try {
      model_.expert_store->want(layer_, {begin, end}, first_);
      model_.expert_store->ahead(layer_, {end, after});
    } catch (...) {
      step.workspace.fail(std::current_exception());
    }
  }
  void run(Step&, int, int64_t) const override {}

 private:
  const ModelImpl& model_;
  const size_t layer_;
  const bool first_;
  const uint32_t most_;
};

}  // namespace

void add_expert_reads(const ModelImpl& model, size_t layer, StagePtr experts, std::vector<StagePtr>& list) {
  auto reading = std::make_unique<ReadExpertsStage>(model, layer, std::move(experts));
  list.push_back(std::make_unique<WantExpertsStage>(model, layer, reading->experts()));
  list.push_back(std::move(reading));
}

uint32_t expert_waves(const ModelImpl& model, size_t layer) {
  const uint32_t most = experts_a_wave(model, layer);
  return (model.config.layers[layer].ffn.experts + most - 1) / most;
}

StagePtr make_expert_wave_stage(const ModelImpl& model, size_t layer, uint32_t wave) {
  return std::make_unique<ExpertWaveStage>(model, layer, wave);
}

int64_t most_expert_rows(const ModelImpl& model) {
  int64_t rows = kMaxDecodeRows;
  for (const ExpertLayout::Layer& layer : model.expert_store->layout().layers)
    if (layer.experts > model.expert_store->slots())
      rows = std::min<int64_t>(rows, model.expert_store->slots() / layer.top_k);
  return rows;
}

}  // namespace mneme
