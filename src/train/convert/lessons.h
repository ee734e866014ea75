// What a student learns from its teacher in a conversion, as losses.
//
//   transfer   layer by layer: the student's mixer is given what the teacher's mixer reads in that layer, and
//              is to give what the teacher's gives. Layers do not see each other, so any number of them
//              learns from one pass of the teacher.
//   distill    the whole: the student's distribution over the next token is to be the teacher's.
#pragma once
#include <functional>
#include <vector>

#include "train/convert/converted_model.h"

namespace mneme::train {

/// Runs the teacher over tokens [batch, length] without gradients, up to the last of `layers` and no further,
/// and hands out what the mixers of `layers` read and give. Memory: one layer's activations.
void teach_mixers(const ConvertedModel& teacher, const Tensor& tokens, const std::vector<uint32_t>& layers,
                  const PassOptions& options, const MixerTap& tap);

/// sum (y - target)^2 / sum target^2, where y is the student's mixer on `normed`.
Tensor mixer_error(const ConvertedModel& student, uint32_t layer, const Tensor& normed, const Tensor& target,
                   const PassOptions& options);

/// Least squares for the output projection of a mixer: accumulates X^T X and X^T Y over batches, X what the
/// projection reads and Y what it should give, in double. Ridge of 1e-4 of the mean square.
class OutputSolver {
 public:
  explicit OutputSolver(const ConvertedModel& student, uint32_t layer);
  /// Whether the mixer has one projection at its end (a parallel one has norms behind two).
  static bool possible(const MixerConfig& mixer);
  void add(const Tensor& normed, const Tensor& target);
  /// [d_model, heads * head_dim].
  Tensor solution() const;
  uint32_t layer() const noexcept { return layer_; }

 private:
  ConvertedModel features_;  // the student with an identity for its output projection
  uint32_t layer_;
  Tensor bias_;
  Tensor xx_, xy_;
};

/// Which logits a model makes of its hidden states: cap * tanh(scale * hidden head^T / cap).
struct Head {
  Tensor weight;  // [vocab, d_model]
  double scale = 1, cap = 0;
};
Head head_of(const ConvertedModel& model);

/// (1 - share) T^2 KL(softmax(teacher / T) || softmax(student / T)) + share * cross-entropy of the targets,
/// mean over places. student, teacher [places, d_model], after the output norm; targets int64 [places].
/// Gradients go to the student's hidden states and to its head where that needs them. Logits are computed
/// for a few places at a time, forward and backward together, so that none are held.
Tensor distillation_loss(const Tensor& student, const Head& student_head, const Tensor& teacher,
                         const Head& teacher_head, const Tensor& targets, double temperature, double share,
                         bool bfloat16);

}  // namespace mneme::train
