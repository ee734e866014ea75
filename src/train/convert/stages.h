// The work of a conversion: the model as it is, the texts, and the stages that change it. conversion.cpp
// strings them together; choosing layers, transfer and distillation are files of their own.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memory/token_map.h"
#include "train/convert/activations.h"
#include "train/convert/conversion.h"
#include "train/convert/state.h"
#include "train/convert/texts.h"

namespace mneme::train {

/// What a stage has to say, for its report.
using StageReport = Json;

class ConversionWork {
 public:
  ConversionWork(const ConversionOptions& options, ConvertedModel original,
                 std::shared_ptr<const Tokenizer> tokenizer, StateFolder& folder);

  /// Runs what is left and returns the summary, as convert_model() does.
  Json run();
  /// Takes up what was saved last and returns the summary of that.
  Json saved();
  const ConvertedModel& model() const noexcept { return student_; }

 private:
  using Clock = std::chrono::steady_clock;
  const ConversionOptions& options_;
  const Recipe& recipe_;
  ConvertedModel original_, student_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<const TokenMap> map_;
  ConversionTexts texts_;
  StateFolder& folder_;
  SavedState state_;
  Clock::time_point since_ = Clock::now();  // of the seconds that the state does not count yet

  // conversion.cpp
  void open_models();
  void open();
  Json summary() const;
  void run_stage(size_t number);
  void report_quality(Json& report, const char* field);
  void restore(const SavedState& saved);
  ConvertedModel model_from(const ModelConfig& config, const NamedTensors& tensors,
                            const std::string& prefix) const;
  void collect(const ConvertedModel& model, const std::string& prefix, NamedTensors& out) const;
  void save(const NamedTensors& stage);
  void save_numbers();
  void count_seconds();
  bool stopping() const { return options_.stop && options_.stop(); }
  void show(const std::string& what, uint64_t done, uint64_t of, uint64_t tokens = 0,
            const std::string& figures = {}) const;
  Tick tick(const std::string& what) const;
  uint64_t stage_seed() const { return recipe_.seed * 1000 + state_.stage; }

  // swap_stages.cpp: stages that change what layers are
  void swap(const Stage& stage, const std::vector<uint32_t>& layers, StageReport& report);
  void choose(const Stage& stage, const std::vector<uint32_t>& candidates, StageReport& report);
  ConvertedModel draft_of(const Stage& stage, const std::vector<uint32_t>& layers) const;
  void calibrate_norms(ConvertedModel& model, const std::vector<uint32_t>& layers) const;
  void add_memory(const Stage& stage, const std::vector<uint32_t>& layers);
  void upcycle(const Stage& stage, StageReport& report);

  // transfer_stage.cpp, distill_stage.cpp: stages that train
  using SaveModel = std::function<void(const NamedTensors& moments)>;
  void transfer(ConvertedModel& model, const std::vector<uint32_t>& layers, const TuneSettings& settings,
                Json& inner, const SaveModel& save_model, StageReport& report);
  void transfer_group(ConvertedModel& model, const std::vector<uint32_t>& group, const TuneSettings& settings,
                      Json& inner, const SaveModel& save_model);
  void capture(Activations& to, const std::vector<uint32_t>& group, const TuneSettings& settings,
               Json& inner);
  void fit(ConvertedModel& model, uint32_t layer, const Activations& from, const TuneSettings& settings,
           Json& inner, const SaveModel& save_model);
  void fit_group(ConvertedModel& model, const std::vector<uint32_t>& group, const TuneSettings& settings,
                 Json& inner, const SaveModel& save_model);
  void solve_outputs(ConvertedModel& model, const std::vector<uint32_t>& group,
                     const TuneSettings& settings) const;
  Json mixer_errors(const ConvertedModel& model, const std::vector<uint32_t>& layers) const;
  /// `spikes`: not null in a spike stage.
  void distill(const std::vector<uint32_t>& layers, const TuneSettings& settings, const SpikeSettings* spikes,
               StageReport& report);
  void measure_untrained(const std::vector<uint32_t>& layers, const SpikeSettings& spikes);
  Tensor sample() const;
};

}  // namespace mneme::train
