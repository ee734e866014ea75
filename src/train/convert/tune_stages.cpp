// Stages that train: attention transfer, layer by layer, and distillation of the whole.
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

bool of_mixer(std::string_view group) {
  return group == "gate" || group == "norm" || group == "qk" || group == "v" || group == "o";
}

/// Whether settings.train names a tensor; tensors of layers must belong to one of `layers`.
bool trained(const std::string& name, const std::vector<std::string>& groups,
             const std::vector<uint32_t>& layers) {
  const int64_t layer = tensor_layer(name);
  if (layer >= 0 && std::none_of(layers.begin(), layers.end(), [&](uint32_t l) { return l == layer; }))
    return false;
  const std::string_view group = tensor_group(name);
  return holds(groups, "all") || holds(groups, group) || (holds(groups, "mixer") && of_mixer(group));
}

void merge(NamedTensors& into, const NamedTensors& from, const std::string& prefix = {}) {
  for (const auto& [name, tensor] : from) into.insert_or_assign(prefix + name, tensor);
}

NamedTensors below(const NamedTensors& all, const std::string& prefix) {
  NamedTensors out;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(prefix)) out.emplace(name.substr(prefix.size()), tensor);
  return out;
}

}  // namespace

Tensor ConversionWork::sample() const {
  if (!texts_.held_out.empty()) return texts_.held_out.window(0);
  const auto length = static_cast<uint32_t>(std::min<uint64_t>(recipe_.context, texts_.train->tokens() - 1));
  return texts_.batch(0, 1, length, recipe_.seed).tokens;
}

Json ConversionWork::mixer_errors(const ConvertedModel& model, const std::vector<uint32_t>& layers) const {
  const at::NoGradGuard no_grad;
  Json out = Json::array();
  teach_mixers(
      original_, sample(), layers, {}, [&](uint32_t layer, const Tensor& normed, const Tensor& mixed) {
        out.push_back(
            {{"layer", layer}, {"error", mixer_error(model, layer, normed, mixed, {}).item<double>()}});
      });
  return out;
}

void ConversionWork::solve_outputs(ConvertedModel& model, const std::vector<uint32_t>& group,
                                   const TuneSettings& settings) const {
  std::vector<OutputSolver> solvers;
  std::vector<uint32_t> layers;
  for (const uint32_t layer : group)
    if (OutputSolver::possible(model.config.layers[layer].mixer)) {
      solvers.emplace_back(model, layer);
      layers.push_back(layer);
    }
  const Tick say = tick("solving output projections");
  for (uint64_t i = 0; i < settings.solve; ++i) {
    say(i, settings.solve);
    const auto batch = texts_.batch(i, 1, settings.length, recipe_.seed);
    teach_mixers(original_, batch.tokens, layers, {},
                 [&](uint32_t layer, const Tensor& normed, const Tensor& mixed) {
                   std::find_if(solvers.begin(), solvers.end(), [&](const OutputSolver& s) {
                     return s.layer() == layer;
                   })->add(normed, mixed);
                 });
  }
  const at::NoGradGuard no_grad;
  for (const OutputSolver& solver : solvers)
    model.parameters.at(fmt::format("blk.{}.attn_output.weight", solver.layer()))
        .detach()
        .copy_(solver.solution());
}

