// Distillation of the whole model on logits, with the learning curve on held-out text if the recipe wants it.
#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "train/convert/lessons.h"
#include "train/convert/stages.h"
#include "train/convert/tuner.h"
#include "train/optimise/row_optimiser.h"

namespace mneme::train {
namespace {

bool holds(const std::vector<std::string>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

void ConversionWork::distill(const std::vector<uint32_t>& layers, const TuneSettings& settings,
                             StageReport& report) {
  Json& inner = state_.inner;
  if (inner.is_null()) inner = {{"step", 0}};
  make_trainable(student_, [&](const std::string& name) { return is_trained(name, settings.train, layers); });
  const bool rows_learn = holds(settings.train, "all") || holds(settings.train, "engram");
  Tuner tuner(student_, {}, settings);
  std::map<std::string, RowOptimiser> row_optimisers;
  for (auto& [name, table] : student_.tables) {
    if (!rows_learn) continue;
    table = RowTable(table.values().clone());
    row_optimisers.emplace(name, RowOptimiser({}, table.rows(), table.head_dim()));
  }
  require(!tuner.empty() || !row_optimisers.empty(), ErrorCode::invalid_argument,
          "stages[{}].train names no tensor of the model", state_.stage);
  uint64_t step = inner["step"].get<uint64_t>();
  if (step > 0) {
    tuner.restore(below(state_.tensors, "stage."));
    for (auto& [name, rows] : row_optimisers) rows.restore(below(state_.tensors, "stage.rows." + name + "."));
  }
  PassOptions pass;
  pass.bfloat16 = settings.bfloat16;
  PassOptions student_pass = pass;
  student_pass.checkpoint_layers = settings.checkpoint_layers;
  const Decoder teacher(original_.config, original_.parameters),
      student(student_.config, student_.parameters);
  double loss_value = 0;
  const auto save_all = [&] {
    inner["step"] = step;
    NamedTensors all = tuner.state();
    for (const auto& [name, optimiser] : row_optimisers) merge(all, optimiser.state(), "rows." + name + ".");
    save(all);
  };
  const uint64_t tokens_of_step = uint64_t{settings.sequences} * settings.length;
  while (step < settings.steps) {
    const auto batch =
        texts_.batch(step * settings.sequences, settings.sequences, settings.length, recipe_.seed);
    ++step;
    Tensor wanted;
    {
      const at::NoGradGuard no_grad;
      wanted = teacher.hidden(batch.tokens, original_.rows(batch.tokens), pass);
    }
    BatchRows rows = student_.rows(batch.tokens);
    if (!rows_learn)
      for (auto& [name, of_layers] : rows)
        for (auto& [layer, touched] : of_layers) touched.rows.requires_grad_(false);
    const Tensor hidden = student.hidden(batch.tokens, rows, student_pass);
    const Tensor loss = distillation_loss(hidden.flatten(0, 1), head_of(student_), wanted.flatten(0, 1),
                                          head_of(original_), batch.targets.flatten(), settings.temperature,
                                          settings.cross_entropy, settings.bfloat16);
    loss_value = loss.item<double>();
    require(std::isfinite(loss_value), ErrorCode::corrupt,
            "the loss became infinite at step {} of stages[{}]; a smaller lr or clip helps, and what is "
            "saved goes on from before",
            step, state_.stage);
    tuner.zero_gradients();
    loss.backward();
    // Layers that share a layer_id share their rows: each has one gradient.
    std::vector<Tensor> of_rows;
    if (rows_learn)
      for_leaves(rows, [&](const std::string&, const TouchedRows& touched) {
        if (touched.rows.grad().defined()) of_rows.push_back(touched.rows.grad());
      });
    const double scale = tuner.step(step, of_rows);
    if (rows_learn)
      for_leaves(rows, [&](const std::string& name, const TouchedRows& touched) {
        if (touched.rows.grad().defined())
          row_optimisers.at(name).update(student_.tables.at(name).values(), touched.ids, touched.rows.grad(),
                                         tuner.lr(step), scale);
      });
    tuner.zero_gradients();
    show("distillation", step, settings.steps, tokens_of_step, fmt::format("loss {:.4f}", loss_value));
    if (settings.measure_every > 0 && step % settings.measure_every == 0) {
      const Quality now =
          measure(student_, texts_.held_out, settings.measure_tokens, [](uint64_t, uint64_t) {});
      inner["quality"].push_back({{"tokens", step * tokens_of_step}, {"ppl", now.ppl()}});
    }
    const bool stop = stopping();
    if (stop || (step % settings.save_every == 0 && step < settings.steps)) save_all();
    require(!stop, ErrorCode::cancelled,
            "stopped in stage {} after step {} of a distillation; the same command goes on from there",
            state_.stage, step);
  }
  report["tokens"] = settings.steps * tokens_of_step;
  if (settings.measure_every > 0) report["quality"] = inner.value("quality", Json::array());
  report["trained"] = tuner.values();
  report["last_loss"] = loss_value;
}

}  // namespace mneme::train
