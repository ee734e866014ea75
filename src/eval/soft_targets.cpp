#include "eval/soft_targets.h"

#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "core/fail.h"
#include "eval/log_softmax.h"
#include "model/model_impl.h"

namespace mneme {

// Calls visit(row, logits) for every position that is kept, rows of a chunk from several threads.
template <class Visit>
void SoftTargets::read(const std::shared_ptr<const Model>& model, const SessionOptions& session,
                       const CancelToken* cancel, Visit visit) const {
  uint64_t row = 0;
  for (const std::vector<TokenId>& window : windows_) {
    Session reader(model, session);
    AppendOptions append;
    append.cancel = cancel;
    const auto kept = std::span(window).last(kept_);
    reader.append(std::span(window).first(window.size() - kept_), append);
    append.all_logits = true;
    append.on_logits = [&](uint64_t first, uint64_t count, const float* logits) {
      model->impl().pool->for_each(static_cast<int64_t>(count), [&](int64_t i) {
        const auto at = static_cast<uint64_t>(i);
        visit(row + first + at, std::span<const float>(logits + at * vocab_, vocab_));
      });
    };
    reader.append(kept, append);
    row += kept_;
  }
}

SoftTargets::SoftTargets(const std::shared_ptr<const Model>& model, std::vector<std::vector<TokenId>> windows,
                         const SessionOptions& session, const CancelToken* cancel)
    : windows_(std::move(windows)), vocab_(model->config().vocab) {
  require(!windows_.empty() && windows_.front().size() >= 2, ErrorCode::invalid_argument,
          "soft targets need a window of two tokens at least");
  const uint64_t most = std::max<uint64_t>(1, kMostBytes / sizeof(float) / vocab_);
  kept_ = std::min<uint64_t>(windows_.front().size() / 2, most);
  windows_.resize(std::clamp<uint64_t>(most / kept_, 1, windows_.size()));
  probabilities_.resize(checked_mul(positions(), vocab_, "soft targets"));
  read(model, session, cancel, [this](uint64_t row, std::span<const float> logits) {
    const double total = log_sum_exp(logits);
    float* out = probabilities_.data() + row * vocab_;
    for (size_t i = 0; i < logits.size(); ++i) out[i] = static_cast<float>(std::exp(logits[i] - total));
  });
}

double SoftTargets::cross_entropy(const std::shared_ptr<const Model>& model, const SessionOptions& session,
                                  const CancelToken* cancel) const {
  require(model->config().vocab == vocab_, ErrorCode::mismatch,
          "the models have vocabularies of {} and {} tokens", vocab_, model->config().vocab);
  std::vector<double> losses(positions());
  read(model, session, cancel, [&](uint64_t row, std::span<const float> logits) {
    const double total = log_sum_exp(logits);
    const float* p = probabilities_.data() + row * vocab_;
    double sum = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      if (p[i] > 0) sum += p[i] * (total - logits[i]);
    losses[row] = sum;
  });
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum / static_cast<double>(losses.size());
}

}  // namespace mneme
