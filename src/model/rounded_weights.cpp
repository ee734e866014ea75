#include "model/rounded_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/fail.h"
#include "files/printable.h"
#include "model/gla_swa.h"
#include "simd/blocks.h"
#include "simd/code_residuals.h"

namespace mneme {
namespace {

void check_shape(const TensorInfo& weight, const TensorInfo& scales) {
  const bool matrix = weight.shape.size() == 2 && weight.shape[1] % kScaleGroup == 0;
  require(matrix, ErrorCode::mismatch,
          "tensor {} of [{}] has scales, but its inputs are not a multiple of the {} that share one",
          printable(weight.name), fmt::join(weight.shape, ", "), kScaleGroup);
  const std::vector<uint64_t> expected{weight.shape[0], weight.shape[1] / kScaleGroup, 1};
  require(scales.shape == expected, ErrorCode::mismatch,
          "tensor {} has shape [{}], but its weights ask for [{}]", printable(scales.name),
          fmt::join(scales.shape, ", "), fmt::join(expected, ", "));
}

/// x to a whole number, ties to even: a sum of this size has no bits for a fraction. Of |x| from 2^22 on,
/// only about, which is beyond all codes anyway. Unlike nearbyint() it is arithmetic of vectors on every
/// processor, and loading a model rounds billions of weights.
float rounded_to_whole(float x) {
  constexpr float kNoFraction = 0x1.8p23f;
  return std::copysign((x + kNoFraction) - kNoFraction, x);
}

/// Rounds a group to multiples of `step`; returns the largest |code|, NaN if one is.
float round_group(float* group, float step) {
  int32_t most = 0;  // bits of floats without sign: ordered as the floats are, and NaN above all
  for (int64_t i = 0; i < kScaleGroup; ++i) {
    const float code = rounded_to_whole(group[i] / step);
    most = std::max(most, std::bit_cast<int32_t>(std::abs(code)));
    group[i] = code * step;
  }
  return std::bit_cast<float>(most);
}

}  // namespace

bool has_weight_scales(const TensorSource& tensors) {
  for (const TensorInfo& tensor : tensors.tensors())
    if (!gla_swa_scales_name(tensor.name).empty() &&
        tensors.find(gla_swa_scales_name(tensor.name)) != nullptr)
      return true;
  return false;
}

RoundedWeights::RoundedWeights(std::unique_ptr<TensorSource> file)
    : file_(std::move(file)), infos_(file_->tensors()) {
  for (TensorInfo& info : infos_) {
    by_name_.emplace(info.name, &info);
    const std::string name = gla_swa_scales_name(info.name);
    if (name.empty()) continue;
    const TensorInfo* scales = file_->find(name);
    require(scales != nullptr, ErrorCode::mismatch,
            "tensor {} is missing; the checkpoint has scales for other projections", printable(name));
    check_shape(info, *scales);
    scales_.emplace(info.name, scales);
    info.type = DType::f32;
    info.bytes = info.values() * sizeof(float);
  }
}

const TensorInfo* RoundedWeights::scales_of(const TensorInfo& weight) const {
  const auto found = scales_.find(weight.name);
  return found == scales_.end() ? nullptr : found->second;
}

const TensorInfo* RoundedWeights::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

Bytes RoundedWeights::data(const TensorInfo& tensor) const {
  const TensorInfo& raw = *file_->find(tensor.name);
  const TensorInfo* scales = scales_of(tensor);
  if (scales == nullptr) return file_->data(raw);
  // Rounded under the lock: readers take one tensor after the other, and of two that wanted the same one the
  // second would read what the first has just released.
  const std::lock_guard lock(mutex_);
  auto found = values_.find(tensor.name);
  if (found == values_.end()) {
    found = values_.emplace(tensor.name, rounded(raw, *scales)).first;
    file_->release(raw);
  }
  return std::as_bytes(std::span(found->second));
}

void RoundedWeights::release(const TensorInfo& tensor) const {
  const std::lock_guard lock(mutex_);
  if (values_.erase(tensor.name) == 0) file_->release(*file_->find(tensor.name));
}

std::vector<float> RoundedWeights::rounded(const TensorInfo& weight, const TensorInfo& scales) const {
  std::vector<float> values(weight.values()), steps(scales.values());
  dequantize_row(weight.type, file_->data(weight).data(), values.data(), values.size());
  dequantize_row(scales.type, file_->data(scales).data(), steps.data(), steps.size());
  for (size_t g = 0; g < steps.size(); ++g) {
    const float step = steps[g];
    require(std::isfinite(step) && step > 0, ErrorCode::corrupt,
            "tensor {} holds the scale {}, but scales are numbers above 0", printable(scales.name), step);
    const float most = round_group(values.data() + g * size_t{kScaleGroup}, step);
    if (!(most <= kMostCode))  // or NaN
      fail(ErrorCode::corrupt, "tensor {} holds a weight that is {} of its scales; {} are the most",
           printable(weight.name), most > kMostCode ? fmt::format("{:g}", most) : "not a number", kMostCode);
  }
  return values;
}

}  // namespace mneme
