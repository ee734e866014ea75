#include "train/blocks/softmax_attention.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "core/fail.h"
#include "train/ops/fused_kernels.h"
#include "train/ops/products.h"

namespace mneme::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// The queries [begin, end) and the keys they can see: [0, head) and [tail, tail_end).
struct Chunk {
  int64_t begin, end, head, tail, tail_end;
  int64_t rows() const { return end - begin; }
  int64_t keys() const { return head + tail_end - tail; }
};

/// q, k, v with batch and kv heads as one dimension.
struct Problem {
  Tensor q, k, v;  // [n, group, positions, dim]; [n, positions, dim]
  Tensor sink;     // [kv_heads, group] or undefined
  Visibility visible;
  AttentionOptions options;
  int64_t n, group, positions, dim, kv_heads;

  Problem(const Tensor& q5, const Tensor& k4, const Tensor& v4, Tensor sink_logits, Visibility what,
          const AttentionOptions& how)
      : q(q5.flatten(0, 1)),
        k(k4.flatten(0, 1)),
        v(v4.flatten(0, 1)),
        sink(std::move(sink_logits)),
        visible(std::move(what)),
        options(how),
        n(q.size(0)),
        group(q.size(1)),
        positions(q.size(2)),
        dim(q.size(3)),
        kv_heads(q5.size(1)) {
    if (sink.defined()) sink = sink.view({kv_heads, group});
  }

  std::vector<Chunk> chunks() const {
    // Wide chunks make large products; narrow ones waste less on the corners of a band.
    const int64_t step = visible.window > 0 && visible.window <= 128 ? 64 : 128;
    std::vector<Chunk> out;
    for (int64_t begin = 0; begin < positions; begin += step) {
      const int64_t end = std::min(begin + step, positions);
      // Sink tokens see all of their like, also those behind them.
      const int64_t last = begin < visible.sink_tokens ? std::max(end, visible.sink_tokens) : end;
      const int64_t first = visible.window > 0 ? std::max<int64_t>(0, begin + 1 - visible.window) : 0;
      out.push_back({begin, end, std::min(visible.sinks, first), first, std::min(last, positions)});
    }
    return out;
  }

  Tensor keys_of(const Tensor& x, const Chunk& chunk) const {
    const Tensor tail = x.narrow(1, chunk.tail, chunk.tail_end - chunk.tail);
    return chunk.head == 0 ? tail : at::cat({x.narrow(1, 0, chunk.head), tail}, 1);
  }
  Tensor queries_of(const Tensor& x, const Chunk& chunk) const {
    return x.narrow(2, chunk.begin, chunk.rows()).reshape({n, group * chunk.rows(), dim});
  }

  Tensor multiply(const Tensor& a, const Tensor& b) const { return batched_product(a, b, options.bfloat16); }

  /// Which of the chunk's keys from number `from` on its queries see: bool, to be broadcast to [batch,
  /// kv_heads, group, rows, keys].
  Tensor visible_in(const Chunk& chunk, int64_t from) const {
    const auto index = at::TensorOptions().dtype(at::kLong).device(q.device());
    const Tensor i = at::arange(chunk.begin, chunk.end, index).unsqueeze(1);
    const Tensor j = at::cat({at::arange(chunk.head, index), at::arange(chunk.tail, chunk.tail_end, index)})
                         .narrow(0, from, chunk.keys() - from)
                         .unsqueeze(0);
    Tensor seen;
    if (visible.blocks.defined()) {
      const int64_t count = (positions + visible.block - 1) / visible.block;
      const Tensor mine = visible.blocks.narrow(2, chunk.begin, chunk.rows());
      // One place more takes what is no block.
      Tensor chosen =
          at::zeros({mine.size(0), mine.size(1), mine.size(2), count + 1}, index.dtype(at::kBool));
      chosen.scatter_(3, mine.lt(0).mul(count + 1).add(mine), true);
      seen = chosen.index_select(3, at::div(j, visible.block, "floor").flatten())
                 .view({-1, kv_heads, group, chunk.rows(), j.size(1)});
      seen = (seen | j.lt(visible.sinks)) & j.le(i);
    } else {
      seen = j.le(i);
      if (visible.window > 0) seen = seen & (j.gt(i - visible.window) | j.lt(visible.sinks));
    }
    if (chunk.begin < visible.sink_tokens)
      seen = at::where(i.lt(visible.sink_tokens), j.lt(visible.sink_tokens), seen);
    return seen;
  }

