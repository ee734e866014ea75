// An Engram module (arXiv 2601.07372, section 2): the rows of a token as a key and a value, a gate between
// key and residual stream, and optionally a short convolution. Its gradient reaches the rows, where
// duplicates add up.
#include <cmath>

#include "core/fail.h"
#include "train/blocks/blocks.h"
#include "train/ops/fused.h"

namespace mneme::train {
namespace {

/// sigmoid(f(g)) [batch, length, 1]. The gradient of f is 0 where |g| is below 1e-6: there f is constant on
/// either side, and its jump at 0 has none.
Tensor gate(const EngramModuleConfig& module, const Tensor& g) {
  if (!module.signed_sqrt) return at::sigmoid(g);
  const Tensor root = at::sqrt(at::clamp_min(at::abs(g), 1e-6));
  const Tensor fixed = g.detach();
  const Tensor sign = module.sign0 == EngramModuleConfig::SignOfZero::zero
                          ? at::sign(fixed)
                          : at::copysign(at::ones_like(fixed), fixed);
  return at::sigmoid(root * sign);
}

/// The depthwise causal convolution: sum over taps j of weight[:, j] x[t - (kernel - 1 - j) dilation].
Tensor convolution(const EngramConvConfig& conv, const Tensor& x, const Tensor& weight) {
  const int64_t length = x.size(1), kernel = conv.kernel;
  const Tensor padded = at::constant_pad_nd(x, {0, 0, (kernel - 1) * int64_t{conv.dilation}, 0});
  Tensor sum;
  for (int64_t j = 0; j < kernel; ++j) {
    const Tensor tap = padded.narrow(1, j * conv.dilation, length) * weight.select(1, j);
    sum = sum.defined() ? sum + tap : tap;
  }
  return sum;
}

}  // namespace

Tensor engram(const ModelConfig& config, const EngramModuleConfig& module, const Weights& weights,
              const Tensor& x, const TouchedRows& rows) {
  const EngramTableConfig& table = config.tables.at(module.table);
  require(rows.where.dim() == 3 && rows.where.size(0) == x.size(0) && rows.where.size(1) == x.size(1) &&
              rows.where.size(2) == table.rows_per_token() && rows.rows.size(1) == table.head_dim,
          ErrorCode::invalid_argument,
          "the rows of table \"{}\" are not those of this batch: [{}, {}, {}] of {} values are wanted",
          module.table, x.size(0), x.size(1), table.rows_per_token(), table.head_dim);
  const Tensor e = at::embedding(rows.rows, rows.where).flatten(2);
  const double offset = module.norm_offset;
  const Tensor key =
      rms_norm(weights.linear("engram_k", e), weights["engram_k_norm.weight"], module.eps, offset);
  const Tensor query = rms_norm(x, weights["engram_q_norm.weight"], module.eps, offset);
  const Tensor g = (key * query).sum(-1, true) / std::sqrt(static_cast<double>(x.size(2)));
  Tensor alpha = gate(module, g);
  if (rows.silent.defined()) alpha = alpha.masked_fill(rows.silent.unsqueeze(-1), 0);
  const Tensor u = alpha * weights.linear("engram_v", e);
  if (!module.conv) return u;
  const Tensor normed = rms_norm(u, weights["engram_conv_norm.weight"], module.conv->eps, offset);
  return u + at::silu(convolution(*module.conv, normed, weights["engram_conv.weight"]));
}

}  // namespace mneme::train