void ConversionWork::transfer_group(ConvertedModel& model, const std::vector<uint32_t>& group,
                                    const TuneSettings& settings, Json& inner, const SaveModel& save_model) {
  std::map<uint32_t, Tuner> tuners;
  for (const uint32_t layer : group) tuners.emplace(layer, Tuner(model, {layer}, settings));
  uint64_t step = inner["step"].get<uint64_t>();
  if (step > 0) {
    const NamedTensors moments = below(state_.tensors, "stage.");
    for (auto& [layer, tuner] : tuners) tuner.restore(moments);
  } else if (settings.solve > 0) {
    solve_outputs(model, group, settings);
  }
  PassOptions pass;
  pass.bfloat16 = settings.bfloat16;
  const auto save_all = [&] {
    inner["step"] = step;
    NamedTensors moments;
    for (const auto& [layer, tuner] : tuners) merge(moments, tuner.state());
    save_model(moments);
  };
  while (step < settings.steps) {
    const auto batch =
        texts_.batch(step * settings.sequences, settings.sequences, settings.length, recipe_.seed);
    ++step;
    double sum = 0;
    teach_mixers(original_, batch.tokens, group, pass,
                 [&](uint32_t layer, const Tensor& normed, const Tensor& mixed) {
                   Tuner& tuner = tuners.at(layer);
                   const Tensor error = mixer_error(model, layer, normed, mixed, pass);
                   sum += error.item<double>();
                   tuner.zero_gradients();
                   error.backward();
                   tuner.step(step);
                   tuner.zero_gradients();
                 });
    show(fmt::format("transfer of {} layers", group.size()), step, settings.steps,
         uint64_t{settings.sequences} * settings.length,
         fmt::format("error {:.4f}", sum / static_cast<double>(group.size())));
    const bool stop = stopping();
    if (stop || (step % settings.save_every == 0 && step < settings.steps)) save_all();
    require(!stop, ErrorCode::cancelled,
            "stopped in stage {} after step {} of a transfer; the same command goes on from there",
            state_.stage, step);
  }
}

void ConversionWork::transfer(ConvertedModel& model, const std::vector<uint32_t>& layers,
                              const TuneSettings& settings, Json& inner, const SaveModel& save_model,
                              StageReport& report) {
  make_trainable(model, [&](const std::string& name) {
    return trained(name, settings.train, layers) ||
           (settings.solve > 0 && tensor_group(name) == "o" && trained(name, {"o"}, layers));
  });
  if (inner.is_null())
    inner = {{"first", 0},
             {"step", 0},
             {"errors_before", mixer_errors(model, layers)},
             {"errors_after", Json::array()}};
  const size_t size = settings.at_once == 0 ? layers.size() : settings.at_once;
  for (size_t first = inner["first"].get<size_t>(); first < layers.size(); first += size) {
    const std::vector<uint32_t> group(
        layers.begin() + static_cast<ptrdiff_t>(first),
        layers.begin() + static_cast<ptrdiff_t>(std::min(first + size, layers.size())));
    transfer_group(model, group, settings, inner, save_model);
    for (const Json& error : mixer_errors(model, group)) inner["errors_after"].push_back(error);
    inner["first"] = first + size;
    inner["step"] = 0;
    save_model({});
  }
  report["errors_before"] = inner["errors_before"];
  report["errors_after"] = inner["errors_after"];
  report["tokens"] =
      settings.steps * settings.sequences * settings.length * ((layers.size() + size - 1) / size);
}

void ConversionWork::distill(const std::vector<uint32_t>& layers, const TuneSettings& settings,
                             StageReport& report) {
  Json& inner = state_.inner;
  if (inner.is_null()) inner = {{"step", 0}};
  make_trainable(student_, [&](const std::string& name) { return trained(name, settings.train, layers); });
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
    std::vector<Tensor> of_rows;
    if (rows_learn)
      for (auto& [name, of_layers] : rows)
        for (auto& [layer, touched] : of_layers)
          if (touched.rows.grad().defined()) of_rows.push_back(touched.rows.grad());
    const double scale = tuner.step(step, of_rows);
    if (rows_learn)
      for (auto& [name, of_layers] : rows)
        for (auto& [layer, touched] : of_layers)
          if (touched.rows.grad().defined())
            row_optimisers.at(name).update(student_.tables.at(name).values(), touched.ids,
                                           touched.rows.grad(), tuner.lr(step), scale);
    tuner.zero_gradients();
    show("distillation", step, settings.steps, uint64_t{settings.sequences} * settings.length,
         fmt::format("loss {:.4f}", loss_value));
    const bool stop = stopping();
    if (stop || (step % settings.save_every == 0 && step < settings.steps)) {
      inner["step"] = step;
      NamedTensors all = tuner.state();
      for (const auto& [name, optimiser] : row_optimisers)
        merge(all, optimiser.state(), "rows." + name + ".");
      save(all);
    }
    require(!stop, ErrorCode::cancelled,
            "stopped in stage {} after step {} of a distillation; the same command goes on from there",
            state_.stage, step);
  }
  report["tokens"] = settings.steps * settings.sequences * settings.length;
  report["trained"] = tuner.values();
  report["last_loss"] = loss_value;
}

}  // namespace mneme::train
