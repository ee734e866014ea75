// The recurrences of recurrence.h for one key-value head, forward and backward, f32 on a CPU.
//
// A state of 64 x 64 fits the first-level cache, so running token after token costs fewer multiply-adds than
// the chunk form with its matrix products and is faster (docs/recurrence.md). What a chunk of 64 tokens is
// for here: rows are packed for it, and sums over time start anew from the state at its end.
//
// No state is kept for the backward pass. Two sweeps compute all that it needs:
//
//   back in time     D_t = sum_h q_h,t do_h,t^T + decay_{t+1} D_{t+1}, the gradient of S_t:
//     gla            dk_t = D_t v_t,  dv_t = D_t^T k_t
//     delta          du = D_t^T k_t,  dv_t = e = beta du,  dbeta = du . (v - P^T k),  dk_t = D_t u_t, and
//     then
//                    D_t <- D_t - k e^T, the gradient of the decayed state P_t
//   forth in time    S_t again:  dq_h,t = S_t do_h,t,  and for delta dk_t -= P_t e
//
// The gradient of a log-decay needs no state either: scaling S_t by a factor changes nothing if later queries
// and earlier keys are divided by it, hence da_t = da_{t+1} + q_t dq_t - k_t dk_t (gla, a key channel;
// delta: + q_t . dq_t - v_t . dv_t). At the end of a chunk da is known from the states, <S_t, decay_{t+1}
// D_{t+1}>, so that rounding errors do not add up over a sequence. Sources: Yang et al. 2024 (arXiv
// 2312.06635) section C; Yang et al. 2024 (arXiv 2406.06484); the forms above follow from the definitions.
#pragma once
#include <cstdint>

namespace mneme::train {

/// Rows of one head: row t at data + t * step, its values next to each other.
struct ConstRows {
  const float* data = nullptr;
  int64_t step = 0;
  const float* at(int64_t t) const { return data + t * step; }
};
struct Rows {
  float* data = nullptr;
  int64_t step = 0;
  float* at(int64_t t) const { return data + t * step; }
};

/// One key-value head and the `group` query heads that share it; row t of query head h at row t + h * `head`.
struct RecurrenceHead {
  bool delta = false;
  int64_t length = 0, group = 0, k_dim = 0, v_dim = 0;
  float scale = 1;
  ConstRows q;  // [length, k_dim] a query head
  int64_t q_head = 0;
  ConstRows k, v;       // [length, k_dim], [length, v_dim]
  ConstRows log_decay;  // gla [length, k_dim]; delta [length, 1]
  ConstRows beta;       // delta [length, 1]
};

/// Writes out [length, v_dim] a query head, `out_head` values apart, and for delta what a key did not know
/// yet, unseen [length, v_dim] = v - P^T k, which the backward pass needs.
void recurrence_forward(const RecurrenceHead& head, Rows out, int64_t out_head, float* unseen);

/// Gradients of one head; q and out as in RecurrenceHead, rows of k, v, log_decay, beta each their own.
struct RecurrenceGradients {
  ConstRows out;  // of the loss with respect to the output
  int64_t out_head = 0;
  Rows q;
  int64_t q_head = 0;
  Rows k, v, log_decay, beta;
};

void recurrence_backward(const RecurrenceHead& head, const float* unseen,
                         const RecurrenceGradients& gradients);

}  // namespace mneme::train
