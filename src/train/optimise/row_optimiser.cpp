#include "train/optimise/row_optimiser.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "train/optimise/huge_tensor.h"
#include "train/optimise/update_kernels.h"

namespace mneme::train {
namespace {

constexpr int64_t kGrain = 256;          // rows: too little work for a thread of its own below that
constexpr int64_t kAhead = 6;            // rows whose memory is asked for before they are needed
constexpr int64_t kLine = 16;            // f32 values in a cache line
constexpr float kMostTouched = 1 << 24;  // f32 counts no further; no correction is left by then

void prefetch_row(const float* row, int64_t n) {
  for (int64_t i = 0; i < n; i += kLine) __builtin_prefetch(row + i, 1, 1);
}

/// 1 - beta^n for n = 0 .. as far as it differs from 1 in f32, at most 65,536 entries.
std::vector<float> corrections(double beta) {
  std::vector<float> out{0};
  double power = 1;
  while (out.size() < 65536 && out.back() < 1) {
    power *= beta;
    out.push_back(static_cast<float>(1 - power));
  }
  return out;
}

float correction(const std::vector<float>& table, double beta, int64_t n) {
  if (n < static_cast<int64_t>(table.size())) return table[static_cast<size_t>(n)];
  return table.back() == 1 ? 1.0f : static_cast<float>(1 - std::pow(beta, static_cast<double>(n)));
}

}  // namespace

RowOptimiser::RowOptimiser(const RowOptimiserConfig& config, uint64_t rows, uint32_t head_dim)
    : config_(config), rows_(static_cast<int64_t>(rows)), head_dim_(head_dim) {
  if (config.type == RowOptimiserConfig::Type::scalar) {
    second_ = huge_zeros({rows_});
    return;
  }
  use_records(huge_zeros({rows_, (2 * head_dim_ + kLine) / kLine * kLine}));
}

void RowOptimiser::use_records(Tensor records) {
  records_ = std::move(records);
  first_ = records_.narrow(1, 0, head_dim_);
  second_ = records_.narrow(1, head_dim_, head_dim_);
  touched_ = records_.select(1, 2 * head_dim_);
}

void RowOptimiser::check(const Tensor& values, const Tensor& ids, const Tensor& gradients) const {
  require(values.dim() == 2 && values.size(0) == rows_ && values.size(1) == head_dim_ &&
              values.scalar_type() == at::kFloat,
          ErrorCode::invalid_argument, "row optimiser: the table must be f32 [{}, {}]", rows_, head_dim_);
  require(ids.dim() == 1 && ids.scalar_type() == at::kLong && gradients.dim() == 2 &&
              gradients.size(0) == ids.size(0) && gradients.size(1) == head_dim_ &&
              gradients.scalar_type() == at::kFloat,
          ErrorCode::invalid_argument, "row optimiser: ids int64 [n] and gradients f32 [n, {}] are wanted",
          head_dim_);
  if (ids.numel() == 0) return;
  require(ids.min().item<int64_t>() >= 0 && ids.max().item<int64_t>() < rows_, ErrorCode::invalid_argument,
          "row optimiser: a row id lies outside the table of {} rows", rows_);
}

void RowOptimiser::update(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr,
                          double gradient_scale) {
  const at::NoGradGuard no_graph;
  check(values, ids, gradients);
  if (ids.numel() == 0) return;
  lr *= config_.lr_scale;
  if (!values.device().is_cpu() || !values.is_contiguous())
    return update_elsewhere(values, ids, gradients, lr, gradient_scale);
  if (config_.type == RowOptimiserConfig::Type::adam)
    update_adam(values, ids.contiguous(), gradients.contiguous(), lr, gradient_scale);
  else
    update_scalar(values, ids.contiguous(), gradients.contiguous(), lr, gradient_scale);
}

void RowOptimiser::update_adam(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr,
                               double scale) {
  const std::vector<float> first_table = corrections(config_.betas[0]),
                           second_table = corrections(config_.betas[1]);
  AdamStep common;
  common.scale = static_cast<float>(scale);
  common.keep1 = static_cast<float>(config_.betas[0]);
  common.keep2 = static_cast<float>(config_.betas[1]);
  common.eps = static_cast<float>(config_.eps);
  float *const p = values.data_ptr<float>(), *const records = records_.data_ptr<float>();
  const float* const g = gradients.data_ptr<float>();
  const int64_t* const id = ids.data_ptr<int64_t>();
  const int64_t n = head_dim_, width = records_.size(1);
  at::parallel_for(0, ids.size(0), kGrain, [&](int64_t begin, int64_t end) {
    AdamStep step = common;
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        const int64_t next = id[i + kAhead];
        prefetch_row(p + next * n, n);
        prefetch_row(records + next * width, width);
      }
      const int64_t row = id[i];
      float* const record = records + row * width;
      float& touched = record[2 * n];
      touched = std::min(touched + 1, kMostTouched);
      const auto count = static_cast<int64_t>(touched);
      step.rate = static_cast<float>(lr) / correction(first_table, config_.betas[0], count);
      step.root = 1.0f / std::sqrt(correction(second_table, config_.betas[1], count));
      adam_update(p + row * n, g + i * n, record, record + n, step, n);
    }
  });
}

