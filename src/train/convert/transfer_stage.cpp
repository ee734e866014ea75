// Attention transfer, layer by layer: every layer learns alone what the original's mixer gives for what it
// reads, from one pass of the original that all layers follow, or from what such a pass left on disk.
#include <algorithm>

#include "core/fail.h"
#include "train/convert/activations.h"
#include "train/convert/lessons.h"
#include "train/convert/stages.h"
#include "train/convert/tuner.h"
#include "train/data/data_order.h"

namespace mneme::train {
namespace {

std::string output_name(uint32_t layer) {
  return fmt::format("blk.{}.attn_output.weight", layer);
}

void set_output(const ConvertedModel& model, const OutputSolver& solver) {
  const at::NoGradGuard no_grad;
  model.parameters.at(output_name(solver.layer())).detach().copy_(solver.solution());
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
  for (const OutputSolver& solver : solvers) set_output(model, solver);
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

// One pass of the original over all of the text; `inner` counts the sequences.
void ConversionWork::capture(Activations& to, const std::vector<uint32_t>& group,
                             const TuneSettings& settings, Json& inner) {
  const uint64_t sequences = settings.steps * settings.sequences;
  PassOptions pass;
  pass.bfloat16 = settings.bfloat16;
  if (!to.reopened()) inner["captured"] = 0;
  for (uint64_t i = inner.value("captured", uint64_t{0}); i < sequences;) {
    const auto batch = texts_.batch(i, 1, settings.length, recipe_.seed);
    teach_mixers(
        original_, batch.tokens, group, pass,
        [&](uint32_t layer, const Tensor& normed, const Tensor& mixed) { to.put(layer, i, normed, mixed); });
    ++i;
    show(fmt::format("the original's activations in {} layers", group.size()), i, sequences, settings.length);
    const bool stop = stopping();
    if (stop || i % 32 == 0 || i == sequences) {
      to.sync();
      inner["captured"] = i;
      save_numbers();
    }
    require(!stop, ErrorCode::cancelled,
            "stopped in stage {} after {} sequences of activations; the same command goes on from there",
            state_.stage, i);
  }
}

// One layer, several times over the captured text, in another order each time.
void ConversionWork::fit(ConvertedModel& model, uint32_t layer, const Activations& from,
                         const TuneSettings& settings, Json& inner, const SaveModel& save_model) {
  TuneSettings all = settings;
  all.steps = settings.steps * settings.passes;
  Tuner tuner(model, {layer}, all);
  uint64_t step = inner["step"].get<uint64_t>();
  if (step > 0) {
    tuner.restore(below(state_.tensors, "stage."));
  } else if (settings.solve > 0 && OutputSolver::possible(model.config.layers[layer].mixer)) {
    OutputSolver solver(model, layer);
    for (uint64_t i = 0; i < std::min(settings.solve, settings.steps * settings.sequences); ++i) {
      const auto [normed, mixed] = from.get(layer, i);
      solver.add(normed, mixed);
    }
    set_output(model, solver);
  }
  PassOptions pass;
  pass.bfloat16 = settings.bfloat16;
  while (step < all.steps) {
    const Permutation order(settings.steps * settings.sequences,
                            recipe_.seed * 1000003 + step / settings.steps);
    std::vector<Tensor> normed, mixed;
    for (uint64_t i = 0; i < settings.sequences; ++i) {
      auto [in, out] = from.get(layer, order(step % settings.steps * settings.sequences + i));
      normed.push_back(std::move(in)), mixed.push_back(std::move(out));
    }
    ++step;
    const Tensor error = mixer_error(model, layer, at::cat(normed), at::cat(mixed), pass);
    tuner.zero_gradients();
    error.backward();
    tuner.step(step);
    tuner.zero_gradients();
    show(fmt::format("transfer of layer {}", layer), step, all.steps,
         uint64_t{settings.sequences} * settings.length, fmt::format("error {:.4f}", error.item<double>()));
    const bool stop = stopping();
    if (stop || (step % settings.save_every == 0 && step < all.steps)) {
      inner["step"] = step;
      save_model(tuner.state());
    }
    require(!stop, ErrorCode::cancelled,
            "stopped in stage {} after step {} of the transfer of layer {}; the same command goes on from "
            "there",
            state_.stage, step, layer);
  }
}

void ConversionWork::fit_group(ConvertedModel& model, const std::vector<uint32_t>& group,
                               const TuneSettings& settings, Json& inner, const SaveModel& save_model) {
  if (inner.value("fitted", size_t{0}) == group.size()) {  // stopped just after the last one
    std::error_code error;
    fs::remove_all(folder_.path() / "activations", error);
    return;
  }
  Activations store(folder_.path() / "activations", group, settings.steps * settings.sequences,
                    original_.config.sink_tokens + settings.length, original_.config.d_model);
  capture(store, group, settings, inner);
  for (size_t i = inner.value("fitted", size_t{0}); i < group.size(); ++i) {
    fit(model, group[i], store, settings, inner, save_model);
    inner["fitted"] = i + 1;
    inner["step"] = 0;
    save_model({});
  }
  store.remove();
}

void ConversionWork::transfer(ConvertedModel& model, const std::vector<uint32_t>& layers,
                              const TuneSettings& settings, Json& inner, const SaveModel& save_model,
                              StageReport& report) {
  make_trainable(model, [&](const std::string& name) {
    return is_trained(name, settings.train, layers) ||
           (settings.solve > 0 && tensor_group(name) == "o" && is_trained(name, {"o"}, layers));
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
    if (settings.passes > 1)
      fit_group(model, group, settings, inner, save_model);
    else
      transfer_group(model, group, settings, inner, save_model);
    for (const Json& error : mixer_errors(model, group)) inner["errors_after"].push_back(error);
    inner["first"] = first + size;
    for (const char* counter : {"step", "captured", "fitted"}) inner[counter] = 0;
    save_model({});
  }
  report["errors_before"] = inner["errors_before"];
  report["errors_after"] = inner["errors_after"];
  report["tokens"] =
      settings.steps * settings.sequences * settings.length * ((layers.size() + size - 1) / size);
  report["passes"] = settings.passes;
}

}  // namespace mneme::train
