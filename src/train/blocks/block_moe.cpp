// A mixture of experts: y = sum of weight_i * expert_i(x) over the routes of a token, plus the shared expert.
// The choice is the engine's own code on the same f32 scores and no part of the gradient; the weights are, so
// that the router learns through the experts that it chose.
//
// Tokens are sorted by expert and gathered, so that every expert multiplies its own once; their outputs go
// back by a second gather: every token has top_k places, each of which names the row of its output (or a row
// of zeros). So nothing is scattered, and sums have a fixed order.
#include "core/fail.h"
#include "model/router.h"
#include "train/blocks/blocks.h"
#include "train/ops/products.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Hands `x` on, and adds a scalar to the loss in gradients alone.
class Paying : public torch::autograd::Function<Paying> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& price) {
    ctx->saved_data["price"] = price.detach();
    return x.clone();
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {grads[0], at::ones_like(ctx->saved_data["price"].toTensor())};
  }
};

/// The pairs (token, place) that reach an expert, sorted by expert.
struct Groups {
  std::vector<int32_t> experts;  // those that have a pair
  std::vector<int64_t> counts;   // parallel to it
  Tensor rows;                   // int64 [pairs]: of x
  Tensor place;                  // int64 [rows, top_k]: the pair of a place, or `pairs` for none
};

Groups groups_of(const FfnConfig& ffn, const Tensor& chosen) {
  const Tensor ids = chosen.to(at::kCPU).contiguous();
  Routing sorted;
  sorted.reserve(ids.size(0), ffn);
  for (int64_t i = 0; i < ids.numel(); ++i)
    sorted.routes[static_cast<size_t>(i)] = {static_cast<int32_t>(ids.data_ptr<int64_t>()[i]), 0};
  sorted.sort(ids.size(0), ffn);
  const int64_t pairs = sorted.pairs();
  Groups out;
  out.experts = sorted.used;
  for (const int32_t expert : sorted.used) out.counts.push_back(sorted.count(expert));
  out.rows = at::tensor(at::ArrayRef<int64_t>(sorted.rows.data(), static_cast<size_t>(pairs)), at::kLong)
                 .to(chosen.device());
  const Tensor place =
      at::tensor(at::ArrayRef<int64_t>(sorted.place.data(), static_cast<size_t>(ids.numel())), at::kLong)
          .view(ids.sizes());
  out.place = at::where(place.ge(0), place, at::full_like(place, pairs)).to(chosen.device());
  return out;
}

/// Throws unless every score of the router is a finite number.
void require_finite_router(const Tensor& logits, const PassContext& context, int64_t positions) {
  const Tensor bad = at::isfinite(logits).logical_not();
  if (!bad.any().item<bool>()) return;
  const int64_t at = bad.flatten().nonzero()[0].item<int64_t>(), row = at / logits.size(1);
  fail(ErrorCode::corrupt,
       "layer {}: the router's score of expert {} is {} in sequence {} at position {}; the weights or the "
       "values that reach this layer are broken",
       context.layer(), at % logits.size(1), logits.flatten()[at].item<double>(), row / positions,
       row % positions);
}

/// What all rows choose: int64 [rows, top_k].
Tensor choose_for_all(const FfnConfig& ffn, const Tensor& logits, const Tensor& bias) {
  const Tensor scores = logits.detach().to(at::kCPU, at::kFloat).contiguous();
  const Tensor biases = bias.defined() ? bias.detach().to(at::kCPU, at::kFloat).contiguous() : Tensor();
  const int64_t choices = scores.size(1), places = ffn.top_k;
  const Tensor out = at::empty({scores.size(0), places}, at::kLong);
  at::parallel_for(0, scores.size(0), 64, [&](int64_t begin, int64_t end) {
    RouterScratch scratch;
    std::vector<Route> routes(ffn.top_k);
    for (int64_t row = begin; row < end; ++row) {
      choose_experts(ffn, scores.data_ptr<float>() + row * choices,
                     biases.defined() ? biases.data_ptr<float>() : nullptr, scratch, routes.data());
      for (int64_t place = 0; place < places; ++place)
        out.data_ptr<int64_t>()[row * places + place] = routes[static_cast<size_t>(place)].expert;
    }
  });
  return out.to(logits.device());
}