void RowOptimiser::update_scalar(const Tensor& values, const Tensor& ids, const Tensor& gradients, double lr,
                                 double scale) {
  float *const p = values.data_ptr<float>(), *const s = second_.data_ptr<float>();
  const float* const g = gradients.data_ptr<float>();
  const int64_t* const id = ids.data_ptr<int64_t>();
  const int64_t n = head_dim_;
  const double keep = config_.betas[1];
  at::parallel_for(0, ids.size(0), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        __builtin_prefetch(s + id[i + kAhead], 1, 1);
        prefetch_row(p + id[i + kAhead] * n, n);
      }
      const int64_t row = id[i];
      const double mean = sum_of_squares(g + i * n, n) * scale * scale / static_cast<double>(n);
      const double square = s[row] == 0 ? mean : keep * static_cast<double>(s[row]) + (1 - keep) * mean;
      s[row] = static_cast<float>(square);
      const double factor = -lr * scale / (std::sqrt(square) + config_.eps);
      if (square > 0) add_scaled(p + row * n, g + i * n, static_cast<float>(factor), n);
    }
  });
}

void RowOptimiser::update_elsewhere(const Tensor& values, const Tensor& ids, const Tensor& gradients,
                                    double lr, double scale) {
  const auto home = values.device();
  if (second_.device() != home) {
    if (records_.defined())
      use_records(records_.to(home));
    else
      second_ = second_.to(home);
  }
  const Tensor rows = ids.to(home), g = gradients.to(home) * scale;
  const double keep1 = config_.betas[0], keep2 = config_.betas[1];
  const Tensor old = second_.index_select(0, rows);
  if (config_.type == RowOptimiserConfig::Type::scalar) {
    const Tensor mean = g.square().mean(1);
    const Tensor square = at::where(old == 0, mean, old * keep2 + mean * (1 - keep2));
    second_.index_copy_(0, rows, square);
    values.index_add_(0, rows, g / (square.sqrt() + config_.eps).unsqueeze(1) * -lr);
    return;
  }
  const Tensor count = (touched_.index_select(0, rows) + 1).clamp_max(kMostTouched);
  const Tensor first = first_.index_select(0, rows) * keep1 + g * (1 - keep1);
  const Tensor second = old * keep2 + g.square() * (1 - keep2);
  touched_.index_copy_(0, rows, count);
  first_.index_copy_(0, rows, first);
  second_.index_copy_(0, rows, second);
  const Tensor t = count.to(at::kDouble).unsqueeze(1);
  const Tensor rate = (lr / (1 - at::pow(keep1, t))).to(at::kFloat);
  const Tensor root = (1 / at::sqrt(1 - at::pow(keep2, t))).to(at::kFloat);
  values.index_add_(0, rows, -(first * rate / (second.sqrt() * root + config_.eps)));
}

NamedTensors RowOptimiser::state() const {
  if (config_.type == RowOptimiserConfig::Type::scalar) return {{"s", second_}};
  return {{"m", first_}, {"v", second_}, {"touched", touched_}};
}

void RowOptimiser::restore(const NamedTensors& saved) {
  const at::NoGradGuard no_graph;
  for (auto& [name, tensor] : state()) {
    const auto found = saved.find(name);
    require(found != saved.end() && found->second.sizes() == tensor.sizes(), ErrorCode::mismatch,
            "the state of the row optimiser has no tensor \"{}\" of {} rows", name, rows_);
    tensor.copy_(found->second);
  }
}

}  // namespace mneme::train
