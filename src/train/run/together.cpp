#include "train/run/together.h"

#include <span>

#include "core/checksum.h"
#include "core/fail.h"

namespace mneme::train {

std::string run_identity(const RunConfig& run) {
  Json fields = run.to_json();
  for (const char* const field : {"tokenizer", "threads", "device", "out"}) fields.erase(field);
  for (const char* const field : {"train", "validation"}) fields["data"].erase(field);
  if (!run.model) fields.erase("model");
  const std::string text = fields.dump(-1, ' ', false, Json::error_handler_t::replace);
  return fmt::format("config {:016x}", xxh3(std::as_bytes(std::span(text))));
}

void require_same(const std::string& text, const char* what, ProcessGroup& group) {
  if (group.size() == 1) return;
  const auto mine = static_cast<int64_t>(xxh3(std::as_bytes(std::span(text))));
  std::vector<Tensor> parts(group.size(), at::full({1}, mine, at::kLong));
  parts = group.all_to_all(parts);
  for (uint32_t rank = 1; rank < group.size(); ++rank)
    require(parts[rank].item<int64_t>() == parts[0].item<int64_t>(), ErrorCode::mismatch,
            "{} of process {} is not that of process 0; all processes must read the same files", what, rank);
}

void copy_from_first(Training& training, RunState& state, ProcessGroup& group) {
  if (group.size() == 1) return;
  std::vector<Tensor> values;
  for (const std::string& name : training.parameters.names())
    values.push_back(training.parameters.at(name).detach());
  group.broadcast(values);
  values.clear();
  const NamedTensors moments = training.optimiser->state();
  for (const auto& [name, tensor] : moments) values.push_back(tensor);
  group.broadcast(values);
  const Tensor counts =
      at::tensor({static_cast<int64_t>(state.step), static_cast<int64_t>(state.sequence),
                  static_cast<int64_t>(state.validations_without_gain), static_cast<int64_t>(state.log_bytes),
                  static_cast<int64_t>(training.optimiser->steps())},
                 at::kLong);
  const Tensor numbers = at::tensor({state.best_validation, state.seconds}, at::kDouble);
  group.broadcast(counts);
  group.broadcast(numbers);
  const auto* count = counts.data_ptr<int64_t>();
  state.step = static_cast<uint64_t>(count[0]);
  state.sequence = static_cast<uint64_t>(count[1]);
  state.validations_without_gain = static_cast<uint32_t>(count[2]);
  state.log_bytes = static_cast<uint64_t>(count[3]);
  state.best_validation = numbers.data_ptr<double>()[0];
  state.seconds = numbers.data_ptr<double>()[1];
  training.optimiser->restore(moments, static_cast<uint64_t>(count[4]));
}

}  // namespace mneme::train