  /// Whether what a query of the chunk sees are two ranges of keys, which kernels take without a mask.
  bool in_ranges(const Chunk& chunk) const {
    return q.device().is_cpu() && q.scalar_type() == at::kFloat && !visible.blocks.defined() &&
           !sink.defined() && options.softcap <= 0 && options.scale > 0 && chunk.begin >= visible.sink_tokens;
  }
  SeenKeys seen_by(const Chunk& chunk, int64_t i) const {
    const int64_t sinks = std::max<int64_t>(0, std::min(visible.sinks, i + 1) - chunk.tail);
    const int64_t first = visible.window > 0 ? std::max<int64_t>(0, i + 1 - visible.window - chunk.tail) : 0;
    const int64_t head = chunk.head + (visible.window > 0 ? sinks : 0);
    return {head, std::max(head, chunk.head + first), chunk.head + i + 1 - chunk.tail};
  }
  /// f(row of `scores`, number of that row, what its query sees) for all rows of [n, group * rows, keys].
  template <class F>
  void for_rows(const Chunk& chunk, const Tensor& scores, const F& f) const {
    const int64_t keys = chunk.keys(), rows = chunk.rows();
    float* const data = scores.data_ptr<float>();
    at::parallel_for(0, n * group * rows, 64, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) f(data + r * keys, r, seen_by(chunk, chunk.begin + r % rows));
    });
  }

  /// Scores before the mask [n, group * rows, keys]; softcapped ones as tanh(s / cap), which their derivative
  /// needs.
  Tensor raw_scores(const Chunk& chunk, const Tensor& keys) const {
    if (in_ranges(chunk)) return multiply(queries_of(q, chunk), keys.transpose(1, 2));  // the kernels scale
    const double factor = options.softcap > 0 ? options.scale / options.softcap : options.scale;
    Tensor scores = multiply(queries_of(q, chunk) * factor, keys.transpose(1, 2));
    return options.softcap > 0 ? scores.tanh_() : scores;
  }

  /// Softmax [n, group * rows, keys, and one more with sink logits]. Overwrites `raw` unless there is a
  /// softcap.
  Tensor probabilities(const Chunk& chunk, const Tensor& raw) const {
    if (in_ranges(chunk)) {
      for_rows(chunk, raw, [&](float* row, int64_t, const SeenKeys& seen) {
        softmax_row(row, chunk.keys(), seen, static_cast<float>(options.scale));
      });
      return raw;
    }
    Tensor scores = options.softcap > 0 ? raw * options.softcap : raw;
    // Of full attention only the keys of the chunk's own positions can be hidden.
    const bool plain = visible.window == 0 && !visible.blocks.defined() && chunk.begin >= visible.sink_tokens;
    const int64_t from = plain ? chunk.begin - chunk.tail : 0;
    const Tensor seen = visible_in(chunk, from);
    const Tensor mask = at::zeros(seen.sizes(), scores.options())
                            .masked_fill_(seen.logical_not(), -std::numeric_limits<double>::infinity());
    scores.view({-1, kv_heads, group, chunk.rows(), chunk.keys()})
        .narrow(4, from, chunk.keys() - from)
        .add_(mask);
    if (sink.defined()) {
      const Tensor column =
          sink.view({1, kv_heads, group, 1}).expand({n / kv_heads, kv_heads, group, chunk.rows()});
      scores = at::cat({scores, column.reshape({n, group * chunk.rows(), 1})}, 2);
    }
    return at::_softmax(scores, -1, false);
  }

  Tensor forward() const {
    Tensor out = at::empty(q.sizes(), q.options());
    for (const Chunk& chunk : chunks()) {
      Tensor weights = probabilities(chunk, raw_scores(chunk, keys_of(k, chunk)));
      if (sink.defined()) weights = weights.narrow(2, 0, chunk.keys());
      out.narrow(2, chunk.begin, chunk.rows())
          .copy_(multiply(weights, keys_of(v, chunk)).view({n, group, chunk.rows(), dim}));
    }
    return out;
  }

  struct Gradients {
    Tensor q, k, v, sink;
  };

  Gradients backward(const Tensor& grad) const {
    Gradients out{at::empty(q.sizes(), q.options()),
                  at::zeros(k.sizes(), k.options()),
                  at::zeros(v.sizes(), v.options()),
                  {}};
    if (sink.defined()) out.sink = at::zeros(sink.sizes(), sink.options());
    for (const Chunk& chunk : chunks()) {
      const Tensor keys = keys_of(k, chunk), values = keys_of(v, chunk), upper = queries_of(grad, chunk);
      const Tensor raw = raw_scores(chunk, keys);
      const Tensor weights = probabilities(chunk, raw);
      const Tensor of_keys = sink.defined() ? weights.narrow(2, 0, chunk.keys()) : weights;
      add_to_keys(out.v, chunk, multiply(of_keys.transpose(1, 2), upper));
      Tensor slope = multiply(upper, values.transpose(1, 2));
      if (in_ranges(chunk)) {
        const float* const of_row = weights.data_ptr<float>();
        for_rows(chunk, slope, [&](float* row, int64_t r, const SeenKeys& seen) {
          softmax_row_back(of_row + r * chunk.keys(), chunk.keys(), seen, static_cast<float>(options.scale),
                           row);
        });
        out.q.narrow(2, chunk.begin, chunk.rows())
            .copy_(multiply(slope, keys).view({n, group, chunk.rows(), dim}));
        add_to_keys(out.k, chunk, multiply(slope.transpose(1, 2), queries_of(q, chunk)));
        continue;
      }
      if (sink.defined()) slope = at::cat({slope, at::zeros({n, slope.size(1), 1}, slope.options())}, 2);
      slope = at::_softmax_backward_data(slope, weights, -1, weights.scalar_type());
      if (sink.defined()) {
        const Tensor mine = slope.select(2, chunk.keys()).reshape({-1, kv_heads, group, chunk.rows()});
        out.sink.add_(mine.sum(at::IntArrayRef({0, 3})));
        slope = slope.narrow(2, 0, chunk.keys());
      }
      if (options.softcap > 0) slope = slope * (1 - raw.square());
      out.q.narrow(2, chunk.begin, chunk.rows())
          .copy_(multiply(slope, keys).mul_(options.scale).view({n, group, chunk.rows(), dim}));
      add_to_keys(out.k, chunk, multiply(slope.transpose(1, 2), queries_of(q, chunk) * options.scale));
    }
    return out;
  }

 private:
  static void add_to_keys(const Tensor& sum, const Chunk& chunk, const Tensor& part) {
    if (chunk.head > 0) sum.narrow(1, 0, chunk.head).add_(part.narrow(1, 0, chunk.head));
    sum.narrow(1, chunk.tail, chunk.tail_end - chunk.tail)
        .add_(part.narrow(1, chunk.head, chunk.tail_end - chunk.tail));
  }
};

