// Stages that change what layers are: windows, recurrences, two branches, memories; and the choice of the
// layers that can best do without attention.
#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "memory/engram_hash.h"
#include "model/tensor_names.h"
#include "train/convert/lessons.h"
#include "train/convert/stages.h"

namespace mneme::train {
namespace {

const char* kDraft = "draft.";

Json by_layer(const std::vector<uint32_t>& layers, const std::vector<Quality>& qualities) {
  Json out = Json::array();
  for (size_t i = 0; i < layers.size(); ++i)
    out.push_back({{"layer", layers[i]}, {"ppl", qualities[i].ppl()}});
  return out;
}

/// Places of `qualities` from the smallest loss on; equal ones by place.
std::vector<size_t> ranking(const std::vector<Quality>& qualities) {
  std::vector<size_t> out(qualities.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = i;
  std::stable_sort(out.begin(), out.end(),
                   [&](size_t a, size_t b) { return qualities[a].nll < qualities[b].nll; });
  return out;
}

std::vector<uint32_t> without(const std::vector<uint32_t>& layers, const std::vector<uint32_t>& taken) {
  std::vector<uint32_t> out;
  for (const uint32_t layer : layers)
    if (std::find(taken.begin(), taken.end(), layer) == taken.end()) out.push_back(layer);
  return out;
}

}  // namespace

ConvertedModel ConversionWork::draft_of(const Stage& stage, const std::vector<uint32_t>& layers) const {
  const ModelConfig config = converted_config(student_.config, original_.config, stage, state_.stage, layers,
                                              map_ ? map_->classes() : 0);
  ConvertedModel out = with_config(student_, config, stage_seed());
  if (stage.rope_decay) replace(out, rope_gates(student_.config, config, layers));
  calibrate_norms(out, layers);
  return out;
}

// The norms behind the branches of a parallel mixer forget how large the old mixer's outputs were; they start
// at its root mean square, on some text if there is any.
void ConversionWork::calibrate_norms(ConvertedModel& model, const std::vector<uint32_t>& layers) const {
  std::vector<uint32_t> parallel;
  for (const uint32_t layer : layers)
    if (model.config.layers[layer].mixer.type == MixerType::parallel) parallel.push_back(layer);
  if (parallel.empty() || (!texts_.train && texts_.held_out.empty())) return;
  NamedTensors norms;
  teach_mixers(student_, sample(), parallel, {}, [&](uint32_t layer, const Tensor&, const Tensor& mixed) {
    const double size = mixed.square().mean().sqrt().item<double>();
    for (const char* branch : {"mix0_norm", "mix1_norm"}) {
      const std::string name = fmt::format("blk.{}.{}.weight", layer, branch);
      norms.emplace(
          name, at::full_like(model.parameters.at(name).detach(), size - model.config.norm.weight_offset));
    }
  });
  replace(model, norms);
}

void ConversionWork::swap(const Stage& stage, const std::vector<uint32_t>& layers, StageReport& report) {
  student_ = draft_of(stage, layers);
  report["layers"] = layers;
}

void ConversionWork::choose(const Stage& stage, const std::vector<uint32_t>& candidates,
                            StageReport& report) {
  const LayerChoice& choice = stage.layers;
  Json& inner = state_.inner;
  if (inner.is_null())
    inner = {{"before", nullptr},
             {"transfer", nullptr},
             {"after", nullptr},
             {"chosen", Json::array()},
             {"curve", Json::array()}};
  ConvertedModel draft = draft_of(stage, candidates);
  if (std::any_of(state_.tensors.begin(), state_.tensors.end(),
                  [](const auto& t) { return t.first.starts_with(std::string("stage.") + kDraft); }))
    draft = model_from(draft.config, state_.tensors, std::string("stage.") + kDraft);
  const auto checkpoint = [this] { save_numbers(); };
  const auto measured = [&](Json& at, const ConvertedModel& base, const std::vector<uint32_t>& layers,
                            const char* what) {
    return measure_alone(base, draft, layers, texts_.held_out, choice.tokens, at, checkpoint, tick(what));
  };
  Sensitivity scores;
  if (choice.untrained || !choice.transfer) {
    // Where it is finished already, it is read from `inner`, and the draft is no longer that one.
    scores = measured(inner["before"], student_, candidates, "measuring each layer");
    report["alone"] = by_layer(candidates, scores.alone);
  }
  if (choice.transfer) {
    Json details;
    transfer(
        draft, candidates, *choice.transfer, inner["transfer"],
        [&](const NamedTensors& moments) {
          NamedTensors all = moments;
          collect(draft, kDraft, all);
          save(all);
        },
        details);
    report["transfer"] = details;
    scores = measured(inner["after"], student_, candidates, "measuring each layer after transfer");
    report["alone_after_transfer"] = by_layer(candidates, scores.alone);
  }
  report["ppl_of_none"] = scores.base.ppl();
  auto chosen = inner["chosen"].get<std::vector<uint32_t>>();
  auto curve = inner["curve"].get<std::vector<double>>();
  const std::vector<size_t> ranks = ranking(scores.alone);
  while (chosen.size() < std::max(choice.choose, choice.curve)) {
    if (choice.greedy && !chosen.empty()) {
      const std::vector<uint32_t> rest = without(candidates, chosen);
      const Sensitivity again =
          measured(inner["round"], with_mixers_of(student_, draft, chosen), rest, "measuring the rest again");
      const size_t best = ranking(again.alone).front();
      chosen.push_back(rest[best]);
      curve.push_back(again.alone[best].ppl());
      inner["round"] = nullptr;
    } else {
      chosen.push_back(candidates[ranks[chosen.size()]]);
      if (chosen.size() <= choice.curve)
        curve.push_back(measure(with_mixers_of(student_, draft, chosen), texts_.held_out, choice.tokens,
                                tick("measuring the curve"))
                            .ppl());
    }
    inner["chosen"] = chosen;
    inner["curve"] = curve;
    save_numbers();
  }
  report["order"] = chosen;
  report["curve"] = curve;
  chosen.resize(choice.choose);
  student_ = with_mixers_of(student_, draft, chosen);
  std::sort(chosen.begin(), chosen.end());
  report["layers"] = chosen;
}

void ConversionWork::add_memory(const Stage& stage, const std::vector<uint32_t>& layers) {
  const ModelConfig config = converted_config(student_.config, original_.config, stage, state_.stage, layers,
                                              map_ ? map_->classes() : 0);
  ConvertedModel out = with_config(student_, config, stage_seed());
  NamedTensors values;
  for (const uint32_t layer : layers) {
    const std::string stem = fmt::format("blk.{}.engram_v", layer);
    for (const char* end : {".weight", ".bias"})
      if (out.parameters.has(stem + end) && (stage.zero_values || end == std::string(".bias")))
        values.emplace(stem + end, at::zeros_like(out.parameters.at(stem + end).detach()));
  }
  replace(out, values);
  for (const auto& [name, table] : config.tables) {
    if (out.tables.contains(name)) continue;
    EngramIds ids(table, table.raw_ids ? nullptr : map_);
    out.tables.emplace(name, RowTable(ids.hash().rows(), table.head_dim, stage_seed(),
                                      stage.zero_values ? stage.deviation : 0.0));
    out.ids.emplace(name, std::move(ids));
  }
  student_ = std::move(out);
}

// Experts that begin as copies of the dense layer; which of them a token reaches is all that tells them apart
// when they start to learn.
void ConversionWork::upcycle(const Stage& stage, StageReport& report) {
  const ModelConfig config = upcycled_config(student_.config, stage.upcycle);
  ConvertedModel out{config, {}, student_.tables, student_.ids};
  at::Generator generator = at::detail::createCPUGenerator(stage_seed());
  for (const ExpectedTensor& expected : expected_tensors(config)) {
    if (student_.parameters.has(expected.name)) {
      out.parameters.add(expected.name, student_.parameters.at(expected.name));
      continue;
    }
    const UpcycleOrigin from = upcycle_origin(expected.name, stage.upcycle);
    if (from.name.empty()) {
      const std::vector<int64_t> shape(expected.shape.begin(), expected.shape.end());
      out.parameters.add(expected.name, at::normal(0.0, stage.upcycle.router_deviation, shape, generator));
      continue;
    }
    const Tensor one = student_.parameters.at(from.name).detach() * from.factor;
    out.parameters.add(expected.name, at::cat(std::vector<Tensor>(from.copies, one), from.columns ? 1 : 0));
  }
  Json layers = Json::array();
  for (size_t i = 0; i < config.layers.size(); ++i)
    if (config.layers[i].ffn.moe() && !student_.config.layers[i].ffn.moe()) layers.push_back(i);
  student_ = std::move(out);
  report["layers"] = layers;
  report["experts"] = stage.upcycle.experts;
  report["shared"] = stage.upcycle.shared;
  report["top_k"] = stage.upcycle.top_k;
  report["factor"] = upcycle_factor(stage.upcycle);
}

}  // namespace mneme::train
