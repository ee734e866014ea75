// Distillation of the whole model on logits, with the learning curve on held-out text if the recipe wants it;
// and the spike stage, which is a distillation into neurons that come to fire less while it lasts.
#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "model/tensor_names.h"
#include "train/convert/lessons.h"
#include "train/convert/spike_log.h"
#include "train/convert/stages.h"
#include "train/convert/tuner.h"
#include "train/ops/fused.h"
#include "train/optimise/row_optimiser.h"

namespace mneme::train {
namespace {

bool holds(const std::vector<std::string>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

constexpr uint64_t kReportedSteps = 20;  // last steps whose routing a stage reports

/// The loss of what a student says of a batch; a scalar with a gradient. The original is asked only where its
/// opinion counts.
Tensor lesson(const ConvertedModel& original, const Decoder& teacher, const ConvertedModel& student,
              const Tensor& hidden, const ConversionTexts::Batch& batch, const TuneSettings& settings) {
  const Head head = head_of(student);
  if (settings.cross_entropy == 1)
    return cross_entropy(hidden.flatten(0, 1), head.weight, batch.targets.flatten(), head.scale, head.cap,
                         settings.bfloat16);
  Tensor wanted;
  {
    const at::NoGradGuard no_grad;
    PassOptions pass;
    pass.bfloat16 = settings.bfloat16;
    wanted = teacher.hidden(batch.tokens, original.rows(batch.tokens), pass);
  }
  return distillation_loss(hidden.flatten(0, 1), head, wanted.flatten(0, 1), head_of(original),
                           batch.targets.flatten(), settings.temperature, settings.cross_entropy,
                           settings.bfloat16);
}

/// The rows of a model's memories while they learn, or do not.
class RowLearners {
 public:
  RowLearners(ConvertedModel& model, bool learn) : model_(model), learn_(learn) {
    for (auto& [name, table] : model.tables) {
      if (!learn) continue;
      table = RowTable(table.values().clone());
      optimisers_.emplace(name, RowOptimiser({}, table.rows(), table.head_dim()));
    }
  }
  bool empty() const noexcept { return optimisers_.empty(); }
  void restore(const NamedTensors& saved) {
    for (auto& [name, rows] : optimisers_) rows.restore(below(saved, "stage.rows." + name + "."));
  }
  void add_state(NamedTensors& all) const {
    for (const auto& [name, optimiser] : optimisers_) merge(all, optimiser.state(), "rows." + name + ".");
  }
  /// The rows that a batch reads.
  BatchRows touch(const Tensor& tokens) const {
    BatchRows out = model_.rows(tokens);
    if (!learn_)
      for (auto& [name, of_layers] : out)
        for (auto& [layer, touched] : of_layers) touched.rows.requires_grad_(false);
    return out;
  }
  /// Layers that share a layer_id share their rows: each has one gradient.
  std::vector<Tensor> gradients(const BatchRows& rows) const {
    std::vector<Tensor> out;
    if (learn_)
      for_leaves(rows, [&](const std::string&, const TouchedRows& touched) {
        if (touched.rows.grad().defined()) out.push_back(touched.rows.grad());
      });
    return out;
  }
  void update(const BatchRows& rows, double lr, double scale) {
    if (!learn_) return;
    for_leaves(rows, [&](const std::string& name, const TouchedRows& touched) {
      if (touched.rows.grad().defined())
        optimisers_.at(name).update(model_.tables.at(name).values(), touched.ids, touched.rows.grad(), lr,
                                    scale);
    });
  }

 private:
  ConvertedModel& model_;
  const bool learn_;
  std::map<std::string, RowOptimiser> optimisers_;
};

/// How far the experts of a model are from each other: the mean over layers and matrices of the deviation
/// from their mean, in parts of its size. 0 right after an upcycling without shared training.
double expert_spread(const ConvertedModel& model) {
  const at::NoGradGuard no_grad;
  double sum = 0;
  uint64_t matrices = 0;
  for (size_t i = 0; i < model.config.layers.size(); ++i) {
    const FfnConfig& ffn = model.config.layers[i].ffn;
    for (const char* part : {"gate", "up", "down"}) {
      if (!ffn.moe()) continue;
      std::vector<Tensor> all;
      for (uint32_t e = 0; e < ffn.experts; ++e)
        all.push_back(model.parameters.at(expert_tensor_name(fmt::format("blk.{}.", i), part, e)));
      const Tensor stack = at::stack(all), mean = stack.mean(0, true);
      sum += ((stack - mean).square().mean() / mean.square().mean().clamp_min(1e-30)).sqrt().item<double>();
      ++matrices;
    }
  }
  return matrices > 0 ? sum / static_cast<double>(matrices) : 0;
}

PassOptions student_pass(const TuneSettings& settings, const SpikeSettings* spikes, SpikeTally* tally) {
  PassOptions out;
  out.bfloat16 = settings.bfloat16;
  out.checkpoint_layers = settings.checkpoint_layers;
  if (spikes) out.spikes = {spikes->penalty, spikes->width, tally};
  out.experts = {settings.experts.balance, settings.experts.entropy, settings.experts.null_share, nullptr};
  return out;
}

}  // namespace

/// What the last neuron does to a model that has not learned to live with it: the report's "untrained".
void ConversionWork::measure_untrained(const std::vector<uint32_t>& layers, const SpikeSettings& spikes) {
  if (texts_.held_out.empty()) return;
  ConvertedModel model = student_;
  set_neurons(model.config, spikes, layers, spikes.last());
  SpikeTally tally;
  const Quality quality =
      measure(model, texts_.held_out, recipe_.tokens, tick("measuring spikes before training"), &tally);
  state_.inner["untrained"] = {{"ppl", quality.ppl()}, {"activity", tally.report()}};
}

void ConversionWork::distill(const std::vector<uint32_t>& layers, const TuneSettings& settings,
                             const SpikeSettings* spikes, StageReport& report) {
  Json& inner = state_.inner;
  if (inner.is_null()) {
    inner = {{"step", 0}};
    if (spikes) measure_untrained(layers, *spikes);
  }
  make_trainable(student_, [&](const std::string& name) { return is_trained(name, settings.train, layers); });
  Tuner tuner(student_, {}, settings);
  RowLearners row_learners(student_, holds(settings.train, "all") || holds(settings.train, "engram"));
  require(!tuner.empty() || !row_learners.empty(), ErrorCode::invalid_argument,
          "stages[{}].train names no tensor of the model", state_.stage);
  uint64_t step = inner["step"].get<uint64_t>();
  if (step > 0) {
    tuner.restore(below(state_.tensors, "stage."));
    row_learners.restore(state_.tensors);
  }
  const Decoder teacher(original_.config, original_.parameters);
  const uint64_t tokens_of_step = uint64_t{settings.sequences} * settings.length;
  std::optional<SpikeLog> log;
  if (spikes) log.emplace(inner, *spikes, settings.steps, tokens_of_step);
  PassOptions pass = student_pass(settings, spikes, log ? &log->tally() : nullptr);
  ExpertTally chosen(student_.config);
  if (inner.contains("routes")) {
    const auto counted = inner["routes"].get<std::vector<double>>();
    chosen.restore(at::tensor(at::ArrayRef<double>(counted), at::kDouble));
  }
  const bool trains_routers = holds(settings.train, "all") || holds(settings.train, "router");
  ActivationConfig neuron;         // of the student, from its first step on
  std::optional<Decoder> student;  // made again when its neurons change
  double loss_value = inner.value("loss", 0.0);
  const auto save_all = [&] {
    inner["step"] = step;
    inner["loss"] = loss_value;
    if (log) log->store(inner);
    if (!chosen.none()) {
      const Tensor counted = chosen.numbers();
      inner["routes"] =
          std::vector<double>(counted.data_ptr<double>(), counted.data_ptr<double>() + counted.numel());
    }
    NamedTensors all = tuner.state();
    row_learners.add_state(all);
    save(all);
  };
  while (step < settings.steps) {
    const auto batch =
        texts_.batch(step * settings.sequences, settings.sequences, settings.length, recipe_.seed);
    ++step;
    if (spikes && neuron != spikes->neuron(step, settings.steps)) {
      neuron = spikes->neuron(step, settings.steps);
      set_neurons(student_.config, *spikes, layers, neuron);
      student.reset();
    }
    if (!student) student.emplace(student_.config, student_.parameters);
    ExpertTally of_step(student_.config);
    pass.experts.tally = of_step.none() ? nullptr : &of_step;
    const BatchRows rows = row_learners.touch(batch.tokens);
    const Tensor hidden = student->hidden(batch.tokens, rows, pass);
    const Tensor loss = lesson(original_, teacher, student_, hidden, batch, settings);
    loss_value = loss.item<double>();
    require(std::isfinite(loss_value), ErrorCode::corrupt,
            "the loss became infinite at step {} of stages[{}]; a smaller lr or clip helps, and what is "
            "saved goes on from before",
            step, state_.stage);
    tuner.zero_gradients();
    loss.backward();
    const double scale = tuner.step(step, row_learners.gradients(rows));
    row_learners.update(rows, tuner.lr(step), scale);
    tuner.zero_gradients();
    if (trains_routers) balance_biases(student_.config, student_.parameters, of_step, settings.experts);
    if (step > settings.steps - std::min<uint64_t>(settings.steps, kReportedSteps)) chosen.add(of_step);
    if (log) log->add(step, loss_value);
    show(spikes ? "spikes" : "distillation", step, settings.steps, tokens_of_step,
         fmt::format("loss {:.4f}", loss_value) +
             (log ? fmt::format(", silent {:.1f} %", 100 * log->silent()) : "") +
             (of_step.none() ? ""
                             : fmt::format(", experts {:.2f}, CV {:.2f}, {} starved", of_step.mean_active(),
                                           of_step.variation(), of_step.starved())));
    if (settings.measure_every > 0 && step % settings.measure_every == 0) {
      const Quality now =
          measure(student_, texts_.held_out, settings.measure_tokens, [](uint64_t, uint64_t) {});
      inner["quality"].push_back({{"tokens", step * tokens_of_step}, {"ppl", now.ppl()}});
    }
    const bool stop = stopping();
    if (stop || (step % settings.save_every == 0 && step < settings.steps)) save_all();
    require(!stop, ErrorCode::cancelled,
            "stopped in stage {} after step {} of a {}; the same command goes on from there", state_.stage,
            step, spikes ? "spike stage" : "distillation");
  }
  report["tokens"] = settings.steps * tokens_of_step;
  if (settings.measure_every > 0) report["quality"] = inner.value("quality", Json::array());
  report["trained"] = tuner.values();
  report["last_loss"] = loss_value;
  if (!chosen.none()) report["experts"] = {{"layers", chosen.report()}, {"spread", expert_spread(student_)}};
  if (!spikes || !log) return;
  set_neurons(student_.config, *spikes, layers, spikes->last());
  report["neuron"] = {{"k", spikes->k}, {"dead_zone", spikes->dead_zone}};
  report["curve"] = log->curve();
  if (inner.contains("untrained")) report["untrained"] = inner["untrained"];
}

}  // namespace mneme::train