class SoftmaxAttention : public torch::autograd::Function<SoftmaxAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const c10::optional<Tensor>& sink, const Visibility& visible,
                        const AttentionOptions& options) {
    ctx->save_for_backward({q, k, v, sink.value_or(Tensor()), visible.blocks});
    auto& data = ctx->saved_data;
    data["window"] = visible.window;
    data["sink_tokens"] = visible.sink_tokens;
    data["sinks"] = visible.sinks;
    data["block"] = visible.block;
    data["scale"] = options.scale;
    data["softcap"] = options.softcap;
    data["bfloat16"] = options.bfloat16;
    return Problem(q, k, v, sink.value_or(Tensor()), visible, options).forward().view(q.sizes());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    const Visibility visible{data["window"].toInt(), data["sink_tokens"].toInt(), data["sinks"].toInt(),
                             saved[4], data["block"].toInt()};
    const AttentionOptions options{data["scale"].toDouble(), data["softcap"].toDouble(),
                                   data["bfloat16"].toBool()};
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &sink = saved[3];
    const Problem problem(q, k, v, sink, visible, options);
    const auto out = problem.backward(grads[0].flatten(0, 1));
    return {out.q.view(q.sizes()),
            out.k.view(k.sizes()),
            out.v.view(v.sizes()),
            sink.defined() ? out.sink.view(sink.sizes()) : Variable(),
            Variable(),
            Variable()};
  }
};

}  // namespace

Tensor softmax_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& sink_logits,
                         const Visibility& visible, const AttentionOptions& options) {
  require(
      q.dim() == 5 && k.dim() == 4 && v.sizes() == k.sizes() && q.size(0) == k.size(0) &&
          q.size(1) == k.size(1) && q.size(3) == k.size(2) && q.size(4) == k.size(3),
      ErrorCode::invalid_argument,
      "softmax_attention: q [batch, kv_heads, group, positions, dim], k and v [batch, kv_heads, positions, "
      "dim]");
  c10::optional<Tensor> sink;
  if (sink_logits.defined()) sink = sink_logits;
  return SoftmaxAttention::apply(q, k, v, sink, visible, options);
}

}  // namespace mneme::train