/// Chosen, recorded or forced: int64 [rows, top_k].
Tensor routes_of_pass(const FfnConfig& ffn, const Tensor& logits, const Tensor& bias, const Tensor& x,
                      const PassContext& context) {
  const std::vector<int64_t> shape{x.size(0), x.size(1), int64_t{ffn.top_k}};
  Tensor chosen;
  if (const Choices* forced = context.options().forced) {
    const auto found = forced->experts.find(context.layer());
    require(found != forced->experts.end() && found->second.sizes().vec() == shape,
            ErrorCode::invalid_argument,
            "there are no forced choices for the experts of layer {} of this batch", context.layer());
    chosen = found->second.flatten(0, 1);
  } else {
    chosen = choose_for_all(ffn, logits, bias);
  }
  if (Choices* record = context.options().record) record->experts[context.layer()] = chosen.view(shape);
  return chosen;
}

/// The weights of routes, differentiable in scores [rows, choices]: [rows, top_k], 0 where there is no
/// expert.
Tensor route_weights(const FfnConfig& ffn, const Tensor& scores, const Tensor& chosen) {
  const Tensor real = chosen.ge(0).logical_and(chosen.lt(int64_t{ffn.experts})).to(scores.scalar_type());
  Tensor out = scores.gather(1, chosen.clamp_min(0)) * real;
  if (ffn.renormalise) {
    const Tensor sum = out.sum(1, true);
    out = out / at::where(sum.gt(0), sum, at::ones_like(sum));
  }
  return ffn.scale == 1 ? out : out * ffn.scale;
}

Tensor expert(const FfnConfig& ffn, const Weights& weights, const std::string& which, const Tensor& x,
              double share) {
  const Tensor gate = weights.linear("ffn_gate" + which, x, share),
               up = weights.linear("ffn_up" + which, x, share);
  return weights.linear("ffn_down" + which, activated(ffn.act, gate, up), share);
}

/// x [rows, d_model], weight [rows, top_k].
Tensor routed_experts(const FfnConfig& ffn, const Weights& weights, const Tensor& x, const Tensor& weight,
                      const Groups& groups) {
  std::vector<Tensor> outputs;
  if (!groups.experts.empty()) {
    const std::vector<Tensor> inputs = at::embedding(x, groups.rows).split_with_sizes(groups.counts);
    for (size_t i = 0; i < inputs.size(); ++i)
      outputs.push_back(expert(ffn, weights, fmt::format(".{}", groups.experts[i]), inputs[i],
                               static_cast<double>(groups.counts[i]) / static_cast<double>(x.size(0))));
  }
  outputs.push_back(at::zeros({1, x.size(1)}, x.options()));
  const Tensor picked = at::embedding(at::cat(outputs), groups.place);
  return (picked * weight.unsqueeze(-1)).sum(1);
}

}  // namespace

Tensor mixture_of_experts(const FfnConfig& ffn, const Weights& weights, const Tensor& x,
                          const PassContext& context) {
  const Tensor rows = x.flatten(0, 1);
  const Tensor logits = product(rows, weights["ffn_gate_inp.weight"], {}, false);
  require_finite_router(logits, context, x.size(1));
  const Tensor bias = ffn.selection_bias ? weights["exp_probs_b.bias"] : Tensor();
  const Tensor chosen = routes_of_pass(ffn, logits, bias, x, context);
  Tensor scores = ffn.router == RouterScore::softmax ? at::softmax(logits, 1) : at::sigmoid(logits);
  const ExpertOptions& options = context.options().experts;
  if (options.tally) options.tally->add(context.layer(), chosen, scores, x.size(1), context.sink_tokens());
  if ((options.balance > 0 || options.entropy > 0) && at::GradMode::is_enabled() && logits.requires_grad())
    scores = Paying::apply(scores, routing_price(ffn, scores, chosen, options));
  Tensor out = routed_experts(ffn, weights, rows, route_weights(ffn, scores, chosen), groups_of(ffn, chosen));
  if (ffn.shared > 0) {
    Tensor shared = expert(ffn, weights, "_shexp", rows, 1.0);
    if (ffn.shared_gate)
      shared = shared * at::sigmoid(at::matmul(rows, weights["ffn_gate_inp_shexp.weight"])).unsqueeze(-1);
    out = out + shared;
  }
  return out.view_as(x);
}

}  // namespace mneme::train
