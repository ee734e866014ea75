#include "train/convert/quality.h"

#include <algorithm>
#include <cmath>

#include "core/fail.h"
#include "train/ops/products.h"

namespace mneme::train {
namespace {

constexpr int64_t kPlacesAtATime = 256;  // of logits held at once

Tensor through(const ConvertedModel& model, uint32_t first, Tensor x, const BatchRows& rows,
               const PassContext& context) {
  for (auto i = first; i < model.config.layers.size(); ++i) x = run_layer(model, i, x, rows, context);
  return x;
}

}  // namespace

double Quality::ppl() const {
  return std::exp(nll);
}

HeldOut::HeldOut(std::vector<int64_t> ids, uint32_t context, int64_t bos)
    : ids_(std::move(ids)), context_(context), bos_(bos) {
  require(ids_.size() >= context, ErrorCode::invalid_argument,
          "the held-out text has {} tokens, fewer than one window of {}; give more text or a smaller "
          "data.context",
          ids_.size(), context);
}

uint64_t HeldOut::windows(uint64_t tokens) const noexcept {
  return std::max<uint64_t>(1, std::min<uint64_t>(tokens, ids_.size()) / context_);
}

Tensor HeldOut::window(uint64_t number) const {
  const auto begin = ids_.begin() + static_cast<ptrdiff_t>(number * context_);
  std::vector<int64_t> ids(begin, begin + context_);
  if (bos_ >= 0) ids.front() = bos_;
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

double scored_nll(const ConvertedModel& model, const Tensor& residual, const Tensor& tokens) {
  const at::NoGradGuard no_grad;
  const ModelConfig& config = model.config;
  const int64_t length = tokens.size(1), first = length / 2;
  // The token at position p is predicted at p - 1.
  const Tensor hidden = norm(config, residual.narrow(1, config.sink_tokens + first - 1, length - first),
                             model.parameters.at("output_norm.weight"))
                            .squeeze(0);
  const Tensor targets = tokens.squeeze(0).narrow(0, first, length - first);
  double sum = 0;
  for (int64_t at = 0; at < hidden.size(0); at += kPlacesAtATime) {
    const int64_t count = std::min(kPlacesAtATime, hidden.size(0) - at);
    Tensor logits = product(hidden.narrow(0, at, count), output_head(model), {}, false) * config.logit_scale;
    if (config.logit_softcap > 0) logits = at::tanh(logits / config.logit_softcap) * config.logit_softcap;
    const Tensor chosen = logits.gather(1, targets.narrow(0, at, count).unsqueeze(1)).squeeze(1);
    sum += (at::logsumexp(logits, 1) - chosen).to(at::kDouble).sum().item<double>();
  }
  require(std::isfinite(sum), ErrorCode::corrupt, "the model's loss on the held-out text is not finite");
  return sum;
}

Quality measure(const ConvertedModel& model, const HeldOut& text, uint64_t tokens, const Tick& tick,
                SpikeTally* tally) {
  const at::NoGradGuard no_grad;
  Quality out;
  PassOptions options;
  options.spikes.tally = tally;
  const uint64_t windows = text.windows(tokens);
  for (uint64_t i = 0; i < windows; ++i) {
    tick(i, windows);
    const Tensor ids = text.window(i);
    const PassContext context(model.config, options);
    out.nll += scored_nll(model, through(model, 0, embed_tokens(model, ids), model.rows(ids), context), ids);
    out.tokens += text.context() - text.context() / 2;
  }
  out.nll /= static_cast<double>(out.tokens);
  return out;
}

Sensitivity measure_alone(const ConvertedModel& base, const ConvertedModel& donor,
                          const std::vector<uint32_t>& layers, const HeldOut& text, uint64_t tokens,
                          Json& state, const std::function<void()>& checkpoint, const Tick& tick) {
  const at::NoGradGuard no_grad;
  const uint64_t windows = text.windows(tokens);
  if (state.is_null())
    state = {{"window", 0}, {"base", 0.0}, {"nll", std::vector<double>(layers.size(), 0.0)}};
  auto sums = state["nll"].get<std::vector<double>>();
  require(sums.size() == layers.size(), ErrorCode::corrupt, "the saved measurements are of other layers");
  for (uint64_t w = state["window"].get<uint64_t>(); w < windows; ++w) {
    const Tensor ids = text.window(w);
    const BatchRows rows = base.rows(ids);
    const PassContext context(base.config, {}), other(donor.config, {});
    Tensor x = embed_tokens(base, ids);
    size_t next = 0;
    for (uint32_t i = 0; i < base.config.layers.size(); ++i) {
      if (next < layers.size() && layers[next] == i) {
        tick(w * layers.size() + next, windows * layers.size());
        sums[next] +=
            scored_nll(base, through(base, i + 1, run_layer(donor, i, x, rows, other), rows, context), ids);
        ++next;
      }
      x = run_layer(base, i, x, rows, context);
    }
    state["base"] = state["base"].get<double>() + scored_nll(base, x, ids);
    state["nll"] = sums;
    state["window"] = w + 1;
    checkpoint();
  }
  const uint64_t scored = windows * (text.context() - text.context() / 2);
  const auto mean = [&](double sum) { return Quality{scored, sum / static_cast<double>(scored)}; };
  Sensitivity out{mean(state["base"].get<double>()), {}};
  for (const double sum : sums) out.alone.push_back(mean(sum));
  return out;
}

}  // namespace mneme::train
