// Linear attention as a recurrence: one key/value head's state S [dim, dim] (row: a key channel, column: a
// value channel), run over tokens one after the other. Two rules:
//
//   gla    S = diag(decay) S + k v^T                     decay: one factor a key channel
//   delta  S = decay S;  u = beta (v - S^T k);  S += k u^T     decay, beta: one number each
//   both   y_h = q_h^T S      for the `group` query heads that share the head, after the update
//
// Columns of S never meet, so a head can be cut into column tiles at will; rows are summed in one fixed
// order. Hence a state and an output do not depend on how tokens are cut into calls: a chunk, single tokens
// and a replay give the same bits on one instruction set.
//
// Cost per token and state element: 2 + group multiply-adds for gla (one read and one write of a state that
// stays in the first-level cache within a chunk), 3 + group for delta. The chunk form of recurrence_chunk.h
// costs no less where several query heads share a state.
//
// Sources: Yang et al. 2024, Gated Linear Attention (arXiv 2312.06635), eq. 3; Yang et al. 2025, Gated Delta
// Networks (arXiv 2412.06464), eq. 10. What goes in (feature maps, decays, norms) is in recurrence_inputs.h.
#pragma once
#include <cstdint>

namespace mneme {

/// Columns of a state and the tiles that tasks work on are multiples of this.
inline constexpr int64_t kStateColumns = 16;

/// Columns of a task. At decode every task prepares its head's inputs again; at prefill few heads must do for
/// all threads.
inline constexpr int64_t kDecodeColumns = 64, kPrefillColumns = 32;

/// What the state of one mixer looks like.
struct RecurrenceShape {
  enum class Rule : uint8_t { gla, delta };
  Rule rule = Rule::gla;
  int64_t kv_heads = 0;
  int64_t group = 0;  // query heads a kv head
  int64_t dim = 0;

  int64_t columns() const { return (dim + kStateColumns - 1) / kStateColumns * kStateColumns; }
  int64_t head_values() const { return dim * columns(); }
  int64_t state_values() const { return kv_heads * head_values(); }  // [kv_heads, dim, columns]

  // What a token writes into the state of a head, one after the other: v [columns] (zeros behind dim), k
  // [dim], decay [dim] or [1], beta [1] for delta. Also the row of the log that a rollback replays.
  int64_t decays() const { return rule == Rule::gla ? dim : 1; }
  int64_t k_offset() const { return columns(); }
  int64_t decay_offset() const { return columns() + dim; }
  int64_t beta_offset() const { return columns() + dim + 1; }
  int64_t update_values() const {
    return (columns() + dim + (rule == Rule::gla ? dim : 2) + kStateColumns - 1) / kStateColumns *
           kStateColumns;
  }
};

/// Consecutive tokens of one head.
struct RecurrenceTokens {
  const float* update = nullptr;  // [tokens, update_stride]: the first update_values() of each row
  int64_t update_stride = 0;
  const float* q = nullptr;  // [tokens, q_stride]: the first group * dim of each row; null: only the state
  int64_t q_stride = 0;
  float* y = nullptr;  // [tokens, y_stride]: the first group * dim of each row
  int64_t y_stride = 0;
  int64_t count = 0;  // at least 1
};

/// Columns [begin, end) (multiples of kStateColumns, end up to columns()) of the state before `in` and after
/// `out` [dim, columns()]; `out` may be `in`. Writes y at columns below dim.
void run_recurrence(const RecurrenceShape& shape, const RecurrenceTokens& tokens, int64_t begin, int64_t end,
                    const float* in, float* out);

/// The same in plain loops and double precision, every column: the specification. state: [dim, columns()], in
/// and out.
void run_recurrence_plain(const RecurrenceShape& shape, const RecurrenceTokens& tokens, double* state,
                          double* y);

}  // namespace mneme
