#include "train/convert/spike_log.h"

#include "core/fail.h"

namespace mneme::train {

SpikeLog::SpikeLog(const Json& inner, const SpikeSettings& settings, uint64_t steps, uint64_t tokens_of_step)
    : settings_(settings), steps_(steps), tokens_of_step_(tokens_of_step) {
  if (!inner.contains("line")) return;
  try {
    curve_ = inner.at("curve");
    const Json& line = inner.at("line");
    loss_ = line.at("loss").get<double>();
    counted_ = line.at("steps").get<uint64_t>();
    tally_ = SpikeTally::restore(line.at("tally"));
  } catch (const Json::exception&) {
    fail(ErrorCode::corrupt, "the saved state of the conversion holds no curve of spikes");
  }
}

void SpikeLog::add(uint64_t step, double loss) {
  loss_ += loss;
  ++counted_;
  if (step % settings_.log_every != 0 && step != steps_) return;
  const ActivationConfig neuron = settings_.neuron(step, steps_);
  Json line = {{"step", step},
               {"tokens", step * tokens_of_step_},
               {"loss", loss_ / static_cast<double>(counted_)},
               {"k", neuron.k},
               {"dead_zone", neuron.dead_zone}};
  line.update(tally_.report());
  curve_.push_back(std::move(line));
  tally_ = {};
  loss_ = 0;
  counted_ = 0;
}

double SpikeLog::silent() const noexcept {
  if (!tally_.empty() || curve_.empty()) return tally_.silent();
  return curve_.back().value("silent", 0.0);
}

void SpikeLog::store(Json& inner) const {
  inner["curve"] = curve_;
  inner["line"] = {{"loss", loss_}, {"steps", counted_}, {"tally", tally_.state()}};
}

}  // namespace mneme::train
